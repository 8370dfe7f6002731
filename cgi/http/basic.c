/* Reads the Authorization header of a client of the token endpoint. Whether there is such a client,
 * and whether that is its secret, is for the handler. */
#include "http/basic.h"

#include <string.h>
#include <strings.h>

#include "base/seal.h"
#include "http/query.h"

#define SCHEME "Basic"

/* The credentials behind the scheme (RFC 9110 11.4), NULL for another scheme. */
static const char *find_credentials(const char *header)
{
    size_t len = strlen(SCHEME);
    if (!header || strnlen(header, BASIC_MAX + 1) > BASIC_MAX ||
        strncasecmp(header, SCHEME, len) != 0 || header[len] != ' ') {
        return NULL;
    }
    return header + len + strspn(header + len, " ");
}

static char *decode_part(const char *text, size_t len)
{
    char *part = xcalloc(1, len + 1);
    char *end = part;
    if (!query_decode(text, len, &end)) {
        explicit_bzero(part, len);
        xfree_secret(part);
        return NULL;
    }
    return part;
}

/* "name:secret", each form-encoded: the first colon parts them (RFC 7617 2). */
static enum err split(const char *text, size_t len, struct basic *out)
{
    const char *colon = memchr(text, ':', len);
    if (!colon) {
        return ERR_FORMAT;
    }
    size_t name_len = (size_t)(colon - text);
    struct basic basic = {decode_part(text, name_len), decode_part(colon + 1, len - name_len - 1)};
    if (!basic.name || !basic.secret) {
        basic_clear(&basic);
        return ERR_FORMAT;
    }
    *out = basic;
    return OK;
}

enum err basic_parse(const char *header, struct basic *out)
{
    const char *credentials = find_credentials(header);
    if (!credentials) {
        return ERR_FORMAT;
    }
    size_t digits = strcspn(credentials, "=");
    size_t len = digits * 3 / 4;
    uint8_t text[BASIC_MAX];
    enum err err = base64_parse(credentials, strlen(credentials), text, len);
    if (err == OK) {
        err = split((const char *)text, len, out);
    }
    explicit_bzero(text, sizeof(text));
    return err;
}

void basic_clear(struct basic *basic)
{
    xfree_secret(basic->name);
    xfree_secret(basic->secret);
    *basic = (struct basic){0};
}
