/* GET /metrics: what was counted, for Prometheus; the sum over all workers of this process. */
#include "base/metrics.h"

#include "handlers/handlers.h"

/* Plain CGI has nothing to show: its process ends with the one request. */
enum err metrics_get(struct service *service, const struct request *request, struct reply *reply)
{
    (void)service;
    (void)request;
    if (!metrics_is_shared()) {
        return ERR_NOT_FOUND;
    }
    reply->status = 200;
    reply_add_header(reply, "Content-Type", "text/plain; version=0.0.4; charset=utf-8");
    metrics_format(&reply->body);
    return OK;
}
