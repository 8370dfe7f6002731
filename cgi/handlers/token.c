/* GET /token and POST /refresh: the session's access token for a web frontend (RFC 10017 6.2,
 * token-mediating backend). */
#include "base/metrics.h"
#include "base/scope.h"
#include "flows/session.h"
#include "handlers/handlers.h"

static enum err give_token(struct service *service, const struct request *request,
                           enum freshness freshness, struct reply *reply)
{
    struct session session = {0};
    enum err err = session_load_fresh(service, request, freshness, reply, &session);
    if (err != OK) {
        return err;
    }
    const char *wanted = request_param(request, "scope");
    if (wanted && !scope_includes(session.scope, wanted)) {
        /* What is missing: /authorize adds what was granted. A login that could not bring all of it
         * would be asked for again and again. */
        scope_add(&reply->login_scope, wanted, NULL, session.scope);
        bool may_ask =
            scope_includes(service->settings->scope_allowed, buf_str(&reply->login_scope));
        session_clear(&session);
        return may_ask ? ERR_INSUFFICIENT_SCOPE : ERR_UNALLOWED_SCOPE;
    }
    session_write_token(&session, NULL, reply);
    metrics_add(METRIC_TOKENS, METRIC_TOKEN_USER, request->method != METHOD_HEAD);
    session_clear(&session);
    return OK;
}

enum err token_get(struct service *service, const struct request *request, struct reply *reply)
{
    return give_token(service, request,
                      request->method == METHOD_HEAD ? SESSION_NEVER : SESSION_AHEAD, reply);
}

enum err refresh_post(struct service *service, const struct request *request, struct reply *reply)
{
    return give_token(service, request, SESSION_NOW, reply);
}
