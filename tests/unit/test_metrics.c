/* Counting: in one process and in several that share memory; and the text that comes of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ctype.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "base/metrics_table.h"

static bool shows(const char *line)
{
    struct buf text = {0};
    struct buf whole = {0};
    metrics_format(&text);
    buf_addf(&whole, "\n%s\n", line);
    bool found = strstr(buf_str(&text), buf_str(&whole)) != NULL;
    buf_clear(&text);
    buf_clear(&whole);
    return found;
}

static uint64_t bucket(enum metric histogram, unsigned label, unsigned index)
{
    return metrics_sum(histogram + label * METRIC_HISTOGRAM_CELLS + index);
}

/* ---- the table ---- */

static void cells_follow_each_other(void **state)
{
    (void)state;
    unsigned next = 0;
    for (unsigned i = 0; i < metric_family_count; i++) {
        assert_int_equal(metric_families[i].metric, next);
        next += metric_cells(&metric_families[i]);
    }
    assert_int_equal(next, METRIC__CELLS);
}

static bool ends_with(const char *text, const char *end)
{
    size_t len = strlen(text);
    return len >= strlen(end) && strcmp(text + len - strlen(end), end) == 0;
}

static void names_keep_to_the_conventions(void **state)
{
    (void)state;
    for (unsigned i = 0; i < metric_family_count; i++) {
        const struct metric_family *family = &metric_families[i];
        assert_int_equal(strspn(family->name, "abcdefghijklmnopqrstuvwxyz_"), strlen(family->name));
        assert_int_equal(ends_with(family->name, "_total"), family->type == METRIC_IS_COUNTER);
        assert_int_equal(family->bounds != NULL, family->type == METRIC_IS_HISTOGRAM);
        assert_null(strpbrk(family->help, "\\\n"));
        assert_true(ends_with(family->help, "."));
        for (unsigned j = 0; j < i; j++) {
            assert_string_not_equal(family->name, metric_families[j].name);
        }
    }
}

static void check_words(const struct metric_words *words)
{
    for (unsigned i = 0; words && i < words->count; i++) {
        const char *second = words->second_words ? words->second_words[i] : "second";
        assert_non_null(words->words[i]);
        assert_non_null(second);
        for (const char *p = words->words[i]; *p; p++) {
            assert_true(isalnum((unsigned char)*p) || strchr("_/. -", *p));
        }
        for (const char *p = second; *p; p++) {
            assert_true(isalnum((unsigned char)*p) || *p == '_');
        }
        for (unsigned j = 0; j < i; j++) {
            bool same_second =
                !words->second_words || strcmp(words->second_words[i], words->second_words[j]) == 0;
            assert_false(same_second && strcmp(words->words[i], words->words[j]) == 0);
        }
    }
}

static void words_are_distinct_and_need_no_escape(void **state)
{
    (void)state;
    for (unsigned i = 0; i < metric_family_count; i++) {
        check_words(metric_families[i].labels);
        check_words(metric_families[i].across);
    }
}

static void bounds_rise(void **state)
{
    (void)state;
    for (unsigned i = 0; i < metric_family_count; i++) {
        const uint64_t *bounds = metric_families[i].bounds;
        for (unsigned j = 1; bounds && j < METRIC_BOUNDS; j++) {
            assert_true(bounds[j] > bounds[j - 1]);
        }
    }
}

/* ---- one process, which shares nothing ---- */

static void alone_it_counts_for_itself(void **state)
{
    (void)state;
    assert_false(metrics_is_shared());
    assert_int_equal(metrics_take_slot(), -1);
    metrics_free_slot(-1);
    metrics_use_slot(-1);
    metrics_count(METRIC_LOGINS_BEGUN, 0);
    metrics_set_mass_refusal(true);
    assert_int_equal(metrics_sum(METRIC_LOGINS_BEGUN), 1);
    assert_true(shows("spotify_auth_mass_refusal 1"));
}

static void it_can_be_shared(void **state)
{
    (void)state;
    assert_true(metrics_share());
    assert_true(metrics_is_shared());
    assert_int_equal(metrics_sum(METRIC_LOGINS_BEGUN), 0);
    assert_true(shows("spotify_auth_build_info{version=\"0.1.0\"} 1"));
    assert_true(metrics_sum(METRIC_START_TIME) > 1700000000);
}

/* ---- labels ---- */

static void a_request_is_counted_by_route_and_status(void **state)
{
    (void)state;
    metrics_count_request(METRIC_ROUTE_TOKEN, 503, 51);
    metrics_count_request(METRIC_ROUTE_TOKEN, 503, 50);
    metrics_count_request(METRIC_ROUTE_REFRESH, 200, 10000001);
    assert_true(shows("spotify_auth_requests_total{route=\"/token\",status=\"503\"} 2"));
    assert_true(shows("spotify_auth_requests_total{route=\"/refresh\",status=\"200\"} 1"));
    assert_false(shows("spotify_auth_requests_total{route=\"/refresh\",status=\"503\"} 0"));
    assert_true(
        shows("spotify_auth_request_duration_seconds_bucket{group=\"token\",le=\"5e-05\"} 1"));
    assert_true(
        shows("spotify_auth_request_duration_seconds_bucket{group=\"token\",le=\"0.0001\"} 2"));
    assert_true(shows("spotify_auth_request_duration_seconds_bucket{group=\"token\",le=\"10\"} 2"));
    assert_true(
        shows("spotify_auth_request_duration_seconds_bucket{group=\"token\",le=\"+Inf\"} 3"));
    assert_true(shows("spotify_auth_request_duration_seconds_sum{group=\"token\"} 10.000102"));
    assert_true(shows("spotify_auth_request_duration_seconds_count{group=\"token\"} 3"));
}

static void every_status_of_the_list_has_its_own_label(void **state)
{
    (void)state;
    const struct metric_words *statuses = metric_find(METRIC_REQUESTS)->across;
    for (unsigned i = 1; i < statuses->count; i++) {
        unsigned cell = METRIC_REQUESTS + (unsigned)METRIC_ROUTE_LOGOUT * METRIC_STATUS__MAX + i;
        uint64_t before = metrics_sum(cell);
        int status = (statuses->words[i][0] - '0') * 100 + (statuses->words[i][1] - '0') * 10 +
                     (statuses->words[i][2] - '0');
        metrics_count_request(METRIC_ROUTE_LOGOUT, status, 1);
        assert_int_equal(metrics_sum(cell), before + 1);
    }
}

static void every_other_status_is_other(void **state)
{
    (void)state;
    static const int others[] = {-1, 0, 100, 201, 418, 502, 504, 599, 1000, 2147483647};
    unsigned cell = METRIC_REQUESTS + (unsigned)METRIC_ROUTE_UNKNOWN * METRIC_STATUS__MAX;
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        metrics_count_request(METRIC_ROUTE_UNKNOWN, others[i], 1);
        assert_int_equal(metrics_sum(cell), i + 1);
    }
}

static void routes_are_found_by_their_path(void **state)
{
    (void)state;
    assert_int_equal(metrics_find_route("/token"), METRIC_ROUTE_TOKEN);
    assert_int_equal(metrics_find_route("/metrics"), METRIC_ROUTE_METRICS);
    assert_int_equal(metrics_find_route("/tokens"), METRIC_ROUTE_UNKNOWN);
    assert_int_equal(metrics_find_route(""), METRIC_ROUTE_UNKNOWN);
}

static void words_are_those_of_the_log(void **state)
{
    (void)state;
    metrics_count_word(METRIC_LOGINS, err_name(ERR_REFUSED));
    metrics_count_word(METRIC_LOGINS, "access_denied");
    metrics_count_word(METRIC_LOGINS, "\"} 1\nspotify_auth_forged 1");
    metrics_count_word(METRIC_RENEWALS, err_name(ERR_SUSPECT));
    assert_true(shows("spotify_auth_logins_total{outcome=\"failed\",reason=\"refused\"} 1"));
    assert_true(shows("spotify_auth_logins_total{outcome=\"denied\",reason=\"access_denied\"} 1"));
    assert_true(shows("spotify_auth_logins_total{outcome=\"failed\",reason=\"other\"} 1"));
    assert_true(shows("spotify_auth_renewals_total{outcome=\"suspect\"} 1"));
    assert_false(shows("spotify_auth_forged 1"));
}

static void calls_are_counted_by_name_and_status(void **state)
{
    (void)state;
    static const struct {
        int status;
        enum metric_answer want;
    } cases[] = {
        {0, METRIC_ANSWER_NONE},    {200, METRIC_ANSWER_2XX},   {299, METRIC_ANSWER_2XX},
        {302, METRIC_ANSWER_OTHER}, {400, METRIC_ANSWER_4XX},   {429, METRIC_ANSWER_429},
        {503, METRIC_ANSWER_5XX},   {999, METRIC_ANSWER_OTHER}, {100, METRIC_ANSWER_OTHER}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        unsigned cell = METRIC_CALLS + (unsigned)METRIC_CALL_REFRESH * METRIC_ANSWER__MAX +
                        (unsigned)cases[i].want;
        uint64_t before = metrics_sum(cell);
        metrics_count_call("token refresh", cases[i].status, 1000);
        assert_int_equal(metrics_sum(cell), before + 1);
    }
    metrics_count_call("a call of tomorrow", 200, 1000);
    metrics_count_call_refused("profile", METRIC_ANSWER_BUSY);
    assert_true(shows("spotify_auth_upstream_calls_total{call=\"other\",answer=\"2xx\"} 1"));
    assert_true(shows("spotify_auth_upstream_calls_total{call=\"profile\",answer=\"busy\"} 1"));
    assert_true(shows("spotify_auth_upstream_call_duration_seconds_count{call=\"profile\"} 0"));
}

/* ---- histograms ---- */

static void a_value_at_a_bound_is_within_it(void **state)
{
    (void)state;
    for (unsigned i = 0; i < METRIC_BOUNDS; i++) {
        uint64_t at = bucket(METRIC_REDIS_DURATION, 0, i);
        uint64_t after = bucket(METRIC_REDIS_DURATION, 0, i + 1);
        metrics_observe_redis(metric_redis_us[i]);
        assert_int_equal(bucket(METRIC_REDIS_DURATION, 0, i), at + 1);
        metrics_observe_redis(metric_redis_us[i] + 1);
        assert_int_equal(bucket(METRIC_REDIS_DURATION, 0, i + 1), after + 1);
    }
}

static void the_ends_of_a_histogram_take_everything(void **state)
{
    (void)state;
    metrics_observe_reauth(-1);
    metrics_observe_reauth(INT64_MIN);
    metrics_observe_reauth(0);
    metrics_observe_reauth(604800);
    metrics_observe_reauth(604801);
    metrics_observe_reauth((int64_t)604800 * 1000);
    assert_true(shows("spotify_auth_session_reauth_seconds_bucket{le=\"604800\"} 4"));
    assert_true(shows("spotify_auth_session_reauth_seconds_bucket{le=\"1209600\"} 5"));
    assert_true(shows("spotify_auth_session_reauth_seconds_bucket{le=\"15724800\"} 5"));
    assert_true(shows("spotify_auth_session_reauth_seconds_bucket{le=\"+Inf\"} 6"));
    assert_true(shows("spotify_auth_session_reauth_seconds_sum 606009601.000000"));
    assert_true(shows("spotify_auth_session_reauth_seconds_count 6"));
}

/* ---- slots ---- */

static void slots_are_summed(void **state)
{
    (void)state;
    int first = metrics_take_slot();
    int second = metrics_take_slot();
    uint64_t before = metrics_sum(METRIC_TOKENS);
    assert_int_not_equal(first, second);
    metrics_use_slot(first);
    metrics_add(METRIC_TOKENS, METRIC_TOKEN_USER, 3);
    metrics_set_breaker("api", true);
    metrics_use_slot(second);
    metrics_add(METRIC_TOKENS, METRIC_TOKEN_USER, 4);
    metrics_set_breaker("api", true);
    metrics_set_breaker("accounts", true);
    metrics_set_breaker("accounts", false);
    assert_int_equal(metrics_sum(METRIC_TOKENS), before + 7);
    assert_true(shows("spotify_auth_workers 2"));
    assert_true(shows("spotify_auth_breaker_open{upstream=\"api\"} 2"));
    assert_true(shows("spotify_auth_breaker_open{upstream=\"accounts\"} 0"));
    metrics_free_slot(first);
    metrics_free_slot(second);
}

static void a_gauge_goes_down(void **state)
{
    (void)state;
    int slot = metrics_take_slot();
    metrics_use_slot(slot);
    metrics_add(METRIC_RENEWAL_WAITERS, METRIC_WAITER_OWN_WORKER, 2);
    metrics_add(METRIC_RENEWAL_WAITERS, METRIC_WAITER_OWN_WORKER, -1);
    assert_true(shows("spotify_auth_renewal_waiters{where=\"own_worker\"} 1"));
    metrics_free_slot(slot);
}

static void an_ended_worker_leaves_its_counts_and_no_gauge(void **state)
{
    (void)state;
    int slot = metrics_take_slot();
    uint64_t before = metrics_sum(METRIC_TOKENS);
    metrics_use_slot(slot);
    metrics_count(METRIC_TOKENS, METRIC_TOKEN_USER);
    metrics_observe_redis(1);
    metrics_add(METRIC_REQUESTS_IN_HAND, 0, 5);
    metrics_free_slot(slot);
    assert_int_equal(metrics_sum(METRIC_TOKENS), before + 1);
    assert_true(shows("spotify_auth_requests_in_hand 0"));
    assert_true(shows("spotify_auth_workers 0"));
    assert_int_equal(metrics_take_slot(), slot);
    metrics_use_slot(slot);
    metrics_count(METRIC_TOKENS, METRIC_TOKEN_USER);
    assert_int_equal(metrics_sum(METRIC_TOKENS), before + 2);
    metrics_free_slot(slot);
}

static void what_is_true_of_all_is_not_summed(void **state)
{
    (void)state;
    int slots[] = {metrics_take_slot(), metrics_take_slot()};
    metrics_use_slot(slots[0]);
    metrics_set_mass_refusal(true);
    metrics_use_slot(slots[1]);
    metrics_set_mass_refusal(true);
    assert_true(shows("spotify_auth_mass_refusal 1"));
    metrics_use_slot(slots[0]);
    metrics_set_mass_refusal(false);
    assert_true(shows("spotify_auth_mass_refusal 0"));
    metrics_free_slot(slots[0]);
    metrics_free_slot(slots[1]);
}

static void without_a_slot_nothing_is_harmed(void **state)
{
    (void)state;
    static int slots[METRICS_SLOTS];
    size_t count = 0;
    while ((slots[count] = metrics_take_slot()) >= 0) {
        count++;
    }
    assert_int_equal(count, METRICS_SLOTS - 1);
    uint64_t before = metrics_sum(METRIC_TOKENS);
    metrics_use_slot(slots[count]);
    metrics_count(METRIC_TOKENS, METRIC_TOKEN_USER);
    assert_int_equal(metrics_sum(METRIC_TOKENS), before);
    for (size_t i = 0; i < count; i++) {
        metrics_free_slot(slots[i]);
    }
}

/* Count in a process of its own, which then waits to be killed. */
static pid_t fork_counter(int slot, unsigned count)
{
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* where a test fails, it outlives nobody */
        metrics_use_slot(slot);
        for (unsigned i = 0; i < count; i++) {
            metrics_count(METRIC_SESSIONS_BEGUN, METRIC_BEGUN_LOGIN);
        }
        raise(SIGSTOP);
        _exit(0);
    }
    return pid;
}

static void killed_processes_lose_nothing(void **state)
{
    (void)state;
    enum { PROCESSES = 4, COUNT = 50000 };
    pid_t pids[PROCESSES];
    int slots[PROCESSES];
    int status;
    for (int i = 0; i < PROCESSES; i++) {
        slots[i] = metrics_take_slot();
        pids[i] = fork_counter(slots[i], COUNT);
    }
    for (int i = 0; i < PROCESSES; i++) {
        assert_int_equal(waitpid(pids[i], &status, WUNTRACED), pids[i]);
        assert_true(WIFSTOPPED(status));
    }
    assert_true(shows("spotify_auth_sessions_begun_total{by=\"login\"} 200000"));
    assert_true(shows("spotify_auth_workers 4"));
    for (int i = 0; i < PROCESSES; i++) {
        kill(pids[i], SIGKILL);
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        metrics_free_slot(slots[i]);
    }
    assert_true(shows("spotify_auth_sessions_begun_total{by=\"login\"} 200000"));
    assert_true(shows("spotify_auth_workers 0"));
}

/* ---- the text ---- */

static void each_family_has_its_help_and_type(void **state)
{
    (void)state;
    struct buf text = {0};
    metrics_format(&text);
    assert_memory_equal(buf_str(&text), "# HELP ", 7);
    assert_int_equal(text.data[text.len - 1], '\n');
    assert_non_null(strstr(
        buf_str(&text), "# HELP spotify_auth_workers Worker processes that run.\n"
                        "# TYPE spotify_auth_workers gauge\n"
                        "spotify_auth_workers 0\n"
                        "# HELP spotify_auth_worker_ends_total Worker processes that ended: told "
                        "to, or by themselves.\n"
                        "# TYPE spotify_auth_worker_ends_total counter\n"
                        "spotify_auth_worker_ends_total{how=\"drained\"} 0\n"
                        "spotify_auth_worker_ends_total{how=\"died\"} 0\n"));
    assert_non_null(strstr(buf_str(&text), "# TYPE spotify_auth_redis_duration_seconds histogram\n"
                                           "spotify_auth_redis_duration_seconds_bucket{le="));
    buf_clear(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cells_follow_each_other),
        cmocka_unit_test(names_keep_to_the_conventions),
        cmocka_unit_test(words_are_distinct_and_need_no_escape),
        cmocka_unit_test(bounds_rise),
        cmocka_unit_test(alone_it_counts_for_itself),
        cmocka_unit_test(it_can_be_shared),
        cmocka_unit_test(a_request_is_counted_by_route_and_status),
        cmocka_unit_test(every_status_of_the_list_has_its_own_label),
        cmocka_unit_test(every_other_status_is_other),
        cmocka_unit_test(routes_are_found_by_their_path),
        cmocka_unit_test(words_are_those_of_the_log),
        cmocka_unit_test(calls_are_counted_by_name_and_status),
        cmocka_unit_test(a_value_at_a_bound_is_within_it),
        cmocka_unit_test(the_ends_of_a_histogram_take_everything),
        cmocka_unit_test(slots_are_summed),
        cmocka_unit_test(a_gauge_goes_down),
        cmocka_unit_test(an_ended_worker_leaves_its_counts_and_no_gauge),
        cmocka_unit_test(what_is_true_of_all_is_not_summed),
        cmocka_unit_test(without_a_slot_nothing_is_harmed),
        cmocka_unit_test(killed_processes_lose_nothing),
        cmocka_unit_test(each_family_has_its_help_and_type),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
