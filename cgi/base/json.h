/* JSON in and out. Foreign JSON is checked for size and depth before Jansson sees it, since its
 * parser recurses and a fiber's stack is small. */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

#define JSON_DEPTH_MAX 16

/* Parse one JSON object (RFC 8259) of at most max bytes: no duplicate keys, no NUL in strings,
 * valid UTF-8, depth up to JSON_DEPTH_MAX, nothing after it. NULL when it is anything else; else
 * the caller owns the reference. */
json_t *json_parse_object(const char *text, size_t len, size_t max);

/* The string member name of object: NULL when missing or not a string. Borrowed from object. */
const char *json_get_string(const json_t *object, const char *name);

/* The whole-number member name of object, fallback when missing or not a number. */
int64_t json_get_integer(const json_t *object, const char *name, int64_t fallback);

/* Writing, straight into a buffer. Members come in the order of the calls. */
struct json_writer {
    struct buf *out; /* borrowed */
    bool comma;      /* the next member needs one before it */
};

void json_open(struct json_writer *writer, struct buf *out);         /* writes { */
void json_close(struct json_writer *writer);                         /* writes } */
void json_open_member(struct json_writer *writer, const char *name); /* "name":{ */
/* A list of objects: "name":[ then for each { and json_close, then ] */
void json_open_list(struct json_writer *writer, const char *name);
void json_open_item(struct json_writer *writer);
void json_close_list(struct json_writer *writer);
void json_add_string(struct json_writer *writer, const char *name,
                     const char *value); /* NULL: null */
void json_add_integer(struct json_writer *writer, const char *name, int64_t value);
void json_add_bool(struct json_writer *writer, const char *name, bool value);

/* Write text as a JSON string with its quotes. Bytes that are not valid UTF-8 become U+FFFD;
 * control characters, quote, backslash, < > & and U+2028/2029 are escaped. */
void json_write_string(struct buf *out, const char *text);

#endif
