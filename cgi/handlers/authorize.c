/* GET /authorize: begin a login (steps L1 to L5 of flows/login.h). */
#include <string.h>

#include "flows/login.h"
#include "handlers/handlers.h"
#include "http/cookie.h"

enum err authorize_get(struct service *service, const struct request *request, struct reply *reply)
{
    const struct settings *settings = service->settings;
    struct secret binding;
    struct secret previous;
    struct buf url = {0};
    if (request_is_prefetch(request)) { /* nobody has clicked yet */
        return ERR_FORBIDDEN;
    }
    if (request->method == METHOD_HEAD) {
        reply->status = 200;
        return OK;
    }
    /* L2: one binding for all tabs of a browser, so that a second login does not break the first.
     */
    if (cookie_get(request, settings, COOKIE_LOGIN, &binding) != COOKIE_IS_GOOD) {
        secret_new(&binding);
    }
    bool has_previous = cookie_get(request, settings, COOKIE_SESSION, &previous) == COOKIE_IS_GOOD;
    const char *return_to = request_param(request, "return_to");
    const char *scope = request_param(request, "scope");
    const char *show_dialog = request_param(request, "show_dialog");
    struct login_wish wish = {.return_to = return_to ? return_to : settings->return_to,
                              .scope = scope ? scope : settings->scope,
                              .show_dialog = show_dialog && strcmp(show_dialog, "true") == 0,
                              .binding = &binding,
                              .previous = has_previous ? &previous : NULL};
    enum err err = login_begin(service, &wish, &url);
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
    return err;
}
