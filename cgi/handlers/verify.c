/* GET /verify: nginx asks, by auth_request, who sends the request that it has in hand, and gets the
 * access token to send on in the user's place. Nobody else can ask. Whether that request comes from
 * a page of ours is the route table's to check; how a refusal reads for nginx, problem.c's. */
#include <string.h>

#include "base/metrics.h"
#include "flows/session.h"
#include "handlers/handlers.h"

static void add_known(struct reply *reply, const char *name, const char *value)
{
    if (value) {
        reply_add_header(reply, name, value);
    }
}

/* renew: Spotify's Web API has just refused the token that it got, whatever its clock says. */
enum err verify_get(struct service *service, const struct request *request, struct reply *reply)
{
    struct session session = {0};
    const char *renew = request_param(request, "renew");
    enum freshness freshness = renew && strcmp(renew, "true") == 0 ? SESSION_NOW : SESSION_AHEAD;
    if (request->method == METHOD_HEAD) {
        freshness = SESSION_NEVER;
    }
    enum err err = session_load_fresh(service, request, freshness, reply, &session);
    if (err != OK) {
        return err;
    }
    reply_add_header(reply, "X-Spotify-Access-Token", session.access_token);
    reply_add_header(reply, "X-Spotify-Scope", session.scope);
    add_known(reply, "X-Spotify-User", session.profile.id);
    add_known(reply, "X-Spotify-Account", session.profile.account_id);
    if (freshness == SESSION_NOW) { /* for nginx to say, should this token be refused as well */
        reply_add_header(reply, "X-Spotify-Login-Url", service->settings->login_url);
    }
    reply->status = 204;
    metrics_add(METRIC_TOKENS, METRIC_TOKEN_USER, request->method != METHOD_HEAD);
    session_clear(&session);
    return OK;
}
