/* The Authorization Code flow (RFC 6749 4.1 with RFC 7636 and RFC 9700): what is kept between
 * /authorize and /callback, and that a state works once, in the browser that began it. */
#include "flows/login.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fiber.h"
#include "base/log.h"
#include "base/metrics.h"
#include "flows/device.h"
#include "flows/grant.h"
#include "http/return_to.h"

/* How often a second delivery looks whether the first has ended. */
#define REPLAY_POLL_MS 25

enum err login_begin(struct service *service, const struct login_wish *wish, struct buf *url)
{
    const struct settings *settings = service->settings;
    struct secret state;
    char state_text[SECRET_TEXT_LEN + 1];
    char verifier[PKCE_LEN + 1];
    char challenge[PKCE_LEN + 1];
    secret_new(&state); /* L3 */
    pkce_new_verifier(verifier);
    pkce_challenge(verifier, challenge);

    struct login login = {.started_at = clock_unix_s()};
    login.verifier = settings->pkce ? xstrdup(verifier) : NULL;
    login.scope = xstrdup(wish->scope);
    login.return_to = xstrdup(wish->return_to);
    if (wish->previous) {
        session_name(wish->previous, login.previous);
    }
    if (wish->device) {
        memcpy(login.device, wish->device, strlen(wish->device) + 1);
    }
    enum err err = store_put_login(service->store, &state, wish->binding, &login); /* L4 */
    if (err == OK) {                                                               /* L5 */
        secret_format(&state, state_text);
        struct authorization authorization = {.redirect_uri = settings->redirect_uri,
                                              .scope = wish->scope,
                                              .state = state_text,
                                              .challenge = settings->pkce ? challenge : NULL,
                                              .show_dialog = wish->show_dialog};
        accounts_format_authorize_url(&service->accounts, &authorization, url);
        metrics_count(METRIC_LOGINS_BEGUN, 0);
    }
    login_clear(&login);
    explicit_bzero(verifier, sizeof(verifier));
    return err;
}

static void set_location(struct login_outcome *out, const char *return_to, const char *error)
{
    struct buf location = {0};
    return_to_format(&location, return_to, error);
    out->location = buf_take(&location);
}

/* The same callback again: wait for the first one's outcome, as long as that can take from when it
 * took the login. ERR_USED: out is filled. OK: whoever took the login before could not go on, and
 * it is ours now. */
static enum err await_outcome(struct service *service, const struct login_callback *callback,
                              struct login *login, struct login_outcome *out)
{
    int64_t longest_ms = store_login_longest_ms(service->settings);
    enum err err = ERR_USED;
    while (err == ERR_USED && !out->location && out->age_ms < longest_ms) {
        fiber_sleep(REPLAY_POLL_MS);
        login_clear(login);
        err = store_take_login(service->store, callback->state, callback->binding, login, out);
    }
    if (err == ERR_USED && !out->location) {
        /* The worker that had it is gone, and the code with it. Should it only have stood still, it
         * notes how it went after all. */
        set_location(out, login->return_to, "temporarily_unavailable");
        out->ended_at = clock_unix_s();
        if (store_put_login_outcome(service->store, callback->state, callback->binding, out,
                                    true) == OK) {
            metrics_count(METRIC_LOGINS, METRIC_LOGIN_LOST);
        }
    }
    return err;
}

/* Whether a further delivery of a good callback gets the session's cookie again: a browser may have
 * thrown the first answer away. Not once the session has ended, as it may have got another since.
 */
static bool gives_session_again(struct service *service, const struct login_outcome *out)
{
    struct session session = {0};
    bool gives = out->has_session && clock_unix_s() - out->ended_at <= REPLAY_SESSION_S &&
                 store_get_session(service->store, &out->session, STORE_LOOK, &session) == OK;
    session_clear(&session);
    return gives;
}

/* C3 to C6 for this browser: its session is in out. */
static enum err open_session(struct service *service, const struct code_grant *grant,
                             const char *previous, struct login_outcome *out)
{
    struct session session = {0};
    int64_t retry_after_s = 0; /* nobody to tell: a browser is on its way */
    bool ended = false;
    secret_new(&out->session);
    enum err err = grant_redeem(service, grant, &out->session, &session, &retry_after_s);
    if (err != OK) {
        return err;
    }
    out->has_session = true;
    metrics_count(METRIC_SESSIONS_BEGUN, METRIC_BEGUN_LOGIN);
    if (store_replace_session(service->store, previous, &session, &ended) != OK) { /* C6 */
        log_warn("previous session not ended");
    }
    metrics_add(METRIC_SESSIONS_ENDED, METRIC_ENDED_REPLACED, ended);
    session_clear(&session);
    return OK;
}

/* The error word for return_to when a login failed. */
static const char *name_failure(enum err err)
{
    log_line(err == ERR_REJECTED ? LOG_ERROR : LOG_WARN, "login failed",
             LOG_TEXT("reason", err_name(err)));
    metrics_count_word(METRIC_LOGINS, err_name(err));
    if (err == ERR_EXPIRED) {
        return err_word(err);
    }
    bool is_refused = err == ERR_REFUSED || err == ERR_REJECTED || err == ERR_MISCONFIGURED;
    return is_refused ? "login_failed" : "temporarily_unavailable";
}

/* C3 to C6: the error word for return_to, NULL when the login was good. */
static const char *log_in(struct service *service, const struct login_callback *callback,
                          const struct login *login, struct login_outcome *out)
{
    struct code_grant grant = {
        .code = callback->code,
        .redirect_uri = service->settings->redirect_uri,
        .verifier = login->verifier,
        .scope = login->scope,
        .agent = login->device[0] ? "Device" : callback->agent,
    };
    enum err err = login->device[0] ? device_give(service, &grant, login->device)
                                    : open_session(service, &grant, login->previous, out);
    if (err != OK) {
        return name_failure(err);
    }
    metrics_count(METRIC_LOGINS, METRIC_LOGIN_SUCCESS);
    return NULL;
}

/* C3 to C7 for the one delivery that took the login. */
static void finish_taken(struct service *service, const struct login_callback *callback,
                         const struct login *login, struct login_outcome *out)
{
    const char *error = NULL;
    if (callback->error) {
        bool is_no = strcmp(callback->error, "access_denied") == 0;
        error = is_no ? "access_denied" : "server_error";
        metrics_count_word(METRIC_LOGINS, error);
        if (is_no && login->device[0]) {
            (void)device_refuse(service, login->device); /* D5; else it waits until it expires */
        }
    } else {
        error = log_in(service, callback, login, out);
    }
    set_location(out, login->return_to, error);
    out->ended_at = clock_unix_s();
    if (store_put_login_outcome(service->store, callback->state, callback->binding, out, false) !=
        OK) {
        log_warn("login outcome not stored");
    }
}

enum err login_finish(struct service *service, const struct login_callback *callback,
                      struct login_outcome *out)
{
    struct login login = {0};
    enum err err =
        store_take_login(service->store, callback->state, callback->binding, &login, out); /* C2 */
    if (err == ERR_USED && !out->location) {
        err = await_outcome(service, callback, &login, out);
    }
    if (err == OK) {
        finish_taken(service, callback, &login, out);
    } else if (err == ERR_USED) {
        out->has_session = gives_session_again(service, out);
        err = OK;
    } else {
        metrics_count_word(METRIC_LOGINS, err_name(err));
    }
    login_clear(&login);
    return err;
}
