/* Query strings and forms: one strict parser for both, and the way back. What a parameter may hold
 * is the business of the route table. */
#include "http/query.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static int hex_value(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *found = c ? strchr(digits, tolower((unsigned char)c)) : NULL;
    return found ? (int)(found - digits) : -1;
}

bool query_decode(const char *text, size_t len, char **out)
{
    char *end = *out;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '+') {
            c = ' ';
        } else if (c == '%') {
            int high = i + 2 < len ? hex_value(text[i + 1]) : -1;
            int low = i + 2 < len ? hex_value(text[i + 2]) : -1;
            if (high < 0 || low < 0) {
                return false;
            }
            c = (unsigned char)(high * 16 + low);
            i += 2;
        }
        if (c < 0x20 || c == 0x7f) {
            return false;
        }
        *end++ = (char)c;
    }
    *end++ = '\0';
    *out = end;
    return true;
}

/* RFC 6749 3.1: a parameter must not come twice. */
static bool is_known(const struct query *query, const char *name)
{
    for (size_t i = 0; i < query->count; i++) {
        if (strcmp(query->pairs[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

static void blame(struct query *query, const char *name)
{
    size_t len = strlen(name);
    if (len < sizeof(query->culprit)) {
        memcpy(query->culprit, name, len + 1);
    }
}

static bool add_pair(struct query *query, const char *text, size_t len, char **end)
{
    if (query->count == QUERY_PAIRS_MAX) {
        return false;
    }
    const char *equals = memchr(text, '=', len);
    size_t name_len = equals ? (size_t)(equals - text) : len;
    struct query_pair pair = {.name = *end};
    if (!query_decode(text, name_len, end)) {
        return false;
    }
    pair.value =
        *end - 1; /* the name's NUL: an empty value, and no pair takes more than its text */
    if (equals) {
        pair.value = *end;
        if (!query_decode(equals + 1, len - name_len - 1, end)) {
            blame(query, pair.name);
            return false;
        }
    }
    if (is_known(query, pair.name)) {
        blame(query, pair.name);
        return false;
    }
    query->pairs[query->count++] = pair;
    return true;
}

enum err query_parse(const char *text, size_t len, struct query *out)
{
    out->count = 0;
    out->text = NULL;
    out->culprit[0] = '\0';
    if (len == 0) {
        return OK;
    }
    out->text = xcalloc(1, len + 1);
    char *end = out->text;
    for (size_t start = 0; start < len;) {
        const char *ampersand = memchr(text + start, '&', len - start);
        size_t stop = ampersand ? (size_t)(ampersand - text) : len;
        if (stop > start && !add_pair(out, text + start, stop - start, &end)) {
            explicit_bzero(out->text, len);
            free(out->text);
            out->text = NULL;
            out->count = 0;
            return ERR_INVALID_REQUEST;
        }
        start = stop + 1;
    }
    return OK;
}

void query_clear(struct query *query)
{
    /* A query may have held a code, a state or a token. */
    for (size_t i = 0; i < query->count; i++) {
        explicit_bzero(query->pairs[i].name, strlen(query->pairs[i].name));
        explicit_bzero(query->pairs[i].value, strlen(query->pairs[i].value));
    }
    free(query->text);
    query->text = NULL;
    query->count = 0;
}

const char *query_get(const struct query *query, const char *name)
{
    for (size_t i = 0; i < query->count; i++) {
        if (strcmp(query->pairs[i].name, name) == 0) {
            return *query->pairs[i].value ? query->pairs[i].value : NULL;
        }
    }
    return NULL;
}

static void add_encoded(struct buf *out, const char *text)
{
    static const char unreserved[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
    for (const char *p = text; *p; p++) {
        if (strchr(unreserved, *p)) {
            buf_addc(out, *p);
        } else {
            buf_addf(out, "%%%02X", (unsigned char)*p);
        }
    }
}

void query_add(struct buf *out, const char *name, const char *value)
{
    if (out->len > 0 && out->data[out->len - 1] != '?') {
        buf_addc(out, '&');
    }
    add_encoded(out, name);
    buf_addc(out, '=');
    add_encoded(out, value);
}
