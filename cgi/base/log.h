/* JSON log lines on stderr, one write each. Nothing secret is ever handed to this module: tokens,
 * codes, states, verifiers and session ids appear nowhere, a session as the first 8 characters of
 * its key name. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdint.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG, LOG_LEVEL__MAX };

/* What the lines of one request share. Lives in the fiber that serves it (fiber_set_local), so that
 * lines from any depth carry the request id, and the adapters add up what they waited. */
struct log_context {
    const char *request_id; /* borrowed for the life of the request */
    char session[9];        /* short hash, "" without a session */
    uint64_t store_us;      /* waited for Redis */
    uint64_t upstream_us;   /* waited for Spotify */
};

/* Also looks anew at what stderr is and which process this is, so a process calls it after fork;
 * without this call, the first line does. */
void log_set_level(enum log_level level);
enum log_level log_get_level(void);

/* The context of the running fiber, or NULL. */
struct log_context *log_context(void);

/* Note in the running fiber's context which session it is about, by its key name (at least 8
 * characters). */
void log_note_session(const char *name);

/* Parse "error", "warn", "info", "debug"; -1 for anything else. */
int log_level_parse(const char *text);

/* One member of a log line beside time, level, event, pid, request_id and session. */
struct log_field {
    const char *name;
    const char *text; /* NULL: number is meant */
    int64_t number;
};
static inline struct log_field log_text(const char *name, const char *text)
{
    return (struct log_field){name, text ? text : "", 0};
}
#define LOG_TEXT(name, value) log_text((name), (value))
#define LOG_NUMBER(name, value) ((struct log_field){(name), 0, (int64_t)(value)})

/* Write one line: event is a short fixed phrase, fields end with one whose name is NULL (the macros
 * add it). Text is escaped, cut at 512 bytes; fields that would make the line longer than PIPE_BUF
 * are left out, and "cut":true says so. Never waits: where stderr is a pipe, socket or terminal
 * that takes no more, the line is dropped, and the next one that gets through follows one that says
 * how many were ("log lines dropped"). */
void log_write(enum log_level level, const char *event, const struct log_field *fields);

/* The first element only makes the list one that never is empty. */
#define log_line(level, event, ...)                                                                \
    log_write((level), (event), (const struct log_field[]){{0, 0, 0}, ##__VA_ARGS__, {0, 0, 0}} + 1)
#define log_error(event, ...) log_line(LOG_ERROR, event, ##__VA_ARGS__)
#define log_warn(event, ...) log_line(LOG_WARN, event, ##__VA_ARGS__)
#define log_info(event, ...) log_line(LOG_INFO, event, ##__VA_ARGS__)
#define log_debug(event, ...) log_line(LOG_DEBUG, event, ##__VA_ARGS__)

#endif
