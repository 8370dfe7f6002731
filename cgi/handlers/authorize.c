/* GET /authorize: begin a login (steps L1 to L5 of flows/login.h). */
#include <string.h>

#include "base/scope.h"
#include "flows/login.h"
#include "handlers/handlers.h"
#include "http/cookie.h"
#include "http/return_to.h"

/* What to ask for: the default; or ?scope= on top of what the browser's session was granted,
 * because the new grant takes the place of the old one. ERR_STORE: that could not be found out. */
static enum err find_scope(struct service *service, const char *wanted,
                           const struct secret *previous, struct buf *out)
{
    const struct settings *settings = service->settings;
    struct session session = {0};
    if (!wanted) {
        buf_adds(out, settings->scope);
        return OK;
    }
    enum err err =
        previous ? store_get_session(service->store, previous, STORE_LOOK, &session) : ERR_ABSENT;
    if (err == ERR_STORE) {
        return err;
    }
    if (err == OK) { /* an operator may have taken a scope out of use since */
        scope_add(out, session.scope, settings->scope_allowed, NULL);
        session_clear(&session);
    }
    scope_add(out, wanted, NULL, NULL);
    return out->len <= SCOPE_MAX ? OK : ERR_INVALID_SCOPE;
}

/* L1. Where nginx leads here from a page of its own, it says which one, in a variable that no
 * header can set; the parameter was checked by the route table. */
static enum err find_return_to(const struct settings *settings, const struct request *request,
                               struct reply *reply, const char **out)
{
    const char *param = request_param(request, "return_to");
    const char *page = request_variable(request, "LOGIN_RETURN_TO");
    *out = settings->return_to;
    if (param) {
        *out = param;
    } else if (page && *page) {
        *out = page;
        return return_to_is_ours(page, &settings->origin, &settings->allowed_origins)
                   ? OK
                   : reply_blame(reply, "return_to", "is not as it should be");
    }
    return OK;
}

enum err authorize_get(struct service *service, const struct request *request, struct reply *reply)
{
    const struct settings *settings = service->settings;
    struct secret binding;
    struct secret previous;
    struct buf url = {0};
    struct buf scope = {0};
    const char *return_to;
    if (request_is_prefetch(request)) { /* nobody has clicked yet */
        return ERR_FORBIDDEN;
    }
    if (request->method == METHOD_HEAD) {
        reply->status = 200;
        return OK;
    }
    enum err err = find_return_to(settings, request, reply, &return_to);
    if (err != OK) {
        return err;
    }
    /* L2: one binding for all tabs of a browser, so that a second login does not break the first.
     */
    if (cookie_get(request, settings, COOKIE_LOGIN, &binding) != COOKIE_IS_GOOD) {
        secret_new(&binding);
    }
    bool has_previous = cookie_get(request, settings, COOKIE_SESSION, &previous) == COOKIE_IS_GOOD;
    err = find_scope(service, request_param(request, "scope"), has_previous ? &previous : NULL,
                     &scope);
    const char *show_dialog = request_param(request, "show_dialog");
    struct login_wish wish = {.return_to = return_to,
                              .scope = buf_str(&scope),
                              .show_dialog = show_dialog && strcmp(show_dialog, "true") == 0,
                              .binding = &binding,
                              .previous = has_previous ? &previous : NULL};
    if (err == OK) {
        err = login_begin(service, &wish, &url);
    }
    if (err == OK) {
        cookie_set(reply, settings, COOKIE_LOGIN, &binding);
        if (request_prefers_json(request)) {
            struct json_writer json = reply_open_json(reply, 200);
            json_add_string(&json, "url", buf_str(&url));
            json_close(&json);
        } else {
            reply_redirect(reply, 302, buf_str(&url));
        }
    }
    secret_wipe(&binding);
    secret_wipe(&previous);
    buf_clear(&url);
    buf_clear(&scope);
    return err;
}
