/* Log lines: JSON on stderr, one write(2) each so that the lines of several workers never mix. A
 * reader that has stopped reading costs lines, never time: what cannot be written at once is
 * dropped and counted. What is logged, and that nothing secret is, is up to the callers. */
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fiber.h"
#include "base/json.h"

#define TEXT_MAX 512
/* A pipe that is ready takes this much at once, undivided (pipe(7)). */
#define LINE_MAX_LEN ((size_t)PIPE_BUF)
#define CUT ",\"cut\":true"
#define CLOSE "}\n"

static const char *const level_names[LOG_LEVEL__MAX] = {
    [LOG_ERROR] = "error",
    [LOG_WARN] = "warn",
    [LOG_INFO] = "info",
    [LOG_DEBUG] = "debug",
};

static enum log_level max_level = LOG_INFO;

/* Who writes, and where lines go, once that is known. */
static pid_t pid;
static int log_fd = -1;
static bool is_file; /* a regular one, which is always ready */
static int64_t dropped;

/* Find out who we are, which is a system call, and what stderr is. Of a pipe, open a description of
 * our own, which may be non-blocking: the inherited one is shared with processes that do not expect
 * that. Where that is not allowed, poll() before each write is all there is; two workers at the
 * last free place are then not told apart. */
static void look_around(void)
{
    struct stat status = {0};
    if (log_fd > STDERR_FILENO) {
        close(log_fd);
    }
    pid = getpid();
    log_fd = -1;
    is_file = fstat(STDERR_FILENO, &status) == 0 && S_ISREG(status.st_mode);
    if (S_ISFIFO(status.st_mode)) {
        log_fd = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    }
    if (log_fd < 0) {
        log_fd = STDERR_FILENO;
    }
}

void log_set_level(enum log_level level)
{
    max_level = level;
    look_around();
}

enum log_level log_get_level(void)
{
    return max_level;
}

struct log_context *log_context(void)
{
    return fiber_get_local();
}

void log_note_session(const char *name)
{
    struct log_context *context = log_context();
    if (context) {
        memcpy(context->session, name, sizeof(context->session) - 1);
    }
}

int log_level_parse(const char *text)
{
    for (int level = 0; level < LOG_LEVEL__MAX; level++) {
        if (strcmp(text, level_names[level]) == 0) {
            return level;
        }
    }
    return -1;
}

/* Add text, cut before the character that would reach past TEXT_MAX. */
static void add_text(struct json_writer *writer, const char *name, const char *text)
{
    if (strnlen(text, TEXT_MAX + 1) <= TEXT_MAX) {
        json_add_string(writer, name, text);
        return;
    }
    size_t len = TEXT_MAX;
    while (len > TEXT_MAX - 4 && ((unsigned char)text[len] & 0xC0) == 0x80) {
        len--;
    }
    char cut[TEXT_MAX + 1];
    memcpy(cut, text, len);
    cut[len] = '\0';
    json_add_string(writer, name, cut);
}

static void add_context(struct json_writer *writer)
{
    const struct log_context *context = log_context();
    if (!context) {
        return;
    }
    if (context->request_id && context->request_id[0]) {
        add_text(writer, "request_id", context->request_id);
    }
    if (context->session[0]) {
        json_add_string(writer, "session", context->session);
    }
}

/* As many fields as there is room for: foreign text grows up to sixfold when it is escaped. */
static void add_fields(struct json_writer *writer, const struct log_field *field)
{
    struct buf *line = writer->out;
    for (; field->name; field++) {
        size_t before = line->len;
        if (field->text) {
            add_text(writer, field->name, field->text);
        } else {
            json_add_integer(writer, field->name, field->number);
        }
        if (line->len + strlen(CUT CLOSE) > LINE_MAX_LEN) {
            line->len = before;
            buf_adds(line, CUT);
            return;
        }
    }
}

/* False when it could not be written without waiting. Any other failure is the same as success: a
 * log that cannot be written must not stop the service. */
static bool write_at_once(const struct buf *line)
{
    struct pollfd ready = {.fd = log_fd, .events = POLLOUT};
    if (!is_file && poll(&ready, 1, 0) == 0) {
        return false;
    }
    ssize_t written;
    do {
        written = write(log_fd, line->data, line->len);
    } while (written < 0 && errno == EINTR);
    return written >= 0 || errno != EAGAIN;
}

static bool write_line(enum log_level level, const char *event, const struct log_field *fields)
{
    /* One for all lines: nothing here parks, so no second line begins while one is made. */
    static struct buf line;
    buf_reset(&line);

    char time[25];
    clock_format_now(time);

    struct json_writer writer;
    json_open(&writer, &line);
    json_add_string(&writer, "time", time);
    json_add_string(&writer, "level", level_names[level]);
    json_add_string(&writer, "event", event);
    json_add_integer(&writer, "pid", pid);
    add_context(&writer);
    add_fields(&writer, fields);
    buf_adds(&line, CLOSE);
    return write_at_once(&line);
}

void log_write(enum log_level level, const char *event, const struct log_field *fields)
{
    if (level > max_level) {
        return;
    }
    if (log_fd < 0) {
        look_around();
    }
    const struct log_field count[] = {LOG_NUMBER("lines", dropped), {0, 0, 0}};
    if (dropped > 0 && write_line(LOG_WARN, "log lines dropped", count)) {
        dropped = 0;
    }
    if (dropped > 0 || !write_line(level, event, fields)) {
        dropped++;
    }
}
