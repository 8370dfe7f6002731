/* GET /verify/app: the app's token for nginx itself, by auth_request (how a refusal reads for it is
 * problem.c's). `renew=true`: the Web API has refused the token that was given before. */
#include <string.h>

#include "base/metrics.h"
#include "flows/app_token.h"
#include "handlers/handlers.h"

enum err verify_app_get(struct service *service, const struct request *request, struct reply *reply)
{
    struct app_token token = {0};
    int64_t retry_after_s = 0;
    const char *renew = request_param(request, "renew");
    bool is_refused = renew && strcmp(renew, "true") == 0;
    if (request->method == METHOD_HEAD) {
        reply->status = 204;
        return OK;
    }
    enum err err = app_token_get(service, is_refused ? APP_TOKEN_NOW : APP_TOKEN_AHEAD, &token,
                                 &retry_after_s);
    reply->retry_after_s = (int)retry_after_s;
    if (err != OK) {
        return err;
    }
    metrics_count(METRIC_TOKENS, METRIC_TOKEN_APP);
    reply->status = 204;
    reply_add_header(reply, "X-Spotify-Access-Token", token.access_token);
    app_token_clear(&token);
    return OK;
}
