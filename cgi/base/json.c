/* JSON in, by Jansson behind a check of size and depth, and JSON out, written straight into a
 * buffer. Which members there have to be is up to the callers. */
#include "base/json.h"

#include <malloc.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

/* Up to here a double tells every whole number from its neighbours. */
#define EXACT_MAX 9007199254740992.0

/* How one byte is written inside a JSON string. */
enum byte_kind { PLAIN, ESCAPED, MULTIBYTE };

static const unsigned char byte_kinds[256] = {
    [0x00 ... 0x1F] = ESCAPED, ['"'] = ESCAPED,  ['&'] = ESCAPED,  ['<'] = ESCAPED,
    ['>'] = ESCAPED,           ['\\'] = ESCAPED, [0x7F] = ESCAPED, [0x80 ... 0xFF] = MULTIBYTE,
};

/* Jansson's memory may hold tokens, so it is wiped before it is given back. */
static void free_wiped(void *memory)
{
    if (memory) {
        explicit_bzero(memory, malloc_usable_size(memory));
    }
    free(memory);
}

/* True unless objects and arrays nest deeper than JSON_DEPTH_MAX. Sees strings as Jansson does, up
 * to the place where Jansson would stop at an error. */
static bool depth_is_fine(const char *text, size_t len)
{
    int depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (in_string && c == '\\') {
            i++;
        } else if (c == '"') {
            in_string = !in_string;
        } else if (!in_string && (c == '{' || c == '[') && ++depth > JSON_DEPTH_MAX) {
            return false;
        } else if (!in_string && (c == '}' || c == ']')) {
            depth--;
        }
    }
    return true;
}

json_t *json_parse_object(const char *text, size_t len, size_t max)
{
    if (len == 0 || len > max || !depth_is_fine(text, len)) {
        return NULL;
    }
    json_set_alloc_funcs(malloc, free_wiped);
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(root)) {
        json_decref(root);
        return NULL;
    }
    return root;
}

const char *json_get_string(const json_t *object, const char *name)
{
    return json_string_value(json_object_get(object, name));
}

int64_t json_get_integer(const json_t *object, const char *name, int64_t fallback)
{
    const json_t *member = json_object_get(object, name);
    if (json_is_integer(member)) {
        return json_integer_value(member);
    }
    /* 3600.0 is a whole number, too; beyond 2^53 a double no longer tells which. */
    double real = json_real_value(member);
    bool exact = json_is_real(member) && fabs(real) <= EXACT_MAX;
    return exact && (double)(int64_t)real == real ? (int64_t)real : fallback;
}

static void add_name(struct json_writer *writer, const char *name)
{
    if (writer->comma) {
        buf_addc(writer->out, ',');
    }
    writer->comma = true;
    json_write_string(writer->out, name);
    buf_addc(writer->out, ':');
}

void json_open(struct json_writer *writer, struct buf *out)
{
    *writer = (struct json_writer){.out = out};
    buf_addc(out, '{');
}

void json_close(struct json_writer *writer)
{
    buf_addc(writer->out, '}');
    writer->comma = true;
}

void json_open_member(struct json_writer *writer, const char *name)
{
    add_name(writer, name);
    buf_addc(writer->out, '{');
    writer->comma = false;
}

void json_open_list(struct json_writer *writer, const char *name)
{
    add_name(writer, name);
    buf_addc(writer->out, '[');
    writer->comma = false;
}

void json_open_item(struct json_writer *writer)
{
    buf_adds(writer->out, writer->comma ? ",{" : "{");
    writer->comma = false;
}

void json_close_list(struct json_writer *writer)
{
    buf_addc(writer->out, ']');
    writer->comma = true;
}

void json_add_string(struct json_writer *writer, const char *name, const char *value)
{
    add_name(writer, name);
    if (value) {
        json_write_string(writer->out, value);
    } else {
        buf_adds(writer->out, "null");
    }
}

void json_add_integer(struct json_writer *writer, const char *name, int64_t value)
{
    add_name(writer, name);
    char digits[20]; /* 2^63 has 19, and the sign */
    size_t start = sizeof digits;
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    do {
        digits[--start] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest > 0);
    if (value < 0) {
        digits[--start] = '-';
    }
    buf_add(writer->out, digits + start, sizeof digits - start);
}

void json_add_bool(struct json_writer *writer, const char *name, bool value)
{
    add_name(writer, name);
    buf_adds(writer->out, value ? "true" : "false");
}

/* Write the multibyte character at text, return how many bytes it was. C1 control characters
 * (U+0080 to U+009F), which steer terminals, and U+2028/2029, which end a line in JavaScript, are
 * escaped. */
static size_t write_multibyte(struct buf *out, const unsigned char *text)
{
    size_t len = utf8_len((const char *)text);
    if (len == 0) {
        buf_adds(out, "\xEF\xBF\xBD"); /* U+FFFD */
        return 1;
    }
    if (len == 2 && text[0] == 0xC2 && text[1] < 0xA0) {
        buf_addf(out, "\\u%04x", text[1]);
    } else if (len == 3 && memcmp(text, "\xE2\x80\xA8", 3) == 0) {
        buf_adds(out, "\\u2028");
    } else if (len == 3 && memcmp(text, "\xE2\x80\xA9", 3) == 0) {
        buf_adds(out, "\\u2029");
    } else {
        buf_add(out, text, len);
    }
    return len;
}

static void write_escaped(struct buf *out, unsigned char byte)
{
    if (byte == '"' || byte == '\\') {
        buf_addf(out, "\\%c", byte);
    } else if (byte == '\n') {
        buf_adds(out, "\\n");
    } else {
        buf_addf(out, "\\u%04x", byte);
    }
}

void json_write_string(struct buf *out, const char *text)
{
    const unsigned char *rest = (const unsigned char *)text;
    buf_addc(out, '"');
    for (;;) {
        size_t plain = 0;
        while (byte_kinds[rest[plain]] == PLAIN) {
            plain++;
        }
        buf_add(out, rest, plain);
        rest += plain;
        if (*rest == '\0') {
            break;
        }
        if (byte_kinds[*rest] == MULTIBYTE) {
            rest += write_multibyte(out, rest);
        } else {
            write_escaped(out, *rest++);
        }
    }
    buf_addc(out, '"');
}
