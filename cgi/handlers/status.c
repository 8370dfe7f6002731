/* GET /healthz: this process serves. GET /readyz: send it work. For nginx, load balancers and
 * container probes. */
#include "base/err.h"
#include "handlers/handlers.h"

enum err healthz_get(struct service *service, const struct request *request, struct reply *reply)
{
    (void)service;
    (void)request;
    struct json_writer json = reply_open_json(reply, 200);
    json_add_string(&json, "status", "ok");
    json_close(&json);
    return OK;
}

enum err readyz_get(struct service *service, const struct request *request, struct reply *reply)
{
    (void)request;
    enum err redis = store_ping(service->store);
    bool is_ready = redis == OK && !service->draining;
    struct json_writer json = reply_open_json(reply, is_ready ? 200 : 503);
    json_add_bool(&json, "ready", is_ready);
    if (!is_ready) {
        enum err first = redis == OK ? ERR_DRAINING : redis;
        json_add_string(&json, "error", err_word(first));
        json_add_string(&json, "error_description", err_text(first));
        reply_add_header(reply, "Retry-After", "1");
    }
    json_open_member(&json, "reasons");
    if (redis != OK) {
        json_add_string(&json, "redis", "does not answer");
    }
    if (service->draining) {
        json_add_string(&json, "process", "is about to end");
    }
    json_close(&json);
    json_close(&json);
    return OK;
}
