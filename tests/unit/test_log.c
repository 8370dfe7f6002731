/* Log lines, read back from stderr: one JSON object each, with what was asked for and no more. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fiber.h"
#include "base/json.h"
#include "base/log.h"

static int saved_stderr;
static int pipe_read;
static uv_loop_t loop;

/* As stderr is handed to a service: writing to it waits. */
static int take_as_stderr(int ends[2])
{
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    saved_stderr = dup(STDERR_FILENO);
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
    pipe_read = ends[0];
    log_set_level(LOG_INFO);
    return 0;
}

static int catch_stderr(void **state)
{
    (void)state;
    int ends[2];
    return pipe(ends) == 0 ? take_as_stderr(ends) : -1;
}

static int catch_stderr_socket(void **state)
{
    (void)state;
    int ends[2];
    return socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0 ? take_as_stderr(ends) : -1;
}

static int release_stderr(void **state)
{
    (void)state;
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    close(pipe_read);
    return 0;
}

/* The one line that was written, parsed; NULL when there was none. */
static json_t *read_line(void)
{
    char text[8192];
    ssize_t len = read(pipe_read, text, sizeof text);
    if (len <= 0) {
        return NULL;
    }
    assert_int_equal(text[len - 1], '\n');
    assert_ptr_equal(memchr(text, '\n', (size_t)len), text + len - 1);
    json_t *line = json_parse_object(text, (size_t)len - 1, sizeof text);
    assert_non_null(line);
    return line;
}

static void a_line_has_its_members(void **state)
{
    (void)state;
    log_warn("store: slow", LOG_TEXT("command", "GET"), LOG_NUMBER("ms", 512),
             LOG_TEXT("why", NULL));
    json_t *line = read_line();
    assert_string_equal(json_get_string(line, "level"), "warn");
    assert_string_equal(json_get_string(line, "event"), "store: slow");
    assert_string_equal(json_get_string(line, "command"), "GET");
    assert_string_equal(json_get_string(line, "why"), "");
    assert_int_equal(json_get_integer(line, "ms", 0), 512);
    assert_int_equal(json_get_integer(line, "pid", 0), getpid());
    assert_int_equal(json_object_size(line), 7);

    const char *time = json_get_string(line, "time");
    const char *shape = "0000-00-00T00:00:00.000Z";
    assert_int_equal(strlen(time), strlen(shape));
    for (size_t i = 0; shape[i]; i++) {
        if (shape[i] == '0') {
            assert_in_range(time[i], '0', '9');
        } else {
            assert_int_equal(time[i], shape[i]);
        }
    }
    json_decref(line);
}

static void levels_above_the_limit_are_silent(void **state)
{
    (void)state;
    for (int limit = 0; limit < LOG_LEVEL__MAX; limit++) {
        log_set_level((enum log_level)limit);
        assert_int_equal(log_get_level(), limit);
        for (int level = 0; level < LOG_LEVEL__MAX; level++) {
            log_line((enum log_level)level, "event");
            json_t *line = read_line();
            assert_int_equal(line != NULL, level <= limit);
            json_decref(line);
        }
    }
}

static void level_names_parse(void **state)
{
    (void)state;
    assert_int_equal(log_level_parse("error"), LOG_ERROR);
    assert_int_equal(log_level_parse("warn"), LOG_WARN);
    assert_int_equal(log_level_parse("info"), LOG_INFO);
    assert_int_equal(log_level_parse("debug"), LOG_DEBUG);
    assert_int_equal(log_level_parse("INFO"), -1);
    assert_int_equal(log_level_parse(""), -1);
}

static void foreign_text_cannot_forge_a_line(void **state)
{
    (void)state;
    log_info("request", LOG_TEXT("path", "/x\"}\n{\"level\":\"error\"\x1b[2J\xff<b>"));
    json_t *line = read_line();
    assert_string_equal(json_get_string(line, "level"), "info");
    assert_string_equal(json_get_string(line, "path"),
                        "/x\"}\n{\"level\":\"error\"\x1b[2J\xEF\xBF\xBD<b>");
    json_decref(line);
}

static void long_text_is_cut_between_characters(void **state)
{
    (void)state;
    for (size_t before = 505; before <= 515; before++) {
        char text[600] = {0};
        memset(text, 'x', before);
        strcat(text, "\xF0\x9F\x8E\xB5 and more");
        log_info("request", LOG_TEXT("agent", text));
        json_t *line = read_line();
        const char *agent = json_get_string(line, "agent");
        size_t len = strlen(agent);
        assert_true(len <= 512 && len > 508);
        assert_memory_equal(agent, text, len);
        json_decref(line);
    }
}

static void run_in_fiber(void (*function)(void *), bool *done)
{
    fiber_spawn(function, done);
    for (int i = 0; i < 100 && !*done; i++) {
        uv_run(&loop, UV_RUN_NOWAIT);
    }
    assert_true(*done);
}

static void do_nothing(void *argument)
{
    *(bool *)argument = true;
}

static void log_in_a_fiber(void *argument)
{
    struct log_context context = {.request_id = "abc123", .session = "Zm9vYmFy"};
    fiber_set_local(&context);
    log_info("inside");
    *(bool *)argument = log_context() == &context;
}

static void lines_of_a_request_carry_its_context(void **state)
{
    (void)state;
    bool done = false;
    run_in_fiber(do_nothing, &done);
    /* AddressSanitizer writes a warning when a program first switches stacks. */
    char warning[1000];
    while (read(pipe_read, warning, sizeof warning) > 0) {
        continue;
    }

    done = false;
    run_in_fiber(log_in_a_fiber, &done);
    assert_null(log_context());

    json_t *line = read_line();
    assert_string_equal(json_get_string(line, "request_id"), "abc123");
    assert_string_equal(json_get_string(line, "session"), "Zm9vYmFy");
    json_decref(line);
}

/* Read all there is. Returns the number of lines. */
static int drain(void)
{
    char text[4096];
    ssize_t len;
    int lines = 0;
    while ((len = read(pipe_read, text, sizeof text)) > 0) {
        for (ssize_t i = 0; i < len; i++) {
            lines += text[i] == '\n';
        }
    }
    return lines;
}

static void a_log_that_takes_nothing_stops_nobody(void **state)
{
    (void)state;
    const int count = 10000;
    for (int i = 0; i < count; i++) {
        log_info("filling the pipe", LOG_TEXT("text", "which nobody reads meanwhile"));
    }
    struct pollfd full = {.fd = STDERR_FILENO, .events = POLLOUT};
    assert_int_equal(poll(&full, 1, 0), 0);
    assert_false(fcntl(STDERR_FILENO, F_GETFL) & O_NONBLOCK);

    int written = drain();
    log_error("read again");
    char text[8192] = {0};
    assert_true(read(pipe_read, text, sizeof text - 1) > 0);
    char *second = strchr(text, '\n') + 1;
    json_t *line = json_parse_object(text, (size_t)(second - text) - 1, sizeof text);
    assert_string_equal(json_get_string(line, "event"), "log lines dropped");
    assert_string_equal(json_get_string(line, "level"), "warn");
    assert_int_equal(json_get_integer(line, "lines", 0), count - written);
    json_decref(line);
    assert_non_null(strstr(second, "\"read again\""));

    log_info("once");
    assert_int_equal(drain(), 1);
}

/* No longer than what a pipe takes undivided, and without waiting when it is ready. */
static void a_line_has_an_end(void **state)
{
    (void)state;
    char escaped[513] = {0}, plain[513] = {0};
    int cut = 0;
    memset(escaped, 0x01, sizeof escaped - 1); /* six bytes each */
    memset(plain, 'x', sizeof plain - 1);
    for (const char *rest = plain; *rest; rest++) {
        log_warn("request", LOG_TEXT("a", escaped), LOG_TEXT("b", plain + 112), LOG_TEXT("c", rest),
                 LOG_NUMBER("d", 1));
        char text[8192];
        ssize_t size = read(pipe_read, text, sizeof text);
        assert_in_range(size, 1, PIPE_BUF);
        json_t *line = json_parse_object(text, (size_t)size - 1, sizeof text);
        assert_non_null(line);
        assert_string_equal(json_get_string(line, "a"), escaped);
        bool whole = json_get_integer(line, "d", 0) == 1;
        assert_int_equal(json_is_true(json_object_get(line, "cut")), !whole);
        cut += !whole;
        json_decref(line);
    }
    assert_in_range(cut, 1, 511);
}

static int start(void **state)
{
    (void)state;
    if (uv_loop_init(&loop) != 0) {
        return -1;
    }
    fiber_init(&loop);
    return 0;
}

#define LOG_TEST(test) cmocka_unit_test_setup_teardown(test, catch_stderr, release_stderr)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOG_TEST(a_line_has_its_members),
        LOG_TEST(levels_above_the_limit_are_silent),
        LOG_TEST(level_names_parse),
        LOG_TEST(foreign_text_cannot_forge_a_line),
        LOG_TEST(long_text_is_cut_between_characters),
        LOG_TEST(lines_of_a_request_carry_its_context),
        LOG_TEST(a_log_that_takes_nothing_stops_nobody),
        cmocka_unit_test_setup_teardown(a_log_that_takes_nothing_stops_nobody, catch_stderr_socket,
                                        release_stderr),
        LOG_TEST(a_line_has_an_end),
    };
    alarm(60);
    return cmocka_run_group_tests(tests, start, NULL);
}
