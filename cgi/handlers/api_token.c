/* POST /api/token: the token endpoint (RFC 6749 3.2) for servers and programs. A grant is a line of
 * the table; what it needs of its client is its own business. */
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "flows/app_token.h"
#include "handlers/handlers.h"
#include "http/basic.h"

/* ---- the service clients (RFC 6749 2.3.1) ---- */

/* The client of these credentials, NULL when there is none. Hashes and compares once and looks at
 * all names, whether there is such a client or not; a log line has only names that we know, because
 * whoever mixes the two up sends a secret in the name's place. */
static const struct service_client *find_client(const struct settings *settings,
                                                const struct basic *basic)
{
    static const uint8_t nobody[SHA256_LEN];
    const struct service_client *named = NULL;
    for (size_t i = 0; i < settings->service_client_count; i++) {
        if (strcmp(settings->service_clients[i].name, basic->name) == 0) {
            named = &settings->service_clients[i];
        }
    }
    bool is_proved =
        sha256_matches(basic->secret, strlen(basic->secret), named ? named->secret_sha256 : nobody);
    if (!named || !is_proved) {
        log_warn("service client refused", LOG_TEXT("client", named ? named->name : "unknown"));
        return NULL;
    }
    return named;
}

/* Basic is the one way in: a secret in the form is another way (RFC 6749 5.2), or beside Basic a
 * second one. A client_id that is only said again may stand there. */
static enum err authenticate(const struct settings *settings, const struct request *request,
                             const struct service_client **out, struct reply *reply)
{
    const char *header = request_variable(request, "HTTP_AUTHORIZATION");
    const char *client_id = request_param(request, "client_id");
    struct basic basic = {0};
    if (request_variable_repeated(request, "HTTP_AUTHORIZATION")) {
        return ERR_INVALID_REQUEST;
    }
    if (header && request_param(request, "client_secret")) {
        (void)reply_blame(reply, "client_secret", "stands beside the header Authorization");
        return ERR_INVALID_REQUEST;
    }
    if (basic_parse(header, &basic) != OK) {
        return ERR_INVALID_CLIENT;
    }
    enum err err = ERR_INVALID_REQUEST;
    if (client_id && strcmp(client_id, basic.name) != 0) {
        (void)reply_blame(reply, "client_id", "names another client than the header Authorization");
    } else {
        *out = find_client(settings, &basic);
        err = *out ? OK : ERR_INVALID_CLIENT;
    }
    basic_clear(&basic);
    return err;
}

/* ---- the grants ---- */

/* RFC 6749 4.4: the app's own token, for a client that proves who it is. */
static enum err give_app_token(struct service *service, const struct request *request,
                               struct reply *reply)
{
    const struct service_client *client = NULL;
    struct app_token token = {0};
    int64_t retry_after_s = 0;
    enum err err = authenticate(service->settings, request, &client, reply);
    if (err != OK) {
        return err;
    }
    if (request_param(request, "scope")) { /* what has a scope is a user's */
        return ERR_INVALID_SCOPE;
    }
    err = app_token_get(service, APP_TOKEN_AHEAD, &token, &retry_after_s);
    reply->retry_after_s = (int)retry_after_s;
    if (err != OK) {
        return err;
    }
    metrics_count(METRIC_TOKENS, METRIC_TOKEN_APP);
    log_info("app token given", LOG_TEXT("client", client->name));
    struct json_writer json = reply_open_json(reply, 200);
    json_add_string(&json, "access_token", token.access_token);
    json_add_string(&json, "token_type", "Bearer");
    json_add_integer(&json, "expires_in", token.expires_at - clock_unix_s());
    json_close(&json);
    reply_add_header(reply, "Pragma", "no-cache"); /* RFC 6749 5.1 */
    app_token_clear(&token);
    return OK;
}

static const struct grant {
    const char *type;
    handler_fn *give;
} grants[] = {
    {"client_credentials", give_app_token},
    {"refresh_token", swap_refresh_post}, /* 6, of a handle: a public client's */
    {"urn:ietf:params:oauth:grant-type:device_code", device_token_post}, /* RFC 8628 3.4 */
};

static enum err give(struct service *service, const struct request *request, struct reply *reply)
{
    const char *type = request_param(request, "grant_type");
    if (!type) {
        return reply_blame(reply, "grant_type", "is missing");
    }
    for (size_t i = 0; i < sizeof(grants) / sizeof(grants[0]); i++) {
        if (strcmp(grants[i].type, type) == 0) {
            return grants[i].give(service, request, reply);
        }
    }
    return ERR_GRANT_TYPE;
}

enum err api_token_post(struct service *service, const struct request *request, struct reply *reply)
{
    enum err err = give(service, request, reply);
    if (err != OK) {
        reply_add_header(reply, "Pragma", "no-cache"); /* RFC 6749 5.2; 5.1 is each grant's */
    }
    return err;
}
