/* Log lines, read back from stderr: one JSON object each, with what was asked for and no more. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "base/fiber.h"
#include "base/json.h"
#include "base/log.h"

static int saved_stderr;
static int pipe_read;
static uv_loop_t loop;

static int catch_stderr(void **state)
{
    (void)state;
    int ends[2];
    if (pipe2(ends, O_NONBLOCK) != 0) {
        return -1;
    }
    saved_stderr = dup(STDERR_FILENO);
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
    pipe_read = ends[0];
    log_set_level(LOG_INFO);
    return 0;
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

static void a_log_that_takes_nothing_stops_nobody(void **state)
{
    (void)state;
    for (int i = 0; i < 2000; i++) {
        log_info("filling the pipe", LOG_TEXT("text", "which nobody reads meanwhile"));
    }
    struct pollfd full = {.fd = STDERR_FILENO, .events = POLLOUT};
    assert_int_equal(poll(&full, 1, 0), 0);
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
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
