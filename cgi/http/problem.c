/* Error answers. What an error means is err.c's table; here it gets its shape: JSON for a program,
 * a page for a person, and the headers that belong to the error. Headers that every answer has, and
 * who gets which shape, are the route layer's. */
#include "http/problem.h"

#include <string.h>
#include <strings.h>

#include "http/cookie.h"
#include "http/page.h"
#include "http/query.h"

/* Redis is back, or another took its place, within a moment. Spotify takes longer. */
#define RETRY_AFTER_STORE_S 1
#define RETRY_AFTER_S 5

/* Headers of an answer begun before the error was found that must not stay: they belong to that
 * answer, or are set anew here. */
static const char *const dropped_headers[] = {
    "Set-Cookie",      "Location", "Content-Type", "Retry-After", "Content-Security-Policy",
    "X-Frame-Options",
};

static bool is_dropped(const char *line)
{
    for (size_t i = 0; i < sizeof(dropped_headers) / sizeof(dropped_headers[0]); i++) {
        size_t len = strlen(dropped_headers[i]);
        if (strncasecmp(line, dropped_headers[i], len) == 0 && line[len] == ':') {
            return true;
        }
    }
    return false;
}

static void drop_headers(struct reply *reply)
{
    struct buf kept = {0};
    const char *line = buf_str(&reply->headers);
    while (*line) {
        size_t len = strcspn(line, "\n");
        len += line[len] == '\n';
        if (!is_dropped(line)) {
            buf_add(&kept, line, len);
        }
        line += len;
    }
    buf_clear(&reply->headers);
    reply->headers = kept;
}

/* A login helps where a session is missing; a service client has none. */
static bool needs_login(enum err err)
{
    return (err_status(err) == 401 && err != ERR_INVALID_CLIENT) || err == ERR_INSUFFICIENT_SCOPE;
}

/* Where to log in; for a scope that was not granted, so that the login asks for it. */
static void add_login_url(struct json_writer *json, const struct settings *settings,
                          const struct reply *reply)
{
    struct buf url = {0};
    buf_adds(&url, settings->login_url);
    if (reply->login_scope.len > 0) {
        buf_addc(&url, '?');
        query_add(&url, "scope", buf_str(&reply->login_scope));
    }
    json_add_string(json, "login_url", buf_str(&url));
    buf_clear(&url);
}

/* The error's own sentence, or one about the parameter that is wrong. */
static void describe(const struct reply *reply, enum err err, struct buf *out)
{
    if (reply->fault) {
        buf_addf(out, "The parameter %s %s.", reply->param, reply->fault);
    } else {
        buf_adds(out, err_text(err));
    }
}

static void write_json(struct reply *reply, const struct settings *settings, enum err err)
{
    int status = err_status(err);
    struct buf text = {0};
    struct json_writer json = reply_open_json(reply, status);
    describe(reply, err, &text);
    json_add_string(&json, "error", err_word(err));
    json_add_string(&json, "error_description", buf_str(&text));
    if (needs_login(err)) {
        add_login_url(&json, settings, reply);
    }
    json_close(&json);
    buf_clear(&text);
}

static const char *page_title(enum err err)
{
    if (err == ERR_INVALID_STATE) {
        return "This login cannot go on";
    }
    switch (err_status(err)) {
    case 401:
        return "Please log in";
    case 403:
        return "This is not allowed";
    case 503:
        return "Not available at the moment";
    case 500:
        return "Something went wrong";
    default:
        return "This request does not work";
    }
}

static void write_page(struct reply *reply, const struct settings *settings, enum err err)
{
    int status = err_status(err);
    struct buf text = {0};
    describe(reply, err, &text);
    page_open(reply, status, page_title(err), false);
    page_add(reply, "<p>");
    page_add_text(reply, buf_str(&text));
    buf_clear(&text);
    page_add(reply, "</p>\n");
    if (err == ERR_INVALID_STATE || needs_login(err) || status == 503) {
        page_add(reply, "<p><a href=\"");
        page_add_text(reply, settings->login_url);
        page_add(reply, "\">Log in again</a></p>\n");
    }
    page_add(reply, "<p class=\"support\">For support: <code>");
    page_add_text(reply, err_word(err));
    page_add(reply, "</code></p>\n");
    page_close(reply);
}

static void add_retry_after(struct reply *reply, enum err err)
{
    int seconds = err == ERR_STORE ? RETRY_AFTER_STORE_S : RETRY_AFTER_S;
    struct buf text = {0};
    buf_addf(&text, "%d", reply->retry_after_s > 0 ? reply->retry_after_s : seconds);
    reply_add_header(reply, "Retry-After", buf_str(&text));
    buf_clear(&text);
}

void problem_for_auth_request(struct reply *reply, enum err err)
{
    reply_add_header(reply, "X-Auth-Error", err_word(err));
    reply_add_header(reply, "X-Auth-Body", buf_str(&reply->body));
    if (reply->status >= 500) {
        reply->status = 403;
    }
}

void problem_reply(struct reply *reply, const struct settings *settings, enum err err, bool html)
{
    drop_headers(reply);
    buf_reset(&reply->body);
    if (html) {
        write_page(reply, settings, err);
    } else {
        write_json(reply, settings, err);
    }
    if (reply->status == 503) {
        add_retry_after(reply, err);
    }
    if (err == ERR_INVALID_CLIENT) { /* RFC 6749 5.2, RFC 7617 2 */
        reply_add_header(reply, "WWW-Authenticate", "Basic realm=\"spotify-auth\"");
    }
    if (err == ERR_ABSENT) {
        /* The only finding that clears a cookie (API.md 4.5). */
        cookie_clear(reply, settings, COOKIE_SESSION);
    }
}
