/* A code is redeemed here, and its tokens are in Redis before anybody is told of them. Who may
 * bring a code is up to the callers. */
#include "flows/grant.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "flows/backoff.h"

/* C3 */
static enum err redeem(struct service *service, const struct code_grant *grant,
                       struct tokens *tokens, int64_t *retry_after_s)
{
    int64_t asked_s = -1;
    enum err err = backoff_check(service, retry_after_s);
    if (err != OK) {
        return err;
    }
    err = accounts_redeem_code(&service->accounts, grant->code, grant->redirect_uri,
                               grant->verifier, tokens, &asked_s);
    *retry_after_s = backoff_note(service, err == OK ? -1 : asked_s);
    if (err == OK && !tokens->refresh_token) {
        log_error("login failed: spotify gave no refresh token");
        tokens_clear(tokens);
        return ERR_UPSTREAM;
    }
    return err;
}

enum err grant_redeem(struct service *service, const struct code_grant *grant,
                      const struct secret *secret, struct session *out, int64_t *retry_after_s)
{
    struct tokens tokens = {0};
    *retry_after_s = 0;
    enum err err = redeem(service, grant, &tokens, retry_after_s);
    if (err != OK) {
        return err;
    }
    struct session session = {.authorized_at = clock_unix_s()};
    /* RFC 6749 5.1: as asked, where the answer does not say */
    session.scope = xstrdup(grant->scope);
    session.agent = grant->agent && grant->agent[0] ? xstrdup(grant->agent) : NULL;
    session_take_tokens(&session, &tokens, session.authorized_at);
    tokens_clear(&tokens);
    if (service->settings->profile && /* C4 */
        accounts_get_profile(&service->accounts, session.access_token, &session.profile) != OK) {
        log_warn("profile not read"); /* a login is good without it */
    }
    err = store_put_session(service->store, secret, &session); /* C5 */
    if (err != OK) {
        session_clear(&session);
        return err;
    }
    metrics_observe_reauth(settings_authorization_life_s(service->settings));
    *out = session;
    return OK;
}
