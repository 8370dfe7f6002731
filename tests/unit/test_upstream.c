/* spotify/upstream.c: calls from fibers to a server that answers, dawdles, breaks off or lies. */
#include "spotify/upstream.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fiber.h"
#include "base/log.h"
#include "scripted_server.h"
#include "spotify/answer.h"

#define COUNT(table) (sizeof(table) / sizeof *(table))
#define TIMEOUT_MS 1000
#define PARALLEL 200

static uv_loop_t loop;
static struct settings settings;

static bool send_filled(int socket, const char *head, size_t len)
{
    char *body = xcalloc(len, 1);
    memset(body, 'x', len);
    server_send_text(socket, head);
    server_send(socket, body, len);
    free(body);
    return true;
}

static bool send_endless_headers(int socket)
{
    server_send_text(socket, "HTTP/1.1 200 OK\r\n");
    for (int i = 0; i < 4000; i++) {
        server_send_text(socket, "X-More: and more and more and more and more\r\n");
    }
    return false;
}

static bool reset(int socket)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    setsockopt(socket, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    return false;
}

/* Wait until the client closes. */
static void wait_for_close(int socket)
{
    struct pollfd watched = {.fd = socket, .events = POLLIN};
    poll(&watched, 1, 10 * TIMEOUT_MS);
}

static bool answer_broken(int socket, const char *path)
{
    if (strcmp(path, "/reset") == 0) {
        return reset(socket);
    }
    if (strcmp(path, "/hang") == 0) {
        wait_for_close(socket);
    } else if (strcmp(path, "/hang-in-body") == 0) {
        server_send_text(socket, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
        wait_for_close(socket);
    } else if (strcmp(path, "/short") == 0) {
        server_send_text(socket, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
    } else if (strcmp(path, "/short-chunk") == 0) {
        server_send_text(socket, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab");
    } else if (strcmp(path, "/bad-chunk") == 0) {
        server_send_text(socket, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab");
    } else if (strcmp(path, "/no-http") == 0) {
        server_send_text(socket, "SSH-2.0-OpenSSH_9.2\r\n");
    } else if (strcmp(path, "/headers") == 0) {
        return send_endless_headers(socket);
    } else if (strcmp(path, "/over-cap") == 0) {
        return send_filled(socket, "HTTP/1.1 200 OK\r\nContent-Length: 65537\r\n\r\n", 65537);
    } else if (strcmp(path, "/over-cap-unsaid") == 0) {
        send_filled(socket, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", 70000);
    }
    return false;
}

static bool answer(int socket, const char *path)
{
    if (strcmp(path, "/good") == 0) {
        server_send_answer(socket, "200 OK", "", "{}");
    } else if (strcmp(path, "/slow") == 0) {
        usleep(150 * 1000);
        server_send_answer(socket, "200 OK", "", "{}");
    } else if (strcmp(path, "/late") == 0) {
        usleep(800 * 1000);
        server_send_answer(socket, "200 OK", "", "{}");
    } else if (strcmp(path, "/redirect") == 0) {
        server_send_answer(socket, "307 Temporary Redirect", "Location: /good\r\n", "");
    } else if (strcmp(path, "/refused") == 0) {
        server_send_answer(socket, "401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n",
                           "no");
    } else if (strcmp(path, "/busy") == 0) {
        server_send_answer(socket, "429 Too Many Requests", "retry-after:  7 \r\n", "");
    } else if (strcmp(path, "/early-hints") == 0) {
        server_send_text(socket, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
        server_send_answer(socket, "200 OK", "", "{}");
    } else if (strcmp(path, "/chunked") == 0) {
        server_send_text(socket, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                                 "1\r\n{\r\n1\r\n}\r\n0\r\n\r\n");
    } else if (strcmp(path, "/at-cap") == 0) {
        send_filled(socket, "HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n", 65536);
    } else {
        return answer_broken(socket, path);
    }
    return true;
}

/* One call in a fiber of its own, and what became of it. */
struct trial {
    struct upstream *upstream;
    const char *path;
    const char *form;
    const char *user;
    const char *bearer;
    int64_t timeout_ms; /* 0: TIMEOUT_MS */
    bool is_alone;
    enum err err;
    struct upstream_answer answer;
    uint64_t waited_us; /* as the log's context has it */
};

static void run_trial(void *argument)
{
    struct trial *trial = argument;
    struct log_context context = {.request_id = "test"};
    struct buf form = {0};
    char url[128];

    fiber_set_local(&context);
    snprintf(url, sizeof url, "http://127.0.0.1:%d%s", server.port, trial->path);
    if (trial->form) {
        buf_adds(&form, trial->form);
    }
    trial->err = upstream_call(trial->upstream,
                               &(struct upstream_call){
                                   .name = "test",
                                   .url = url,
                                   .form = trial->form ? &form : NULL,
                                   .user = trial->user,
                                   .password = trial->user ? "secret" : NULL,
                                   .bearer = trial->bearer,
                                   .timeout_ms = trial->timeout_ms ? trial->timeout_ms : TIMEOUT_MS,
                                   .is_alone = trial->is_alone,
                               },
                               &trial->answer);
    trial->waited_us = context.upstream_us;
    buf_clear(&form);
}

static void run_loop(void)
{
    while (fiber_count() > 0) {
        uv_run(&loop, UV_RUN_ONCE);
    }
}

static void call(struct trial *trial)
{
    fiber_spawn(run_trial, trial);
    run_loop();
}

static int set_up(void **state)
{
    server_forget();
    settings = (struct settings){.upstream_connect_timeout_ms = TIMEOUT_MS,
                                 .upstream_timeout_ms = TIMEOUT_MS,
                                 .upstream_max_in_flight = PARALLEL};
    *state = upstream_new(&loop, &settings);
    return 0;
}

static int tear_down(void **state)
{
    upstream_free(*state);
    uv_run(&loop, UV_RUN_DEFAULT);
    return 0;
}

static void every_whole_answer_is_handed_over(void **state)
{
    static const struct {
        const char *path;
        int status;
        size_t body_len;
        int64_t retry_after_s;
    } table[] = {
        {"/good", 200, 2, -1},        {"/slow", 200, 2, -1},
        {"/chunked", 200, 2, -1},     {"/at-cap", 200, UPSTREAM_BODY_MAX, -1},
        {"/redirect", 307, 0, -1},    {"/refused", 401, 2, -1},
        {"/busy", 429, 0, 7},         {"/good", 200, 2, -1},
        {"/early-hints", 200, 2, -1},
    };
    for (size_t i = 0; i < COUNT(table); i++) {
        struct trial trial = {.upstream = *state, .path = table[i].path, .form = "a=b"};
        trial.user = "id";
        call(&trial);
        assert_int_equal(trial.err, OK);
        assert_int_equal(trial.answer.status, table[i].status);
        assert_int_equal(trial.answer.body.len, table[i].body_len);
        assert_int_equal(trial.answer.retry_after_s, table[i].retry_after_s);
        assert_true(trial.waited_us > 0);
        upstream_answer_clear(&trial.answer);
        assert_null(trial.answer.body.data);
    }
    assert_int_equal(server_count_requests(), COUNT(table));
}

static void a_broken_answer_is_no_answer(void **state)
{
    static const char *const table[] = {
        "/reset",   "/close",    "/short", "/short-chunk",     "/bad-chunk",   "/no-http",
        "/headers", "/over-cap", "/hang",  "/over-cap-unsaid", "/hang-in-body"};
    for (size_t i = 0; i < COUNT(table); i++) {
        struct trial trial = {.upstream = *state, .path = table[i], .form = "a=b"};
        uint64_t started = clock_mono_ms();
        call(&trial);
        if (trial.err != ERR_UPSTREAM || trial.answer.is_unsent) {
            fail_msg("%d for %s", trial.err, table[i]);
        }
        assert_true(clock_mono_ms() - started < 3 * TIMEOUT_MS);
        upstream_answer_clear(&trial.answer);
    }
    assert_int_equal(server_count_requests(), COUNT(table));
}

static void nobody_there_is_an_error_in_which_nothing_was_sent(void **state)
{
    static const char *const forms[] = {NULL, "a=b"};
    int port = server.port;
    for (size_t i = 0; i < COUNT(forms); i++) {
        struct trial trial = {.upstream = *state, .path = "/good", .form = forms[i]};
        server.port = 1;
        call(&trial);
        server.port = port;
        assert_int_equal(trial.err, ERR_UPSTREAM);
        assert_true(trial.answer.is_unsent);
        upstream_answer_clear(&trial.answer);
    }
}

static void each_call_has_its_own_deadline(void **state)
{
    struct trial hanging = {.upstream = *state, .path = "/hang", .form = "a=b", .timeout_ms = 200};
    call(&hanging);
    assert_int_equal(hanging.err, ERR_UPSTREAM);
    assert_false(hanging.answer.is_unsent);
    assert_in_range(hanging.waited_us, 190 * 1000, (TIMEOUT_MS - 100) * 1000);
    upstream_answer_clear(&hanging.answer);
}

/* As a process does that is stopped, or does not get the processor: its answer lies there, or comes
 * soon, because its request has left late. */
static void who_stood_still_reads_the_answer_late(void **state)
{
    static const char *const table[] = {"/slow", "/late", "/chunked", "/at-cap"};
    for (size_t i = 0; i < COUNT(table); i++) {
        struct trial trial = {
            .upstream = *state, .path = table[i], .form = "a=b", .timeout_ms = 300};
        server_forget();
        fiber_spawn(run_trial, &trial);
        for (uint64_t until = clock_mono_ms() + 5000;
             server_count_requests() == 0 && clock_mono_ms() < until;) {
            uv_run(&loop, UV_RUN_NOWAIT);
        }
        usleep(500 * 1000);
        run_loop();
        assert_int_equal(trial.err, OK);
        assert_int_equal(trial.answer.status, 200);
        upstream_answer_clear(&trial.answer);
    }
}

/* The kept ones may be dead, and nobody knows as yet. */
static void a_call_alone_takes_a_new_connection(void **state)
{
    for (int i = 1; i <= 3; i++) {
        struct trial trial = {.upstream = *state, .path = "/good", .is_alone = i == 3};
        call(&trial);
        assert_int_equal(trial.err, OK);
        assert_int_equal(server.connections, i == 3 ? 2 : 1);
        upstream_answer_clear(&trial.answer);
    }
}

static void a_post_carries_the_form_and_basic(void **state)
{
    struct trial trial = {
        .upstream = *state, .path = "/good", .form = "grant_type=x&code=y", .user = "id"};
    const char *request = server.last_request;

    setenv("http_proxy", "http://127.0.0.1:1", 1);
    setenv("ALL_PROXY", "http://127.0.0.1:1", 1);
    call(&trial);
    unsetenv("http_proxy");
    unsetenv("ALL_PROXY");
    assert_int_equal(trial.err, OK);
    assert_memory_equal(request, "POST /good HTTP/1.1\r\n", 21);
    assert_non_null(strstr(request, "\r\nAuthorization: Basic aWQ6c2VjcmV0\r\n"));
    assert_non_null(strstr(request, "\r\nContent-Type: application/x-www-form-urlencoded\r\n"));
    assert_non_null(strstr(request, "\r\nAccept: application/json\r\n"));
    assert_non_null(strstr(request, "\r\nUser-Agent: spotify-auth\r\n"));
    assert_non_null(strstr(request, "\r\n\r\ngrant_type=x&code=y"));
    assert_null(strcasestr(request, "Expect:"));
    assert_null(strcasestr(request, "Cookie:"));
    upstream_answer_clear(&trial.answer);
}

static void a_get_carries_the_bearer_and_nothing_of_the_call_before(void **state)
{
    struct trial post = {.upstream = *state, .path = "/good", .form = "code=y", .user = "id"};
    struct trial get = {.upstream = *state, .path = "/good", .bearer = "at"};
    const char *request = server.last_request;

    call(&post);
    call(&get);
    assert_int_equal(get.err, OK);
    assert_memory_equal(request, "GET /good HTTP/1.1\r\n", 20);
    assert_non_null(strstr(request, "\r\nAuthorization: Bearer at\r\n"));
    assert_null(strstr(request, "Basic"));
    assert_null(strstr(request, "code=y"));
    assert_null(strcasestr(request, "Content-"));
    assert_int_equal(server.connections, 1);
    upstream_answer_clear(&post.answer);
    upstream_answer_clear(&get.answer);
}

static void a_post_is_not_sent_twice_when_a_kept_connection_breaks(void **state)
{
    static const char *const table[] = {"/reset", "/close"};
    for (size_t i = 0; i < COUNT(table); i++) {
        struct trial first = {.upstream = *state, .path = "/good", .form = "a=b"};
        struct trial second = {.upstream = *state, .path = table[i], .form = "a=b"};
        server_forget();
        call(&first);
        call(&second);
        assert_int_equal(second.err, ERR_UPSTREAM);
        assert_int_equal(server_count_requests(), 2);
        upstream_answer_clear(&first.answer);
        upstream_answer_clear(&second.answer);
    }
}

static void many_calls_wait_side_by_side(void **state)
{
    struct trial *trials = xcalloc(PARALLEL + 1, sizeof *trials);
    uint64_t started = clock_mono_ms();
    int busy = 0;

    for (int i = 0; i <= PARALLEL; i++) {
        trials[i] = (struct trial){.upstream = *state, .path = "/slow", .bearer = "at"};
        fiber_spawn(run_trial, &trials[i]);
    }
    run_loop();
    for (int i = 0; i <= PARALLEL; i++) {
        if (trials[i].err == ERR_UPSTREAM_BUSY) {
            busy++;
        } else {
            assert_int_equal(trials[i].err, OK);
        }
        upstream_answer_clear(&trials[i].answer);
    }
    free(trials);
    assert_int_equal(busy, 1);
    assert_int_equal(server_count_requests(), PARALLEL);
    assert_true(clock_mono_ms() - started < PARALLEL * 150 / 4);
}

static void a_hanging_call_holds_up_no_other(void **state)
{
    struct trial hanging = {.upstream = *state, .path = "/hang"};
    struct trial good = {.upstream = *state, .path = "/good"};

    fiber_spawn(run_trial, &hanging);
    fiber_spawn(run_trial, &good);
    run_loop();
    assert_int_equal(hanging.err, ERR_UPSTREAM);
    assert_true(hanging.waited_us >= (TIMEOUT_MS - 10) * 1000);
    assert_int_equal(good.err, OK);
    assert_true(good.waited_us < TIMEOUT_MS * 500);
    upstream_answer_clear(&hanging.answer);
    upstream_answer_clear(&good.answer);
}

static void free_ends_the_calls_in_flight(void **state)
{
    struct trial trial = {.upstream = *state, .path = "/hang"};

    fiber_spawn(run_trial, &trial);
    for (uint64_t until = clock_mono_ms() + 5000;
         server_count_requests() == 0 && clock_mono_ms() < until;) {
        uv_run(&loop, UV_RUN_ONCE);
    }
    upstream_free(*state);
    *state = NULL;
    run_loop();
    assert_int_equal(trial.err, ERR_UPSTREAM);
    upstream_answer_clear(&trial.answer);
}

static void retry_after_is_seconds_or_a_date(void **state)
{
    static const int64_t now = 784111777; /* Sun, 06 Nov 1994 08:49:37 GMT */
    static const struct {
        const char *text;
        int64_t want;
    } table[] = {
        {"120", 120},
        {"0", 0},
        {" 120\t\r\n", 120},
        {"11742", 11742},
        {"2147483647", INT32_MAX},
        {"2147483648", INT32_MAX},
        {"99999999999999999999999999999999", INT32_MAX},
        {"Sun, 06 Nov 1994 08:50:37 GMT", 60},
        {"Sunday, 06-Nov-94 08:50:37 GMT", 60},
        {"Sun Nov  6 08:50:37 1994", 60},
        {"Sun, 06 Nov 1994 08:49:37 GMT", 0},
        {"Sun, 06 Nov 1994 08:00:00 GMT", 0},
        {"Fri, 31 Dec 9999 23:59:59 GMT", INT32_MAX},
        {NULL, -1},
        {"", -1},
        {" ", -1},
        {"-1", -1},
        {"+1", -1},
        {"1.5", -1},
        {"12s", -1},
        {"1 2", -1},
        {"soon", -1},
        {"Sun, 06 Nov 1994 08:50:37 CET", -1},
        {"Sun, 06 Nov 1994 08:50:37 GMT and on", -1},
        {"Sun, 99 Nov 1994 08:50:37 GMT", -1},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        if (retry_after_parse(table[i].text, now) != table[i].want) {
            fail_msg("%s gives %ld", table[i].text, (long)retry_after_parse(table[i].text, now));
        }
    }
}

#define CALL_TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CALL_TEST(every_whole_answer_is_handed_over),
        CALL_TEST(a_broken_answer_is_no_answer),
        CALL_TEST(nobody_there_is_an_error_in_which_nothing_was_sent),
        CALL_TEST(each_call_has_its_own_deadline),
        CALL_TEST(who_stood_still_reads_the_answer_late),
        CALL_TEST(a_call_alone_takes_a_new_connection),
        CALL_TEST(a_post_carries_the_form_and_basic),
        CALL_TEST(a_get_carries_the_bearer_and_nothing_of_the_call_before),
        CALL_TEST(a_post_is_not_sent_twice_when_a_kept_connection_breaks),
        CALL_TEST(many_calls_wait_side_by_side),
        CALL_TEST(a_hanging_call_holds_up_no_other),
        CALL_TEST(free_ends_the_calls_in_flight),
        cmocka_unit_test(retry_after_is_seconds_or_a_date),
    };
    alarm(120);
    log_set_level(LOG_ERROR);
    uv_loop_init(&loop);
    fiber_init(&loop);
    server_start(answer);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
