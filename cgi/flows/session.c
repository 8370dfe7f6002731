/* From a cookie to a session with a token that can be used. */
#include "flows/session.h"

#include "base/clock.h"
#include "flows/renewal.h"
#include "http/cookie.h"

/* A token this young is not renewed again. */
#define YOUNG_S 10

enum err session_load(struct service *service, const struct request *request, struct secret *secret,
                      struct session *out)
{
    switch (cookie_get(request, service->settings, COOKIE_SESSION, secret)) {
    case COOKIE_IS_ABSENT:
        return ERR_NO_COOKIE;
    case COOKIE_IS_MALFORMED:
        return ERR_ABSENT;
    case COOKIE_IS_GOOD:
        break;
    }
    return store_get_session(service->store, secret,
                             request->method == METHOD_HEAD ? STORE_LOOK : STORE_USE, out);
}

static int64_t min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static bool needs_renewal(const struct session *session, enum freshness freshness, int64_t ahead_s)
{
    int64_t now = clock_unix_s();
    int64_t left_s = session->expires_at - now;
    int64_t age_s = now - session->obtained_at;
    int64_t life_s = session->expires_at - session->obtained_at;
    switch (freshness) {
    case SESSION_NEVER:
        return false;
    case SESSION_NOW:
        return left_s <= 0 || age_s >= YOUNG_S;
    case SESSION_AHEAD:
        break;
    }
    if (left_s >= ahead_s) {
        return false;
    }
    /* Tokens that live shorter than REFRESH_AHEAD would be renewed by every single request. A
     * renewed one is kept for the first half of its life. */
    bool was_just_renewed = session->generation > 1 && age_s < min(YOUNG_S, life_s / 2);
    return left_s <= 0 || !was_just_renewed;
}

enum err session_load_fresh(struct service *service, const struct request *request,
                            enum freshness freshness, struct reply *reply, struct session *out)
{
    struct secret secret;
    int64_t retry_after_s = 0;
    enum err err = session_load(service, request, &secret, out);
    if (err != OK) {
        return err;
    }
    if (needs_renewal(out, freshness, service->settings->refresh_ahead_s)) {
        err = renewal_renew(service->renewals, &secret, out, &retry_after_s);
        reply->retry_after_s = (int)retry_after_s;
        if (err != OK) {
            session_clear(out);
        }
    }
    secret_wipe(&secret);
    return err;
}
