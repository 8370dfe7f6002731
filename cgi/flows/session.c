/* From a cookie to a session with a token that can be used. */
#include "flows/session.h"

#include <stdlib.h>

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

static bool is_asked_for(enum freshness freshness)
{
    return freshness == SESSION_NOW || freshness == SESSION_NOW_OR_AHEAD;
}

static bool needs_renewal(const struct session *session, enum freshness freshness, int64_t ahead_s)
{
    int64_t now = clock_unix_s();
    int64_t left_s = session->expires_at - now;
    int64_t age_s = now - session->obtained_at;
    int64_t life_s = session->expires_at - session->obtained_at;
    if (freshness == SESSION_NEVER) {
        return false;
    }
    /* Where a clock was set back, the age says nothing. */
    if (is_asked_for(freshness) && (left_s <= 0 || llabs(age_s) >= YOUNG_S)) {
        return true;
    }
    if (freshness == SESSION_NOW) {
        return false;
    }
    if (left_s >= ahead_s) {
        return false;
    }
    /* Tokens that live shorter than REFRESH_AHEAD would be renewed by every single request. A
     * renewed one is kept for the first half of its life. */
    bool was_just_renewed = session->generation > 1 && age_s < min(YOUNG_S, life_s / 2);
    return left_s <= 0 || !was_just_renewed;
}

enum err session_freshen(struct service *service, const struct secret *secret,
                         enum freshness freshness, struct reply *reply, struct session *session)
{
    int64_t retry_after_s = 0;
    if (!needs_renewal(session, freshness, service->settings->refresh_ahead_s)) {
        return OK;
    }
    enum err err =
        renewal_renew(service->renewals, secret, is_asked_for(freshness), session, &retry_after_s);
    reply->retry_after_s = (int)retry_after_s;
    if (err != OK) {
        session_clear(session);
    }
    return err;
}

enum err session_load_fresh(struct service *service, const struct request *request,
                            enum freshness freshness, struct reply *reply, struct session *out)
{
    struct secret secret;
    enum err err = session_load(service, request, &secret, out);
    if (err != OK) {
        return err;
    }
    err = session_freshen(service, &secret, freshness, reply, out);
    secret_wipe(&secret);
    return err;
}

void session_write_token(const struct session *session, const char *refresh_token,
                         struct reply *reply)
{
    int64_t left_s = session->expires_at - clock_unix_s();
    struct json_writer json = reply_open_json(reply, 200);
    json_add_string(&json, "access_token", session->access_token);
    json_add_string(&json, "token_type", "Bearer");
    json_add_integer(&json, "expires_in", left_s > 0 ? left_s : 0);
    json_add_string(&json, "scope", session->scope);
    if (refresh_token) {
        json_add_string(&json, "refresh_token", refresh_token);
    }
    json_close(&json);
    reply_add_header(reply, "Pragma", "no-cache"); /* RFC 6749 5.1 */
}
