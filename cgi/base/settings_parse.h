/* Between the settings table (settings.c) and its parsers, one for each kind of value; nobody else
 * includes this. */
#ifndef BASE_SETTINGS_PARSE_H
#define BASE_SETTINGS_PARSE_H

#include "base/settings.h"

/* Where problems go. */
struct report {
    FILE *out;           /* borrowed */
    const char *setting; /* the name that starts the line */
    int count;
};

/* Write one problem: "what is wrong; what to write instead". Nothing of a secret in it. */
void settings_problem(struct report *report, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* One row of the table. */
struct setting {
    const char *name;
    const char *fallback; /* the text that is parsed when it is not set; NULL: none */
    const char *shown;    /* what the table shows as default instead of fallback; NULL: fallback */
    bool required;
    /* Parse value (never empty) into out, or report what is wrong with it. */
    void (*parse)(const struct setting *setting, const char *value, struct settings *out,
                  struct report *report);
    size_t offset;    /* of the member of struct settings, for parsers that serve several rows */
    int64_t min, max; /* numbers only */
    const char *meaning;
};

/* settings_parse.c: plain values. */
void settings_parse_credential(const struct setting *setting, const char *value,
                               struct settings *out, struct report *report);
void settings_parse_scope(const struct setting *setting, const char *value, struct settings *out,
                          struct report *report);
void settings_parse_switch(const struct setting *setting, const char *value, struct settings *out,
                           struct report *report);
void settings_parse_number(const struct setting *setting, const char *value, struct settings *out,
                           struct report *report);
void settings_parse_ca_file(const struct setting *setting, const char *value, struct settings *out,
                            struct report *report);
void settings_parse_key_file(const struct setting *setting, const char *value, struct settings *out,
                             struct report *report);
void settings_parse_prefix(const struct setting *setting, const char *value, struct settings *out,
                           struct report *report);
void settings_parse_keys(const struct setting *setting, const char *value, struct settings *out,
                         struct report *report);
void settings_parse_samesite(const struct setting *setting, const char *value, struct settings *out,
                             struct report *report);
void settings_parse_return_to(const struct setting *setting, const char *value,
                              struct settings *out, struct report *report);
void settings_parse_clients(const struct setting *setting, const char *value, struct settings *out,
                            struct report *report);
void settings_parse_log_level(const struct setting *setting, const char *value,
                              struct settings *out, struct report *report);

/* settings_url.c: values that name a place. */
void settings_parse_redirect_uri(const struct setting *setting, const char *value,
                                 struct settings *out, struct report *report);
void settings_parse_upstream(const struct setting *setting, const char *value, struct settings *out,
                             struct report *report);
void settings_parse_origins(const struct setting *setting, const char *value, struct settings *out,
                            struct report *report);
void settings_parse_app_uris(const struct setting *setting, const char *value, struct settings *out,
                             struct report *report);
void settings_parse_listen(const struct setting *setting, const char *value, struct settings *out,
                           struct report *report);

/* True when a socket can have this path: absolute, and at most 107 bytes. */
bool settings_fits_socket_path(const char *path);

/* settings_redis.c */
void settings_parse_redis(const struct setting *setting, const char *value, struct settings *out,
                          struct report *report);

/* The next entry of a comma-separated list, without the blanks around it, owned by the caller; NULL
 * after the last. An entry may be empty. *cursor starts at the value and is NULL after the last. */
char *settings_next_entry(const char **cursor);

/* True when text is 1 to max characters, all visible ASCII (RFC 6749 appendix A's VSCHAR but for
 * the blank). */
bool settings_is_visible(const char *text, size_t max);

/* No URL in a setting is longer. */
#define SETTINGS_URL_MAX 2048

/* Parse a decimal number without sign. False when it is anything else, or outside min..max. */
bool settings_integer(const char *text, int64_t min, int64_t max, int64_t *out);

#endif
