/* What a handle's holder may ask for: to get one for a code, and a fresh token for it. Renewal and
 * storage are those of sessions; only the words of the errors are others (RFC 6749 5.2), since a
 * phone has no cookie to clear and no login page to be sent to. */
#include "flows/handle.h"

#include <string.h>

#include "base/metrics.h"

void handle_derive(const struct secret *handle, struct secret *out)
{
    secret_derive("handle", handle, out);
}

enum err handle_swap(struct service *service, const struct code_grant *grant, struct reply *reply)
{
    struct secret handle, secret;
    struct session session = {0};
    int64_t retry_after_s = 0;
    char text[SECRET_TEXT_LEN + 1];
    /* A code is used up by redeeming it: not while its session could not be stored. */
    const char *trouble = NULL;
    enum err err = store_ping(service->store, &trouble);
    secret_new(&handle);
    handle_derive(&handle, &secret);
    if (err == OK) {
        err = grant_redeem(service, grant, &secret, &session, &retry_after_s);
    }
    reply->retry_after_s = (int)retry_after_s;
    metrics_count_word(METRIC_LOGINS, err == OK ? "none" : err_name(err));
    if (err == OK) {
        secret_format(&handle, text);
        session_write_token(&session, text, reply);
        metrics_count(METRIC_SESSIONS_BEGUN, METRIC_BEGUN_SWAP);
        metrics_count(METRIC_TOKENS, METRIC_TOKEN_USER);
        session_clear(&session);
        explicit_bzero(text, sizeof(text));
    } else if (err == ERR_REFUSED) {
        err = ERR_INVALID_GRANT;
    } else if (err == ERR_REJECTED) { /* what Spotify misses is the verifier of the app's PKCE */
        err = reply_blame(reply, "code_verifier", "is missing, or does not go with the code");
    }
    secret_wipe(&handle);
    secret_wipe(&secret);
    return err;
}

enum err handle_load(struct service *service, const struct secret *handle, enum freshness freshness,
                     struct reply *reply, struct session *out)
{
    struct secret secret;
    handle_derive(handle, &secret);
    enum err err = store_get_session(service->store, &secret, STORE_USE, out);
    if (err == OK) {
        err = session_freshen(service, &secret, freshness, reply, out);
    }
    secret_wipe(&secret);
    bool is_over = err == ERR_ABSENT || err == ERR_REPLACED || err == ERR_SUSPECT;
    return is_over ? ERR_INVALID_GRANT : err;
}

enum err handle_refresh(struct service *service, const char *text, struct reply *reply)
{
    struct secret handle;
    struct session session = {0};
    if (secret_parse(text, &handle) != OK) {
        return ERR_INVALID_GRANT;
    }
    enum err err = handle_load(service, &handle, SESSION_NOW_OR_AHEAD, reply, &session);
    secret_wipe(&handle);
    if (err == OK) {
        session_write_token(&session, NULL, reply);
        metrics_count(METRIC_TOKENS, METRIC_TOKEN_USER);
        session_clear(&session);
    }
    return err;
}
