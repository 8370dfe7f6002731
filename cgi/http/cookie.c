/* The login and the session cookie, in and out. What their values open is the store's business. */
#include "http/cookie.h"

#include <string.h>

#define HOST_PREFIX "__Host-"

static const char *const cookie_names[COOKIE__MAX] = {
    [COOKIE_LOGIN] = HOST_PREFIX "spotify-login",
    [COOKIE_SESSION] = HOST_PREFIX "spotify-session",
};

/* Browsers keep a __Host- cookie only with Secure (RFC 6265bis 4.1.3.2), and Secure not over the
 * plain http of a loopback address: there the name goes without. */
static const char *cookie_name(const struct settings *settings, enum cookie which)
{
    return cookie_names[which] + (settings->secure ? 0 : strlen(HOST_PREFIX));
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

size_t cookie_find(const char **cursor, const char *name, const char **value)
{
    size_t name_len = strlen(name);
    while (**cursor) {
        const char *start = *cursor;
        const char *end = start + strcspn(start, ";");
        *cursor = *end ? end + 1 : end;
        while (is_blank(*start)) {
            start++;
        }
        while (end > start && is_blank(end[-1])) {
            end--;
        }
        if ((size_t)(end - start) > name_len && strncmp(start, name, name_len) == 0 &&
            start[name_len] == '=') {
            *value = start + name_len + 1;
            return (size_t)(end - *value);
        }
    }
    return (size_t)-1;
}

static bool parse_value(const char *value, size_t len, struct secret *out)
{
    char text[SECRET_TEXT_LEN + 1] = {0};
    if (len != SECRET_TEXT_LEN) {
        return false;
    }
    memcpy(text, value, len);
    bool is_good = secret_parse(text, out) == OK;
    explicit_bzero(text, sizeof(text));
    return is_good;
}

enum cookie_state cookie_get(const struct request *request, const struct settings *settings,
                             enum cookie which, struct secret *out)
{
    enum cookie_state state = COOKIE_IS_ABSENT;
    const char *name = cookie_name(settings, which);
    const char *cursor;
    for (size_t n = 0; (cursor = request_variable_at(request, "HTTP_COOKIE", n)); n++) {
        const char *value = NULL;
        size_t len;
        while ((len = cookie_find(&cursor, name, &value)) != (size_t)-1) {
            if (parse_value(value, len, out)) {
                return COOKIE_IS_GOOD;
            }
            state = COOKIE_IS_MALFORMED;
        }
    }
    return state;
}

static void add_set_cookie(struct reply *reply, const struct settings *settings, enum cookie which,
                           const char *value, int64_t max_age_s)
{
    /* The login cookie has to come along when Spotify's page leads back to /callback: Lax. */
    bool is_lax = which == COOKIE_LOGIN || settings->samesite_lax;
    struct buf text = {0};
    buf_addf(&text, "%s=%s; %sHttpOnly; SameSite=%s; Path=/; Max-Age=%lld",
             cookie_name(settings, which), value, settings->secure ? "Secure; " : "",
             is_lax ? "Lax" : "Strict", (long long)max_age_s);
    reply_add_header(reply, "Set-Cookie", buf_str(&text));
    buf_clear(&text);
}

void cookie_set(struct reply *reply, const struct settings *settings, enum cookie which,
                const struct secret *value)
{
    char text[SECRET_TEXT_LEN + 1];
    secret_format(value, text);
    add_set_cookie(reply, settings, which, text,
                   which == COOKIE_LOGIN ? settings->login_ttl_s : settings->session_max_age_s);
    explicit_bzero(text, sizeof(text));
}

void cookie_clear(struct reply *reply, const struct settings *settings, enum cookie which)
{
    add_set_cookie(reply, settings, which, "", 0);
}
