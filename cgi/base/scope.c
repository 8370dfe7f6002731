/* Scope lists. Spotify's names are not hard-coded: new ones come, and old ones are seen that no
 * page lists. */
#include "base/scope.h"

#include <stddef.h>
#include <string.h>

/* RFC 6749 3.3: %x21 / %x23-5B / %x5D-7E */
static bool is_scope_character(char c)
{
    return c >= 0x21 && c <= 0x7e && c != '"' && c != '\\';
}

bool scope_is_wellformed(const char *text)
{
    char before = ' ';
    for (const char *p = text; *p; p++) {
        if (*p == ' ' ? before == ' ' : !is_scope_character(*p)) {
            return false;
        }
        before = *p;
    }
    return *text == '\0' || before != ' ';
}

static bool has_token(const char *list, const char *token, size_t len)
{
    for (const char *p = list; *p;) {
        size_t here = strcspn(p, " ");
        if (here == len && memcmp(p, token, len) == 0) {
            return true;
        }
        p += here;
        p += strspn(p, " ");
    }
    return false;
}

bool scope_includes(const char *granted, const char *wanted)
{
    for (const char *p = wanted; *p;) {
        size_t len = strcspn(p, " ");
        if (len > 0 && !has_token(granted, p, len)) {
            return false;
        }
        p += len;
        p += strspn(p, " ");
    }
    return true;
}

void scope_add(struct buf *out, const char *from, const char *only, const char *but)
{
    for (const char *p = from; *p;) {
        size_t len = strcspn(p, " ");
        bool wanted = len > 0 && (!only || has_token(only, p, len)) &&
                      (!but || !has_token(but, p, len)) && !has_token(buf_str(out), p, len);
        if (wanted && out->len > 0) {
            buf_addc(out, ' ');
        }
        if (wanted) {
            buf_add(out, p, len);
        }
        p += len;
        p += strspn(p, " ");
    }
}
