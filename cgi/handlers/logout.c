/* POST /logout: forget the tokens. Spotify has no revocation endpoint (contract A.1), so that is
 * all a logout can do. */
#include <string.h>

#include "base/metrics.h"
#include "flows/session.h"
#include "handlers/handlers.h"
#include "http/cookie.h"

enum err logout_post(struct service *service, const struct request *request, struct reply *reply)
{
    struct secret secret;
    struct session session = {0};
    const char *all = request_param(request, "all");
    bool wants_all = all && strcmp(all, "true") == 0;
    enum err err = session_load(service, request, &secret, &session);
    if (err == OK) {
        err = wants_all ? store_end_user_sessions(service->store, &secret, &session)
                        : store_end_session(service->store, &secret, &session);
        session_clear(&session);
        metrics_add(METRIC_SESSIONS_ENDED, METRIC_ENDED_LOGOUT, err == OK && !wants_all);
    } else if (err == ERR_UNREADABLE && !wants_all) {
        /* It can be ended all the same. Not so after ERR_STORE: a Redis that stands still would end
         * it later, under an answer that says that nothing was done. */
        err = store_end_session(service->store, &secret, NULL);
        metrics_add(METRIC_SESSIONS_ENDED, METRIC_ENDED_LOGOUT, err == OK);
    } else if (err == ERR_NO_COOKIE || err == ERR_ABSENT || err == ERR_REPLACED) {
        err = OK; /* nobody is logged in, which is what was asked for */
    }
    secret_wipe(&secret);
    if (err != OK) {
        return err;
    }
    cookie_clear(reply, service->settings, COOKIE_SESSION);
    reply_add_header(reply, "Clear-Site-Data", "\"cache\", \"storage\"");
    reply->status = 204;
    return OK;
}
