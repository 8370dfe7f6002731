/* Log lines: JSON on stderr, one write(2) each so that the lines of several workers never mix. What
 * is logged, and that nothing secret is, is up to the callers. */
#include "base/log.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fiber.h"
#include "base/json.h"

#define TEXT_MAX 512

static const char *const level_names[LOG_LEVEL__MAX] = {
    [LOG_ERROR] = "error",
    [LOG_WARN] = "warn",
    [LOG_INFO] = "info",
    [LOG_DEBUG] = "debug",
};

static enum log_level max_level = LOG_INFO;

void log_set_level(enum log_level level)
{
    max_level = level;
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

static void add_fields(struct json_writer *writer, const struct log_field *field)
{
    for (; field->name; field++) {
        if (field->text) {
            add_text(writer, field->name, field->text);
        } else {
            json_add_integer(writer, field->name, field->number);
        }
    }
}

/* A log that cannot be written must not stop the service, so the result is not looked at. */
static void write_line(const struct buf *line)
{
    ssize_t written;
    do {
        written = write(STDERR_FILENO, line->data, line->len);
    } while (written < 0 && errno == EINTR);
}

void log_write(enum log_level level, const char *event, const struct log_field *fields)
{
    if (level > max_level) {
        return;
    }

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
    json_add_integer(&writer, "pid", getpid());
    add_context(&writer);
    add_fields(&writer, fields);
    json_close(&writer);
    buf_addc(&line, '\n');
    write_line(&line);
}
