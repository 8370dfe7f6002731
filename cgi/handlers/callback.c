/* GET /callback: where Spotify sends the browser back to (steps C1 to C7 of flows/login.h). */
#include "base/metrics.h"
#include "flows/login.h"
#include "handlers/handlers.h"
#include "http/cookie.h"
#include "http/user_agent.h"

enum err callback_get(struct service *service, const struct request *request, struct reply *reply)
{
    struct secret state;
    struct secret binding;
    const char *code = request_param(request, "code");
    const char *error = request_param(request, "error");
    if (request_is_prefetch(request)) { /* nobody has clicked yet */
        return ERR_FORBIDDEN;
    }
    if (secret_parse(request_param(request, "state"), &state) != OK) {
        return ERR_INVALID_STATE;
    }
    if (!code == !error) { /* C1: one of them, and only one */
        return reply_blame(reply, "code", code ? "stands beside error" : "is missing");
    }
    if (request->method == METHOD_HEAD) {
        reply->status = 200;
        return OK;
    }
    if (cookie_get(request, service->settings, COOKIE_LOGIN, &binding) != COOKIE_IS_GOOD) {
        metrics_count(METRIC_LOGINS, METRIC_LOGIN_INVALID_STATE);
        return ERR_INVALID_STATE;
    }
    char agent[USER_AGENT_MAX + 1];
    user_agent_family(request_variable(request, "HTTP_USER_AGENT"), agent);
    struct login_callback callback = {&state, &binding, code, error, agent};
    struct login_outcome outcome = {0};
    enum err err = login_finish(service, &callback, &outcome);
    if (err == OK) { /* C7 */
        if (outcome.has_session) {
            cookie_set(reply, service->settings, COOKIE_SESSION, &outcome.session);
        }
        reply_redirect(reply, 303, outcome.location);
    }
    login_outcome_clear(&outcome);
    secret_wipe(&state);
    secret_wipe(&binding);
    return err;
}
