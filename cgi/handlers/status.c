/* GET /healthz: this process serves. GET /readyz: send it work. For nginx, load balancers and
 * container probes. */
#include "base/err.h"
#include "flows/refusals.h"
#include "handlers/handlers.h"
#include "spotify/attempt.h"

enum err healthz_get(struct service *service, const struct request *request, struct reply *reply)
{
    (void)service;
    (void)request;
    struct json_writer json = reply_open_json(reply, 200);
    json_add_string(&json, "status", "ok");
    json_close(&json);
    return OK;
}

static void add_warning(struct json_writer *json, bool holds, const char *word, const char *text)
{
    if (!holds) {
        return;
    }
    if (json->comma) {
        buf_addc(json->out, ',');
    }
    struct json_writer warning;
    json_open(&warning, json->out);
    json_add_string(&warning, "warning", word);
    json_add_string(&warning, "description", text);
    json_close(&warning);
    json->comma = true;
}

/* What an operator should look after, and what keeps nobody from being served: a line each. */
static void add_warnings(struct service *service, bool redis_answers, struct json_writer *json)
{
    struct json_writer list = {.out = json->out};
    struct store_risks risks = {0};
    bool is_mass = false;
    if (redis_answers) {
        risks = store_get_risks(service->store);
        (void)refusals_look(service, &is_mass);
    }
    attempt_lapse(&service->accounts.token_breaker);
    attempt_lapse(&service->accounts.api_breaker);
    buf_adds(json->out, ",\"warnings\":[");
    add_warning(
        &list, risks.evicts, "redis_evicts",
        "Redis drops sessions when its memory is full: set maxmemory-policy to noeviction.");
    add_warning(&list, risks.forgets, "redis_forgets",
                "Redis keeps nothing on disk, so its restart ends every session: set appendonly.");
    add_warning(&list, is_mass, "mass_refusals",
                "Spotify refuses most renewals: until that ends, no session is ended for it.");
    add_warning(&list, breaker_is_open(&service->accounts.token_breaker), "accounts_away",
                "Spotify's accounts service does not answer: only valid tokens are handed out.");
    add_warning(&list, breaker_is_open(&service->accounts.api_breaker), "api_away",
                "Spotify's Web API does not answer: logins go on without a profile.");
    buf_addc(json->out, ']');
}

enum err readyz_get(struct service *service, const struct request *request, struct reply *reply)
{
    (void)request;
    const char *trouble = NULL;
    enum err redis = store_ping(service->store, &trouble);
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
        json_add_string(&json, "redis", trouble);
    }
    if (service->draining) {
        json_add_string(&json, "process", "draining");
    }
    json_close(&json);
    add_warnings(service, redis == OK, &json);
    json_close(&json);
    return OK;
}
