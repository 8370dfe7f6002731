/* POST /logout: forget the tokens. Spotify has no revocation endpoint (contract A.1), so that is
 * all a logout can do. */
#include <string.h>

#include "base/metrics.h"
#include "flows/session.h"
#include "handlers/handlers.h"
#include "http/cookie.h"

/* End the one session of this user's that has that id. *is_own: it is the one that asks. One that
 * is not there, or never was, is what was asked for. */
static enum err end_by_id(struct service *service, const struct secret *secret,
                          const struct session *session, const char *id, bool *is_own)
{
    struct session_list list = {0};
    bool ended = false;
    enum err err = store_list_sessions(service->store, secret, session, &list);
    *is_own = false;
    for (size_t i = 0; err == OK && i < list.count; i++) {
        if (strcmp(list.items[i].id, id) == 0) {
            *is_own = list.items[i].is_current;
            err = store_end_listed_session(service->store, session, &list.items[i], &ended);
            metrics_add(METRIC_SESSIONS_ENDED, METRIC_ENDED_LOGOUT, ended);
        }
    }
    session_list_clear(&list);
    return err;
}

enum err logout_post(struct service *service, const struct request *request, struct reply *reply)
{
    struct secret secret;
    struct session session = {0};
    const char *id = request_param(request, "id");
    const char *all = request_param(request, "all");
    bool wants_all = all && strcmp(all, "true") == 0;
    bool is_own = true, ended = false;
    if (id && wants_all) {
        return reply_blame(reply, "id", "stands beside all=true");
    }
    enum err err = session_load(service, request, &secret, &session);
    if (err == OK && id) {
        err = end_by_id(service, &secret, &session, id, &is_own);
    } else if (err == OK) {
        err = wants_all ? store_end_user_sessions(service->store, &secret, &session)
                        : store_end_session(service->store, &secret, &session, &ended);
    } else if (err == ERR_UNREADABLE && !wants_all && !id) {
        /* It can be ended all the same. Not so after ERR_STORE: a Redis that stands still would end
         * it later, under an answer that says that nothing was done. */
        err = store_end_session(service->store, &secret, NULL, &ended);
    } else if (err == ERR_NO_COOKIE || err == ERR_ABSENT || err == ERR_REPLACED) {
        err = OK; /* nobody is logged in, which is what was asked for */
    }
    metrics_add(METRIC_SESSIONS_ENDED, METRIC_ENDED_LOGOUT, ended);
    session_clear(&session);
    secret_wipe(&secret);
    if (err != OK) {
        return err;
    }
    if (is_own) {
        cookie_clear(reply, service->settings, COOKIE_SESSION);
        reply_add_header(reply, "Clear-Site-Data", "\"cache\", \"storage\"");
    }
    reply->status = 204;
    return OK;
}
