/* The connection to Redis against a real one, which is killed, stopped, restarted and reconfigured.
 */
#include "redis_server.h"

#include <netinet/in.h>

#include "base/log.h"
#include "store/redis.h"

#define TIMEOUT_MS 300
/* What a busy machine may add. */
#define SLACK_MS 150

static struct settings settings;
static struct redis *redis;

static enum err command(struct redis_value *out, const char *text, ...)
{
    struct redis_arg args[8];
    size_t count = 0;
    va_list list;
    va_start(list, text);
    for (const char *arg = text; arg && count < 8; arg = va_arg(list, const char *)) {
        args[count++] = REDIS_TEXT(arg);
    }
    va_end(list);
    return redis_command(redis, args, count, out);
}
#define COMMAND(out, ...) command((out), __VA_ARGS__, (const char *)NULL)

static int64_t integer_of(const char *name, const char *argument)
{
    struct redis_value value = {0};
    CHECK(COMMAND(&value, name, argument) == OK);
    CHECK(value.type == REDIS_IS_INTEGER);
    int64_t integer = value.integer;
    redis_value_clear(&value);
    return integer;
}

static int set_up(void **state)
{
    (void)state;
    server_start("");
    memset(&settings, 0, sizeof(settings));
    settings.redis.socket_path = server_socket;
    settings.store_timeout_ms = TIMEOUT_MS;
    redis = redis_new(uv_default_loop(), &settings);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    redis_free(redis);
    uv_run(uv_default_loop(), UV_RUN_DEFAULT);
    if (server_pid) {
        server_kill();
    }
    return 0;
}

/* Log lines go to a file while a test counts them. */
static int saved_stderr = -1;
static char log_path[128];

static void log_capture(void)
{
    snprintf(log_path, sizeof(log_path), "%s/log", server_dir);
    saved_stderr = dup(2);
    int fd = open(log_path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    dup2(fd, 2);
    close(fd);
    log_set_level(log_get_level()); /* looks at stderr again */
}

static int log_count_and_end(const char *text, const char *more)
{
    static char content[65536];
    dup2(saved_stderr, 2);
    close(saved_stderr);
    log_set_level(log_get_level());
    int fd = open(log_path, O_RDONLY);
    ssize_t len = read(fd, content, sizeof(content) - 1);
    close(fd);
    unlink(log_path);
    content[len > 0 ? len : 0] = '\0';
    int count = 0;
    for (char *at = content; (at = strstr(at, text)); at++) {
        count++;
    }
    if (more && !strstr(content, more)) {
        return -1;
    }
    return count;
}

FIBER_TEST(test_types)
{
    struct redis_value value = {0};
    static const char bytes[] = "a\0\r\n$5\xff";
    const struct redis_arg set[] = {REDIS_TEXT("SET"), REDIS_TEXT("k"), {bytes, sizeof(bytes)}};
    CHECK(redis_command(redis, set, 3, &value) == OK);
    CHECK(value.type == REDIS_IS_STRING && strcmp(value.text.data, "OK") == 0);
    redis_value_clear(&value);
    CHECK(COMMAND(&value, "GET", "k") == OK);
    CHECK(value.text.len == sizeof(bytes) && memcmp(value.text.data, bytes, sizeof(bytes)) == 0);
    redis_value_clear(&value);
    CHECK(COMMAND(&value, "GET", "missing") == OK);
    CHECK(value.type == REDIS_IS_NIL);
    redis_value_clear(&value);
    CHECK(integer_of("STRLEN", "k") == (int64_t)sizeof(bytes));
    CHECK(COMMAND(&value, "MGET", "k", "missing") == OK);
    CHECK(value.type == REDIS_IS_ARRAY && value.item_count == 2);
    CHECK(value.items[0].text.len == sizeof(bytes) && value.items[1].type == REDIS_IS_NIL);
    redis_value_clear(&value);
    CHECK(COMMAND(NULL, "GET", "k") == OK);
}

static void body_errors(void *argument)
{
    (void)argument;
    struct redis_value values[3];
    const struct redis_arg args[] = {REDIS_TEXT("SET"),   REDIS_TEXT("text"), REDIS_TEXT("x"),
                                     REDIS_TEXT("LPUSH"), REDIS_TEXT("text"), REDIS_TEXT("secret"),
                                     REDIS_TEXT("GET"),   REDIS_TEXT("text")};
    const size_t counts[] = {3, 3, 2};
    int64_t connections = 0;
    for (int i = 0; i < 5; i++) {
        CHECK(redis_pipeline(redis, args, counts, 3, values) == ERR_STORE);
        CHECK(values[0].text.data == NULL && values[2].text.data == NULL);
        struct redis_value value = {0};
        CHECK(COMMAND(&value, "CLIENT", "ID") == OK);
        CHECK(connections == 0 || connections == value.integer);
        connections = value.integer;
        redis_value_clear(&value);
    }
}

static void test_error_reply_is_logged_once_and_keeps_the_connection(void **state)
{
    (void)state;
    log_capture();
    run_body(body_errors, NULL);
    assert_int_equal(log_count_and_end("WRONGTYPE", NULL), 1);
}

static int increments;

static void body_increment(void *argument)
{
    (void)argument;
    struct redis_value value = {0};
    if (COMMAND(&value, "INCR", "counter") == OK && value.integer > 0) {
        increments++;
    }
    redis_value_clear(&value);
}

static void body_thousands(void *argument)
{
    (void)argument;
    for (int i = 0; i < 5000; i++) {
        fiber_spawn(body_increment, NULL);
    }
    for (int i = 0; i < 200 && fiber_count() > 1; i++) {
        fiber_sleep(20);
    }
    CHECK(increments == 5000);
    CHECK(integer_of("STRLEN", "counter") == 4);
}

static void test_thousands_of_commands_share_one_connection(void **state)
{
    (void)state;
    increments = 0;
    settings.store_timeout_ms = 5000;
    run_body(body_thousands, NULL);
}

static void body_large(void *argument)
{
    (void)argument;
    size_t len = 8 * 1024 * 1024;
    char *bytes = malloc(len);
    memset(bytes, 'x', len);
    struct redis_value value = {0};
    const struct redis_arg set[] = {REDIS_TEXT("SET"), REDIS_TEXT("k"), {bytes, len}};
    CHECK(redis_command(redis, set, 3, NULL) == OK);
    CHECK(COMMAND(&value, "GET", "k") == OK);
    CHECK(value.text.len == len);
    redis_value_clear(&value);
    free(bytes);
}

static void test_more_than_the_socket_takes(void **state)
{
    (void)state;
    settings.store_timeout_ms = 5000;
    run_body(body_large, NULL);
}

static enum err run_script(struct redis_script *script, int64_t *out)
{
    struct redis_value value = {0};
    const struct redis_arg keys[] = {REDIS_TEXT("k")};
    const struct redis_arg args[] = {REDIS_TEXT("20")};
    enum err err = redis_eval(redis, script, keys, 1, args, 1, &value);
    *out = value.integer;
    redis_value_clear(&value);
    return err;
}

static void body_scripts(void *argument)
{
    (void)argument;
    static struct redis_script script = {.source = "redis.call('INCR', KEYS[1]) "
                                                   "return tonumber(ARGV[1]) + 1"};
    int64_t got = 0;
    script.sha[0] = '\0';
    CHECK(run_script(&script, &got) == OK && got == 21);
    CHECK(strlen(script.sha) == 40);
    CHECK(run_script(&script, &got) == OK && got == 21);
    CHECK(COMMAND(NULL, "SCRIPT", "FLUSH") == OK);
    CHECK(run_script(&script, &got) == OK && got == 21);
    CHECK(run_script(&script, &got) == OK && got == 21);
    CHECK(integer_of("INCR", "k") == 5);
}

static void test_scripts_survive_script_flush(void **state)
{
    (void)state;
    log_capture();
    run_body(body_scripts, NULL);
    assert_int_equal(log_count_and_end("NOSCRIPT", NULL), 0);
}

static void body_killed(void *argument)
{
    (void)argument;
    CHECK(COMMAND(NULL, "SET", "k", "1") == OK);
    server_kill();
    for (int i = 0; i < 10; i++) {
        uint64_t begin_ms = clock_mono_ms();
        CHECK(COMMAND(NULL, "GET", "k") == ERR_STORE);
        CHECK(redis_trouble(redis) == TROUBLE_UNREACHABLE);
        CHECK(clock_mono_ms() - begin_ms < TIMEOUT_MS / 2 + SLACK_MS);
        fiber_sleep(2);
    }
    server_start("");
    CHECK(COMMAND(NULL, "GET", "k") == OK);
    CHECK(COMMAND(NULL, "GET", "k") == OK);
    server_kill();
    server_start("");
    fiber_sleep(10); /* the loop sees the end of the connection */
    CHECK(COMMAND(NULL, "GET", "k") == OK);
}

static void test_killed_and_restarted(void **state)
{
    (void)state;
    log_capture();
    run_body(body_killed, NULL);
    assert_int_equal(log_count_and_end("redis lost", "redis connected"), 2);
}

FIBER_TEST(test_deadline_is_kept_while_redis_is_stopped)
{
    CHECK(COMMAND(NULL, "SET", "k", "1") == OK);
    kill(server_pid, SIGSTOP);
    for (int i = 0; i < 2; i++) {
        uint64_t begin_ms = clock_mono_ms();
        CHECK(COMMAND(NULL, "INCR", "k") == ERR_STORE);
        CHECK(redis_trouble(redis) == TROUBLE_SLOW);
        uint64_t took_ms = clock_mono_ms() - begin_ms;
        CHECK(took_ms >= TIMEOUT_MS - 10 && took_ms < TIMEOUT_MS + SLACK_MS);
        fiber_sleep(50);
    }
    kill(server_pid, SIGCONT);
    CHECK(COMMAND(NULL, "GET", "k") == OK);
}

/* The reply arrives in time, the process looks too late. */
static void stall(uv_timer_t *timer)
{
    kill(server_pid, SIGCONT);
    usleep(TIMEOUT_MS * 2 * 1000);
    uv_update_time(timer->loop);
}

FIBER_TEST(test_reply_that_arrived_in_time_counts)
{
    uv_timer_t timer;
    CHECK(COMMAND(NULL, "SET", "k", "1") == OK);
    uv_timer_init(uv_default_loop(), &timer);
    uv_timer_start(&timer, stall, 30, 0);
    kill(server_pid, SIGSTOP);
    CHECK(COMMAND(NULL, "INCR", "k") == OK);
    uv_close((uv_handle_t *)&timer, NULL);
    fiber_sleep(1);
}

FIBER_TEST(test_command_has_its_time_from_when_it_begins)
{
    usleep(TIMEOUT_MS * 2 * 1000);
    CHECK(COMMAND(NULL, "PING") == OK);
}

/* The process stood still between the loop's look at the clock and the command. */
static void body_refused(void *argument)
{
    int fd = *(int *)argument;
    for (int i = 0; i < 5; i++) {
        uint64_t begin_ms = clock_mono_ms();
        CHECK(COMMAND(NULL, "PING") == ERR_STORE);
        CHECK(clock_mono_ms() - begin_ms < SLACK_MS);
        fiber_sleep(25);
    }
    /* Connections are taken by the system, nobody answers. */
    CHECK(listen(fd, 16) == 0);
    fiber_sleep(40);
    uint64_t begin_ms = clock_mono_ms();
    CHECK(COMMAND(NULL, "PING") == ERR_STORE);
    uint64_t took_ms = clock_mono_ms() - begin_ms;
    CHECK(took_ms >= TIMEOUT_MS - 10 && took_ms < TIMEOUT_MS + SLACK_MS);
}

/* A socket of a free port, and the settings that lead there. */
static int take_port(char *host)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    settings.redis.socket_path = NULL;
    settings.redis.host = host;
    settings.redis.port = ntohs(address.sin_port);
    redis_free(redis);
    redis = redis_new(uv_default_loop(), &settings);
    return fd;
}

static void test_tcp_refused_and_silent(void **state)
{
    (void)state;
    char host[] = "127.0.0.1";
    int fd = take_port(host);
    run_body(body_refused, &fd);
    close(fd);
}

static void body_by_name(void *argument)
{
    int fd = *(int *)argument;
    CHECK(COMMAND(NULL, "PING") == ERR_STORE);
    fiber_sleep(100);
    CHECK(listen(fd, 16) == 0);
    for (int i = 0; i < 2; i++) {
        CHECK(COMMAND(NULL, "PING") == ERR_STORE);
        int accepted = accept(fd, NULL, NULL);
        CHECK(accepted >= 0);
        close(accepted);
        fiber_sleep(100);
    }
}

static void test_host_by_name(void **state)
{
    (void)state;
    char host[] = "localhost";
    int fd = take_port(host);
    run_body(body_by_name, &fd);
    close(fd);
}

static void body_unknown_host(void *argument)
{
    (void)argument;
    for (int i = 0; i < 5; i++) {
        uint64_t begin_ms = clock_mono_ms();
        CHECK(COMMAND(NULL, "PING") == ERR_STORE);
        CHECK(clock_mono_ms() - begin_ms < SLACK_MS);
        fiber_sleep(25);
    }
}

static void test_unknown_host_blocks_nobody(void **state)
{
    (void)state;
    char host[] = "redis.invalid";
    int fd = take_port(host);
    log_capture();
    run_body(body_unknown_host, NULL);
    assert_int_equal(log_count_and_end("redis lost", "host name not found"), 1);
    close(fd);
}

static void body_no_file(void *argument)
{
    (void)argument;
    CHECK(COMMAND(NULL, "PING") == ERR_STORE);
    CHECK(COMMAND(NULL, "PING") == ERR_STORE);
}

static void test_no_socket_there(void **state)
{
    (void)state;
    char path[] = "/nonexistent/redis.sock";
    settings.redis.socket_path = path;
    redis_free(redis);
    redis = redis_new(uv_default_loop(), &settings);
    log_capture();
    run_body(body_no_file, NULL);
    assert_int_equal(log_count_and_end("redis lost", NULL), 1);
}

static void body_password(void *argument)
{
    enum err want = *(enum err *)argument;
    CHECK(COMMAND(NULL, "SET", "k", "1") == want);
    fiber_sleep(40);
    CHECK(COMMAND(NULL, "GET", "k") == want);
    if (want == OK) {
        struct redis_value value = {0};
        CHECK(COMMAND(&value, "CLIENT", "INFO") == OK);
        CHECK(strstr(buf_str(&value.text), " db=3 ") != NULL);
        redis_value_clear(&value);
    }
}

static void test_password_user_and_database(void **state)
{
    (void)state;
    static const struct {
        const char *user;
        const char *password;
        int database;
        enum err want;
    } table[] = {
        {NULL, "sesame", 3, OK},       {"default", "sesame", 3, OK},
        {NULL, "wrong", 3, ERR_STORE}, {"nobody", "sesame", 3, ERR_STORE},
        {NULL, NULL, 0, ERR_STORE},    {NULL, "sesame", 99, ERR_STORE},
    };
    server_kill();
    server_start("sesame");
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct redis *first = redis;
        enum err want = table[i].want;
        settings.redis.user = (char *)(uintptr_t)table[i].user;
        settings.redis.password = (char *)(uintptr_t)table[i].password;
        settings.redis.database = table[i].database;
        redis = redis_new(uv_default_loop(), &settings);
        log_capture();
        run_body(body_password, &want);
        assert_int_equal(log_count_and_end("sesame", NULL), 0);
        redis_free(redis);
        redis = first;
    }
}

FIBER_TEST(test_read_only_master_is_left)
{
    CHECK(COMMAND(NULL, "SET", "k", "1") == OK);
    CHECK(COMMAND(NULL, "REPLICAOF", "127.0.0.1", "1") == OK);
    int64_t before = integer_of("CLIENT", "ID");
    CHECK(COMMAND(NULL, "SET", "k", "2") == ERR_STORE);
    CHECK(redis_trouble(redis) == TROUBLE_READONLY);
    CHECK(integer_of("CLIENT", "ID") != before);
    CHECK(COMMAND(NULL, "REPLICAOF", "NO", "ONE") == OK);
    CHECK(COMMAND(NULL, "SET", "k", "2") == OK);
}

/* A server of the test's own on a free port: takes one connection, answers the first command on it
 * with these bytes, and waits until the connection is left. */
struct liar {
    int fd;
    const char *answer;
    enum err want;
    enum redis_trouble want_trouble;
    const char *later; /* sent when nothing was asked */
};

static int accepted_by(int fd)
{
    int accepted = -1;
    for (int i = 0; i < 200 && accepted < 0; i++) {
        accepted = accept(fd, NULL, NULL);
        fiber_sleep(1);
    }
    CHECK(accepted >= 0);
    return accepted;
}

static void body_answer(void *argument)
{
    struct liar *liar = argument;
    char request[64];
    int accepted = accepted_by(liar->fd);
    while (recv(accepted, request, sizeof(request), MSG_DONTWAIT) <= 0) {
        fiber_sleep(1);
    }
    CHECK(send(accepted, liar->answer, strlen(liar->answer), MSG_NOSIGNAL) > 0);
    if (liar->later) {
        fiber_sleep(20);
        CHECK(send(accepted, liar->later, strlen(liar->later), MSG_NOSIGNAL) > 0);
    }
    ssize_t got = -1;
    for (int i = 0; i < 2 * TIMEOUT_MS && got != 0; i++) {
        got = recv(accepted, request, sizeof(request), MSG_DONTWAIT);
        fiber_sleep(1);
    }
    CHECK(got == 0);
    close(accepted);
}

static void body_liar(void *argument)
{
    struct liar *liar = argument;
    fiber_spawn(body_answer, liar);
    CHECK(COMMAND(NULL, "PING") == liar->want);
    CHECK(liar->want == OK || redis_trouble(redis) == liar->want_trouble);
}

static void test_connection_that_answers_wrongly_is_left(void **state)
{
    (void)state;
    static const struct liar table[] = {
        {0, "HTTP/1.1 400 Bad Request\r\n", ERR_STORE, TROUBLE_GARBLED, NULL},
        {0, "$4\r\nPO", ERR_STORE, TROUBLE_SLOW, NULL},
        {0, "+PONG\r\n+PONG\r\n", OK, TROUBLE_NONE, NULL},
        {0, "-ERR one\r\n+PONG\r\n", ERR_STORE, TROUBLE_REFUSED, NULL},
        {0, "+PONG\r\n$4\r\nPO", OK, TROUBLE_NONE, NULL},
        {0, "+PONG\r\n", OK, TROUBLE_NONE, "+PONG\r\n"},
        {0, "+PONG\r\n", OK, TROUBLE_NONE, "-ERR max number of clients reached\r\n"},
        {0, "-LOADING it\r\n", ERR_STORE, TROUBLE_LOADING, NULL},
        {0, "-MASTERDOWN it\r\n", ERR_STORE, TROUBLE_MASTERDOWN, NULL},
        {0, "-CLUSTERDOWN it\r\n", ERR_STORE, TROUBLE_CLUSTERDOWN, NULL},
        {0, "-NOREPLICAS it\r\n", ERR_STORE, TROUBLE_NOREPLICAS, NULL},
    };
    char host[] = "127.0.0.1";
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct liar liar = table[i];
        liar.fd = take_port(host);
        assert_int_equal(listen(liar.fd, 16), 0);
        run_body(body_liar, &liar);
        close(liar.fd);
    }
}

static void body_sent(void *argument)
{
    (void)argument;
    CHECK(integer_of("INCR", "k") == 3);
}

static void test_send_needs_no_fiber(void **state)
{
    (void)state;
    const struct redis_arg args[] = {REDIS_TEXT("INCR"), REDIS_TEXT("k")};
    redis_send(redis, args, 2);
    uv_run(uv_default_loop(), UV_RUN_DEFAULT);
    redis_send(redis, args, 2);
    run_body(body_sent, NULL);
}

static void free_early(uv_timer_t *timer)
{
    (void)timer;
    redis_free(redis);
    redis = redis_new(uv_default_loop(), &settings);
}

FIBER_TEST(test_free_wakes_who_waits)
{
    uv_timer_t timer;
    CHECK(COMMAND(NULL, "PING") == OK);
    uv_timer_init(uv_default_loop(), &timer);
    uv_timer_start(&timer, free_early, 30, 0);
    kill(server_pid, SIGSTOP);
    CHECK(COMMAND(NULL, "PING") == ERR_STORE);
    kill(server_pid, SIGCONT);
    uv_close((uv_handle_t *)&timer, NULL);
    fiber_sleep(1);
}

FIBER_TEST(test_socket_is_close_on_exec)
{
    CHECK(COMMAND(NULL, "PING") == OK);
    for (int fd = 3; fd < 64; fd++) {
        struct stat status;
        if (fstat(fd, &status) == 0 && S_ISSOCK(status.st_mode)) {
            CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        }
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_types),
        TEST(test_error_reply_is_logged_once_and_keeps_the_connection),
        TEST(test_thousands_of_commands_share_one_connection),
        TEST(test_more_than_the_socket_takes),
        TEST(test_scripts_survive_script_flush),
        TEST(test_killed_and_restarted),
        TEST(test_deadline_is_kept_while_redis_is_stopped),
        TEST(test_reply_that_arrived_in_time_counts),
        TEST(test_command_has_its_time_from_when_it_begins),
        TEST(test_tcp_refused_and_silent),
        TEST(test_host_by_name),
        TEST(test_unknown_host_blocks_nobody),
        TEST(test_no_socket_there),
        TEST(test_password_user_and_database),
        TEST(test_read_only_master_is_left),
        TEST(test_connection_that_answers_wrongly_is_left),
        TEST(test_send_needs_no_fiber),
        TEST(test_free_wakes_who_waits),
        TEST(test_socket_is_close_on_exec),
    };
    fiber_init(uv_default_loop());
    server_make_dir();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    server_remove_dir();
    return failed;
}
