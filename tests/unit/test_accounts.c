/* spotify/accounts.c: what is sent to a scripted token endpoint, and what its answers mean. */
#include "spotify/accounts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fiber.h"
#include "base/log.h"
#include "scripted_server.h"
#include "spotify/attempt.h"

#define COUNT(table) (sizeof(table) / sizeof *(table))
#define TOKEN "{\"access_token\":\"at\",\"token_type\":\"Bearer\"}"
#define BASIC "\r\nAuthorization: Basic aWQ6c2VjcmV0\r\n"

static uv_loop_t loop;
static struct settings settings;
static struct accounts accounts;
static char base_url[64];

/* What the server says next; from the request good_from on, counted from 1, it gives a token. */
static struct {
    const char *status; /* NULL: it closes the connection instead */
    const char *headers;
    const char *body;
    int good_from; /* 0: never */
} script;

static bool answer(int socket, const char *path)
{
    (void)path;
    if (script.good_from && server_count_requests() >= script.good_from) {
        server_send_answer(socket, "200 OK", "", TOKEN);
        return true;
    }
    if (script.status) {
        server_send_answer(socket, script.status, script.headers, script.body);
    }
    return script.status != NULL;
}

static void set_script(const char *status, const char *headers, const char *body)
{
    script.status = status;
    script.headers = headers;
    script.body = body;
    script.good_from = 0;
}

/* One call in a fiber of its own. */
struct trial {
    const char *code;          /* redeemed, or */
    const char *refresh_token; /* renewed, or else the profile is read, unless */
    bool is_app;               /* the app's own token is called for */
    const char *verifier;
    enum err err;
    int64_t retry_after_s;
    struct tokens tokens;
    struct profile profile;
};

static void run_trial(void *argument)
{
    struct trial *trial = argument;
    trial->retry_after_s = -2;
    if (trial->code) {
        trial->err = accounts_redeem_code(&accounts, trial->code, "https://app.example/callback",
                                          trial->verifier, &trial->tokens, &trial->retry_after_s);
    } else if (trial->refresh_token) {
        trial->err = accounts_refresh(&accounts, trial->refresh_token, &trial->tokens,
                                      &trial->retry_after_s);
    } else if (trial->is_app) {
        trial->err = accounts_get_app_token(&accounts, &trial->tokens, &trial->retry_after_s);
    } else {
        trial->err = accounts_get_profile(&accounts, "at", &trial->profile);
    }
}

static void call(struct trial *trial)
{
    fiber_spawn(run_trial, trial);
    while (fiber_count() > 0) {
        uv_run(&loop, UV_RUN_ONCE);
    }
}

static void close_breakers(void)
{
    accounts_init(&accounts, accounts.upstream, &settings);
}

static int set_up(void **state)
{
    (void)state;
    server_forget();
    snprintf(base_url, sizeof base_url, "http://127.0.0.1:%d", server.port);
    settings = (struct settings){.accounts_url = base_url,
                                 .api_url = base_url,
                                 .client_id = (char *)"id",
                                 .client_secret = (char *)"secret",
                                 .upstream_connect_timeout_ms = 2000,
                                 .upstream_timeout_ms = 2000,
                                 .upstream_max_in_flight = 4};
    accounts_init(&accounts, upstream_new(&loop, &settings), &settings);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    upstream_free(accounts.upstream);
    uv_run(&loop, UV_RUN_DEFAULT);
    return 0;
}

static void the_authorize_url_says_what_is_asked(void **state)
{
    static const struct {
        struct authorization authorization;
        const char *want;
    } table[] = {
        {{"https://app.example/callback", "a b", "st", "ch", true},
         "https://accounts.example/authorize?client_id=i%26d&response_type=code"
         "&redirect_uri=https%3A%2F%2Fapp.example%2Fcallback&scope=a%20b&state=st"
         "&code_challenge_method=S256&code_challenge=ch&show_dialog=true"},
        {{"https://app.example/callback", "", "st", NULL, false},
         "https://accounts.example/authorize?client_id=i%26d&response_type=code"
         "&redirect_uri=https%3A%2F%2Fapp.example%2Fcallback&state=st&show_dialog=false"},
    };
    const struct settings plain = {.accounts_url = (char *)"https://accounts.example",
                                   .client_id = (char *)"i&d"};
    const struct accounts plain_accounts = {.settings = &plain};
    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        struct buf out = {0};
        accounts_format_authorize_url(&plain_accounts, &table[i].authorization, &out);
        assert_string_equal(buf_str(&out), table[i].want);
        buf_clear(&out);
    }
}

static void a_code_is_redeemed_with_exactly_the_fields(void **state)
{
    struct trial trial = {.code = "c+/=%", .verifier = "ver"};
    (void)state;
    set_script("200 OK", "",
               "{\"access_token\":\"at\",\"token_type\":\"Bearer\",\"scope\":\"a\","
               "\"expires_in\":3600,\"refresh_token\":\"rt\"}");
    call(&trial);
    assert_int_equal(trial.err, OK);
    assert_int_equal(trial.retry_after_s, -1);
    assert_string_equal(trial.tokens.access_token, "at");
    assert_string_equal(trial.tokens.refresh_token, "rt");
    assert_string_equal(trial.tokens.scope, "a");
    assert_memory_equal(server.last_request, "POST /api/token HTTP/1.1\r\n", 26);
    assert_non_null(strstr(server.last_request, BASIC));
    assert_string_equal(strstr(server.last_request, "\r\n\r\n") + 4,
                        "grant_type=authorization_code&code=c%2B%2F%3D%25"
                        "&redirect_uri=https%3A%2F%2Fapp.example%2Fcallback&code_verifier=ver");
    tokens_clear(&trial.tokens);
}

static void without_pkce_there_is_no_verifier(void **state)
{
    struct trial trial = {.code = "c"};
    (void)state;
    set_script("200 OK", "", "{\"access_token\":\"at\",\"token_type\":\"bearer\"}");
    call(&trial);
    assert_int_equal(trial.err, OK);
    assert_string_equal(strstr(server.last_request, "\r\n\r\n") + 4,
                        "grant_type=authorization_code&code=c"
                        "&redirect_uri=https%3A%2F%2Fapp.example%2Fcallback");
    tokens_clear(&trial.tokens);
}

static void a_refresh_has_exactly_the_fields(void **state)
{
    struct trial trial = {.refresh_token = "r/t"};
    (void)state;
    set_script("200 OK", "", "{\"access_token\":\"at2\",\"token_type\":\"Bearer\"}");
    call(&trial);
    assert_int_equal(trial.err, OK);
    assert_null(trial.tokens.refresh_token);
    assert_non_null(strstr(server.last_request, BASIC));
    assert_string_equal(strstr(server.last_request, "\r\n\r\n") + 4,
                        "grant_type=refresh_token&refresh_token=r%2Ft");
    tokens_clear(&trial.tokens);
}

static void an_app_token_is_called_for_by_its_grant_alone(void **state)
{
    struct trial trial = {.is_app = true};
    (void)state;
    set_script("200 OK", "",
               "{\"access_token\":\"at\",\"token_type\":\"bearer\",\"expires_in\":60}");
    call(&trial);
    assert_int_equal(trial.err, OK);
    assert_string_equal(trial.tokens.access_token, "at");
    assert_int_equal(trial.tokens.expires_in, 60);
    assert_non_null(strstr(server.last_request, BASIC));
    assert_string_equal(strstr(server.last_request, "\r\n\r\n") + 4,
                        "grant_type=client_credentials");
    tokens_clear(&trial.tokens);
}

static void no_app_token_is_never_a_refusal_of_somebody(void **state)
{
    static const struct {
        const char *status, *headers, *body;
        enum err want;
        int64_t retry_after_s;
    } table[] = {
        {"400 Bad Request", "", "{\"error\":\"invalid_grant\"}", ERR_MISCONFIGURED, -1},
        {"400 Bad Request", "", "{\"error\":\"invalid_client\"}", ERR_MISCONFIGURED, -1},
        {"429 Too Many Requests", "Retry-After: 9\r\n", "", ERR_UPSTREAM, 9},
        {"200 OK", "", "{\"access_token\":\"at\",\"token_type\":\"Bearer\",\"expires_in\":0}",
         ERR_UPSTREAM, -1},
        {"200 OK", "", "{\"access_token\":\"\",\"token_type\":\"Bearer\"}", ERR_UPSTREAM, -1},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        struct trial trial = {.is_app = true};
        set_script(table[i].status, table[i].headers, table[i].body);
        call(&trial);
        assert_int_equal(trial.err, table[i].want);
        assert_int_equal(trial.retry_after_s, table[i].retry_after_s);
        assert_null(trial.tokens.access_token);
    }
}

static void token_answers_have_their_meaning(void **state)
{
    static const char grant[] = "{\"error\":\"invalid_grant\"}";
    static const char client[] = "{\"error\":\"invalid_client\"}";
    static const char wait[] = "Retry-After: 9\r\n";
    const struct {
        const char *status, *headers, *body;
        enum err want;
        int64_t retry_after_s;
        int calls;
    } table[] = {
        {"400 Bad Request", wait, grant, ERR_REFUSED, -1, 1},
        {"401 Unauthorized", "", grant, ERR_REFUSED, -1, 1},
        {"400 Bad Request", "", client, ERR_MISCONFIGURED, -1, 1},
        {"401 Unauthorized", "WWW-Authenticate: Basic\r\n", client, ERR_MISCONFIGURED, -1, 1},
        {"400 Bad Request", "", "<html>", ERR_UPSTREAM, -1, 1},
        {"403 Forbidden", "", grant, ERR_UPSTREAM, -1, 1},
        {"429 Too Many Requests", wait, grant, ERR_UPSTREAM, 9, 1},
        {"429 Too Many Requests", "", "", ERR_UPSTREAM, -1, 1},
        {"429 Too Many Requests", "Retry-After: Fri, 31 Dec 9999 23:59:59 GMT\r\n", "",
         ERR_UPSTREAM, INT32_MAX, 1},
        {"500 Internal Server Error", wait, "<html>", ERR_UPSTREAM, -1, 1},
        {"502 Bad Gateway", "", grant, ERR_UPSTREAM, -1, ATTEMPTS_MAX},
        {"502 Bad Gateway", wait, "", ERR_UPSTREAM, -1, 1},
        {"503 Service Unavailable", "", "", ERR_UPSTREAM, -1, ATTEMPTS_MAX},
        {"504 Gateway Timeout", "", "", ERR_UPSTREAM, -1, 1},
        {"503 Service Unavailable", wait, "upstream connect error", ERR_UPSTREAM, 9, 1},
        {"302 Found", "Location: /elsewhere\r\n", TOKEN, ERR_UPSTREAM, -1, 1},
        {"307 Temporary Redirect", "Location: /elsewhere\r\n", "", ERR_UPSTREAM, -1, 1},
        {"201 Created", "", TOKEN, ERR_UPSTREAM, -1, 1},
        {"200 OK", wait, "{\"access_token\":\"\",\"token_type\":\"Bearer\"}", ERR_UPSTREAM, -1, 1},
        {"200 OK", "", grant, ERR_UPSTREAM, -1, 1},
        {"200 OK", "", "", ERR_UPSTREAM, -1, 1},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        struct trial trial = {.refresh_token = "rt"};
        close_breakers();
        server_forget();
        set_script(table[i].status, table[i].headers, table[i].body);
        call(&trial);
        if (trial.err != table[i].want) {
            fail_msg("%d for %s %s", trial.err, table[i].status, table[i].body);
        }
        assert_int_equal(trial.retry_after_s, table[i].retry_after_s);
        assert_null(trial.tokens.access_token);
        assert_int_equal(server_count_requests(), table[i].calls);
    }
}

/* A phone may forget the verifier; what a renewal sends is ours alone. */
static void an_invalid_request_is_the_callers_for_a_code_only(void **state)
{
    struct trial code = {.code = "c"};
    struct trial refresh = {.refresh_token = "rt"};
    (void)state;
    set_script("400 Bad Request", "", "{\"error\":\"invalid_request\"}");
    call(&code);
    call(&refresh);
    assert_int_equal(code.err, ERR_REJECTED);
    assert_int_equal(refresh.err, ERR_MISCONFIGURED);
}

/* A login can be begun again; a refresh token that was replaced cannot. */
static void an_unusable_expires_in_ends_a_login_and_no_refresh(void **state)
{
    static const char *const table[] = {"0", "-1", "3600.5", "\"soon\"", "true"};
    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        struct trial login = {.code = "c"};
        struct trial refresh = {.refresh_token = "old"};
        char body[128];
        snprintf(body, sizeof body,
                 "{\"access_token\":\"at\",\"token_type\":\"Bearer\",\"refresh_token\":\"new\","
                 "\"expires_in\":%s}",
                 table[i]);
        set_script("200 OK", "", body);
        call(&login);
        assert_int_equal(login.err, ERR_UPSTREAM);
        assert_int_equal(login.retry_after_s, -1);
        assert_null(login.tokens.access_token);
        assert_null(login.tokens.refresh_token);
        call(&refresh);
        assert_int_equal(refresh.err, OK);
        assert_int_equal(refresh.tokens.expires_in, 0);
        assert_string_equal(refresh.tokens.refresh_token, "new");
        tokens_clear(&refresh.tokens);
    }
}

static void too_many_calls_are_told_so(void **state)
{
    struct trial trial = {.refresh_token = "rt"};
    (void)state;
    settings.upstream_max_in_flight = 0;
    call(&trial);
    assert_int_equal(trial.err, ERR_UPSTREAM_BUSY);
    assert_int_equal(trial.retry_after_s, -1);
    assert_int_equal(server_count_requests(), 0);
}

static void the_profile_is_read_with_the_token(void **state)
{
    struct trial trial = {0};
    (void)state;
    set_script("200 OK", "", "{\"id\":\"u\",\"account_id\":\"a\"}");
    call(&trial);
    assert_int_equal(trial.err, OK);
    assert_string_equal(trial.profile.id, "u");
    assert_string_equal(trial.profile.account_id, "a");
    assert_memory_equal(server.last_request, "GET /v1/me HTTP/1.1\r\n", 21);
    assert_non_null(strstr(server.last_request, "\r\nAuthorization: Bearer at\r\n"));
    profile_clear(&trial.profile);
}

static void any_other_profile_answer_is_none(void **state)
{
    static const struct {
        const char *status, *body;
    } table[] = {
        {"200 OK", "[]"},
        {"401 Unauthorized", "{\"error\":{\"status\":401,\"message\":\"x\"}}"},
        {"403 Forbidden", "Check settings on developer.spotify.com/dashboard"},
        {"429 Too Many Requests", "{\"reason\":\"QUOTA_EXCEEDED\"}"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        struct trial trial = {0};
        set_script(table[i].status, "", table[i].body);
        call(&trial);
        assert_int_equal(trial.err, ERR_UPSTREAM);
        assert_null(trial.profile.id);
    }
}

/* ---- further tries ---- */

static void what_was_not_heard_is_tried_again(void **state)
{
    static const char *const statuses[] = {"502 Bad Gateway", "503 Service Unavailable"};
    (void)state;
    for (int i = 0; i < 2 * (ATTEMPTS_MAX - 1); i++) {
        struct trial refresh = {.refresh_token = "rt"};
        struct trial login = {.code = "c"};
        struct trial *trial = i % 2 ? &refresh : &login;
        server_forget();
        set_script(statuses[i % 2], "", "");
        script.good_from = 2 + i / 2;
        call(trial);
        assert_int_equal(trial->err, OK);
        assert_int_equal(server_count_requests(), script.good_from);
        tokens_clear(&trial->tokens);
    }
    assert_false(breaker_is_open(&accounts.token_breaker));
}

static void a_request_that_may_have_been_heard_is_not_tried_again(void **state)
{
    struct trial trial = {.refresh_token = "rt"};
    (void)state;
    set_script(NULL, "", "");
    call(&trial);
    assert_int_equal(trial.err, ERR_UPSTREAM);
    assert_int_equal(server_count_requests(), 1);
}

/* How long a renewal takes when nobody listens, ms. */
static uint64_t renew_without_server(struct trial *trial)
{
    char good_url[sizeof base_url];
    uint64_t begun_ms = clock_mono_ms();
    memcpy(good_url, base_url, sizeof base_url);
    snprintf(base_url, sizeof base_url, "http://127.0.0.1:1");
    call(trial);
    memcpy(base_url, good_url, sizeof base_url);
    return clock_mono_ms() - begun_ms;
}

static void the_pauses_between_tries_are_short_and_differ(void **state)
{
    uint64_t least_ms = UINT64_MAX, most_ms = 0;
    (void)state;
    for (int i = 0; i < 8; i++) {
        struct trial trial = {.refresh_token = "rt"};
        close_breakers();
        uint64_t took_ms = renew_without_server(&trial);
        assert_int_equal(trial.err, ERR_UPSTREAM);
        least_ms = took_ms < least_ms ? took_ms : least_ms;
        most_ms = took_ms > most_ms ? took_ms : most_ms;
    }
    assert_in_range(least_ms, 200 - 5, 400);
    assert_true(most_ms > least_ms);
}

static void no_try_begins_when_half_of_the_time_is_gone(void **state)
{
    struct trial trial = {.refresh_token = "rt"};
    (void)state;
    settings.upstream_timeout_ms = 99; /* the first pause is 50 ms at least */
    set_script("503 Service Unavailable", "", "");
    call(&trial);
    assert_int_equal(trial.err, ERR_UPSTREAM);
    assert_int_equal(server_count_requests(), 1);
}

/* ---- the breakers ---- */

static void open_token_breaker(void)
{
    struct trial first = {.refresh_token = "rt"}, second = {.refresh_token = "rt"};
    renew_without_server(&first);
    renew_without_server(&second);
    assert_true(breaker_is_open(&accounts.token_breaker));
}

static void who_stood_still_does_not_blame_spotify(void **state)
{
    (void)state;
    set_script("200 OK", "", TOKEN);
    close_breakers();
    settings.upstream_timeout_ms = 50;
    for (int i = 0; i < BREAKER_FAILURES_MAX; i++) {
        struct trial trial = {.refresh_token = "rt"};
        fiber_spawn(run_trial, &trial);
        uv_run(&loop, UV_RUN_NOWAIT); /* it begins */
        usleep(100 * 1000);
        while (fiber_count() > 0) {
            uv_run(&loop, UV_RUN_ONCE);
        }
        assert_int_equal(trial.err, ERR_UPSTREAM);
        assert_int_equal(server_count_requests(), 0);
    }
    assert_false(breaker_is_open(&accounts.token_breaker));
}

static void failures_open_the_breaker_and_end_the_tries(void **state)
{
    struct trial trial = {.refresh_token = "rt"};
    (void)state;
    open_token_breaker();
    set_script("503 Service Unavailable", "", "");
    call(&trial);
    assert_int_equal(trial.err, ERR_UPSTREAM);
    assert_int_equal(server_count_requests(), 1);
    assert_true(breaker_is_open(&accounts.token_breaker));
}

static void any_answer_below_500_closes_it(void **state)
{
    static const char *const statuses[] = {"200 OK", "400 Bad Request", "429 Too Many Requests",
                                           "302 Found"};
    (void)state;
    for (size_t i = 0; i < COUNT(statuses); i++) {
        struct trial trial = {.code = "c"};
        close_breakers();
        open_token_breaker();
        set_script(statuses[i], "", "");
        call(&trial);
        assert_false(breaker_is_open(&accounts.token_breaker));
    }
}

static void too_many_calls_in_flight_open_nothing(void **state)
{
    (void)state;
    settings.upstream_max_in_flight = 0;
    for (int i = 0; i < 2 * BREAKER_FAILURES_MAX; i++) {
        struct trial trial = {.refresh_token = "rt"};
        call(&trial);
        assert_int_equal(trial.err, ERR_UPSTREAM_BUSY);
    }
    assert_false(breaker_is_open(&accounts.token_breaker));
}

static void a_dead_api_is_asked_for_profiles_now_and_then(void **state)
{
    uint64_t begun_ms = clock_mono_ms();
    (void)state;
    set_script("500 Internal Server Error", "", "");
    for (int i = 0; i < 1000 && clock_mono_ms() - begun_ms < BREAKER_PROBE_MIN_MS; i++) {
        struct trial trial = {0};
        call(&trial);
        assert_int_equal(trial.err, ERR_UPSTREAM);
    }
    /* The first probe may just have been due. */
    assert_in_range(server_count_requests(), BREAKER_FAILURES_MAX, BREAKER_FAILURES_MAX + 1);
    assert_true(breaker_is_open(&accounts.api_breaker));
    assert_false(breaker_is_open(&accounts.token_breaker));
    set_script("200 OK", "", "{\"id\":\"u\"}");
    usleep(BREAKER_PROBE_MAX_MS * 1000);
    struct trial probe = {0};
    call(&probe);
    assert_int_equal(probe.err, OK);
    assert_false(breaker_is_open(&accounts.api_breaker));
    profile_clear(&probe.profile);
}

#define CALL_TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_authorize_url_says_what_is_asked),
        CALL_TEST(a_code_is_redeemed_with_exactly_the_fields),
        CALL_TEST(without_pkce_there_is_no_verifier),
        CALL_TEST(a_refresh_has_exactly_the_fields),
        CALL_TEST(an_app_token_is_called_for_by_its_grant_alone),
        CALL_TEST(no_app_token_is_never_a_refusal_of_somebody),
        CALL_TEST(token_answers_have_their_meaning),
        CALL_TEST(an_invalid_request_is_the_callers_for_a_code_only),
        CALL_TEST(an_unusable_expires_in_ends_a_login_and_no_refresh),
        CALL_TEST(too_many_calls_are_told_so),
        CALL_TEST(the_profile_is_read_with_the_token),
        CALL_TEST(any_other_profile_answer_is_none),
        CALL_TEST(what_was_not_heard_is_tried_again),
        CALL_TEST(a_request_that_may_have_been_heard_is_not_tried_again),
        CALL_TEST(the_pauses_between_tries_are_short_and_differ),
        CALL_TEST(no_try_begins_when_half_of_the_time_is_gone),
        CALL_TEST(who_stood_still_does_not_blame_spotify),
        CALL_TEST(failures_open_the_breaker_and_end_the_tries),
        CALL_TEST(any_answer_below_500_closes_it),
        CALL_TEST(too_many_calls_in_flight_open_nothing),
        CALL_TEST(a_dead_api_is_asked_for_profiles_now_and_then),
    };
    alarm(120);
    log_set_level(LOG_ERROR);
    uv_loop_init(&loop);
    fiber_init(&loop);
    server_start(answer);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
