/* The guard against open redirects (RFC 9700 4.11.1; contract C.3 6, 7). It accepts what is plain
 * and refuses the rest, rather than know every trick: nothing that a browser (WHATWG URL 4.4), a
 * proxy or a server that decodes once more could read as another place gets through. */
#include "http/return_to.h"

#include <ctype.h>
#include <string.h>

#include "base/model.h"
#include "base/utf8.h"

static bool is_utf8(const char *text)
{
    while (*text) {
        size_t step = utf8_len(text);
        if (step == 0) {
            return false;
        }
        text += step;
    }
    return true;
}

/* A control character (also U+0080 to U+009F), or the backslash, which browsers take for '/'. */
static bool has_control_or_backslash(const char *text, size_t len)
{
    const unsigned char *p = (const unsigned char *)text;
    for (size_t i = 0; i < len; i++) {
        if (p[i] < 0x20 || p[i] == 0x7f || p[i] == '\\' ||
            (i > 0 && p[i - 1] == 0xc2 && p[i] >= 0x80 && p[i] <= 0x9f)) {
            return true;
        }
    }
    return false;
}

static int hex_value(char c)
{
    return isdigit((unsigned char)c) ? c - '0' : tolower((unsigned char)c) - 'a' + 10;
}

/* Percent-decode until nothing changes, in one pass: an escape that is complete is decoded at once,
 * and its byte may complete another. out takes len bytes; returns how many there are. */
static size_t decode_fully(const char *text, size_t len, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        out[n++] = text[i];
        while (n >= 3 && out[n - 3] == '%' && isxdigit((unsigned char)out[n - 2]) &&
               isxdigit((unsigned char)out[n - 1])) {
            out[n - 3] = (char)(hex_value(out[n - 2]) * 16 + hex_value(out[n - 1]));
            n -= 2;
        }
    }
    return n;
}

/* No "//", which some server may join or a browser take for an authority, and no "." or "..". */
static bool has_plain_segments(const char *path, size_t len)
{
    for (size_t start = 0; start < len;) {
        const char *slash = memchr(path + start, '/', len - start);
        size_t end = slash ? (size_t)(slash - path) : len;
        size_t segment_len = end - start;
        bool is_empty = segment_len == 0 && start > 0;
        bool is_dots =
            (segment_len == 1 || segment_len == 2) && memcmp(path + start, "..", segment_len) == 0;
        if (is_empty || is_dots) {
            return false;
        }
        start = end + 1;
    }
    return true;
}

/* The path within return_to, NULL when it is on a foreign origin. Text that is neither an http(s)
 * URL nor begins with a single '/' is foreign, too: browsers know many more ways to leave. */
static const char *find_path(const char *return_to, const struct origin *own,
                             const struct origin_list *allowed)
{
    if (return_to[0] == '/') {
        return return_to[1] != '/' && return_to[1] != '\\' ? return_to : NULL;
    }
    struct origin origin;
    if (origin_of_url(return_to, &origin) != OK) {
        return NULL;
    }
    bool is_ours = origin_equal(&origin, own) || origin_in(&origin, allowed);
    origin_clear(&origin);
    if (!is_ours) {
        return NULL;
    }
    const char *authority = strstr(return_to, "://") + 3;
    return authority + strcspn(authority, "/?#");
}

bool return_to_is_ours(const char *return_to, const struct origin *own,
                       const struct origin_list *allowed)
{
    size_t len = strlen(return_to);
    if (len == 0 || len > RETURN_TO_MAX || !is_utf8(return_to) || strchr(return_to, ' ') ||
        has_control_or_backslash(return_to, len)) {
        return false;
    }
    const char *path = find_path(return_to, own, allowed);
    if (!path) {
        return false;
    }
    char decoded[RETURN_TO_MAX];
    size_t path_len = strcspn(path, "?#");
    size_t decoded_len = decode_fully(path, path_len, decoded);
    if (has_control_or_backslash(decoded, decoded_len) ||
        !has_plain_segments(decoded, decoded_len)) {
        return false;
    }
    decoded_len = decode_fully(path + path_len, strlen(path + path_len), decoded);
    return !has_control_or_backslash(decoded, decoded_len);
}

static void add_ascii(struct buf *out, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c < 0x80) {
            buf_addc(out, text[i]);
        } else {
            buf_addf(out, "%%%02X", c);
        }
    }
}

void return_to_format(struct buf *out, const char *return_to, const char *error)
{
    size_t before_fragment = strcspn(return_to, "#");
    add_ascii(out, return_to, before_fragment);
    if (error) {
        const char *query = memchr(return_to, '?', before_fragment);
        char last = before_fragment > 0 ? return_to[before_fragment - 1] : '\0';
        if (!query) {
            buf_addc(out, '?');
        } else if (last != '?' && last != '&') {
            buf_addc(out, '&');
        }
        buf_addf(out, "error=%s", error);
    }
    add_ascii(out, return_to + before_fragment, strlen(return_to + before_fragment));
}
