/* GET /metrics: what was counted, for Prometheus; the sum over all workers of this process. */
#include "base/metrics.h"

#include "flows/refusals.h"
#include "handlers/handlers.h"

/* Plain CGI has nothing to show: its process ends with the one request. */
enum err metrics_get(struct service *service, const struct request *request, struct reply *reply)
{
    bool is_mass = false;
    (void)request;
    if (!metrics_is_shared()) {
        return ERR_NOT_FOUND;
    }
    (void)refusals_look(service, &is_mass); /* it ends by itself, and nobody else may look */
    reply->status = 200;
    reply_add_header(reply, "Content-Type", "text/plain; version=0.0.4; charset=utf-8");
    metrics_format(&reply->body);
    return OK;
}
