/* The one table that turns an error into the HTTP status, the OAuth error word and the sentence
 * that callers of the service see. Which headers go with it is the front's business. */
#include "base/err.h"

#include <stddef.h>

struct meaning {
    int status;
    const char *word;
    const char *text; /* only characters of RFC 6749 5.2: no quote, no backslash, ASCII */
};

#define LOGIN_REQUIRED "login_required"
#define UNAVAILABLE "temporarily_unavailable"

/* Internal ones get a status, too: should one slip through to a caller, it is our failure. */
#define INTERNAL                                                                                   \
    {                                                                                              \
        500, "server_error", "Something went wrong on our side."                                   \
    }

static const struct meaning meanings[ERR__MAX] = {
    [OK] = {0, "", ""},

    [ERR_INVALID_REQUEST] = {400, "invalid_request",
                             "A parameter is missing, repeated or not as it should be."},
    [ERR_INVALID_SCOPE] = {400, "invalid_scope", "This scope may not be asked for here."},
    [ERR_INVALID_GRANT] = {400, "invalid_grant",
                           "This code or refresh token is unknown, was used before or has ended. "
                           "Please log in again."},
    [ERR_INVALID_STATE] = {400, "invalid_state",
                           "This login is unknown, took too long or was begun in another browser. "
                           "Please log in again."},
    [ERR_FORBIDDEN] =
        {403, "forbidden",
         "This request is not allowed from where it came, or lacks the header X-Requested-With."},
    [ERR_NOT_FOUND] = {404, "not_found", "There is nothing at this address."},
    [ERR_METHOD] = {405, "method_not_allowed", "This address does not take that method."},
    [ERR_MEDIA_TYPE] = {415, "unsupported_media_type",
                        "The body has to be a form (application/x-www-form-urlencoded)."},
    [ERR_TOO_LARGE] = {413, "request_too_large", "The request is larger than what is accepted."},
    [ERR_INSUFFICIENT_SCOPE] = {403, "insufficient_scope", "The user has not granted this scope."},
    [ERR_UNALLOWED_SCOPE] = {403, "insufficient_scope",
                             "The user has not granted this scope, and a login cannot ask for it: "
                             "SPOTIFY_SCOPE_ALLOWED does not have it."},
    [ERR_INVALID_CLIENT] =
        {401, "invalid_client",
         "Name and secret of a service client, by HTTP Basic, are missing or wrong."},
    [ERR_GRANT_TYPE] = {400, "unsupported_grant_type", "There is no such grant_type here."},

    [ERR_PENDING] = {400, "authorization_pending", "Nobody has entered the code yet. Keep asking."},
    [ERR_SLOW_DOWN] = {400, "slow_down", "Asked too soon. Wait 5 seconds longer from now on."},
    [ERR_DENIED] = {400, "access_denied", "The user said no."},
    [ERR_EXPIRED] = {400, "expired_token", "The code has expired. Ask for a new one."},

    [ERR_NO_COOKIE] = {401, LOGIN_REQUIRED, "Nobody is logged in. Please log in."},
    [ERR_ABSENT] = {401, LOGIN_REQUIRED, "This login has ended. Please log in again."},
    [ERR_REPLACED] = {401, LOGIN_REQUIRED,
                      "A newer login in this browser took the place of this one. "
                      "Please try again."},
    [ERR_SUSPECT] = {401, LOGIN_REQUIRED,
                     "Spotify does not accept this login at the moment. Please log in again."},

    [ERR_STORE] = {503, UNAVAILABLE, "The session store cannot be reached. Please try again soon."},
    [ERR_UNREADABLE] = {503, UNAVAILABLE, "This login cannot be read here. Please try again soon."},
    [ERR_UPSTREAM] = {503, UNAVAILABLE, "Spotify does not answer. Please try again soon."},
    [ERR_UPSTREAM_BUSY] = {503, UNAVAILABLE,
                           "Too many requests to Spotify are under way. Please try again soon."},
    [ERR_MISCONFIGURED] = {503, UNAVAILABLE,
                           "Spotify does not accept this service at the moment. "
                           "Its operator has to look after it."},
    [ERR_DRAINING] = {503, UNAVAILABLE, "The service is restarting. Please try again soon."},

    [ERR_REFUSED] = INTERNAL,
    [ERR_REJECTED] = INTERNAL,
    [ERR_HELD] = INTERNAL,
    [ERR_STALE] = INTERNAL,
    [ERR_USED] = INTERNAL,
    [ERR_SEAL] = INTERNAL,
    [ERR_SEAL_KEY] = INTERNAL,
    [ERR_FORMAT] = INTERNAL,
};

static const struct meaning *find(enum err err)
{
    static const struct meaning unknown = INTERNAL;
    return (size_t)err < ERR__MAX ? &meanings[err] : &unknown;
}

int err_status(enum err err)
{
    return find(err)->status;
}

const char *err_word(enum err err)
{
    return find(err)->word;
}

const char *err_text(enum err err)
{
    return find(err)->text;
}

const char *err_name(enum err err)
{
    static const char *const names[ERR__MAX] = {
        [OK] = "ok",
        [ERR_INVALID_REQUEST] = "invalid_request",
        [ERR_INVALID_SCOPE] = "invalid_scope",
        [ERR_INVALID_GRANT] = "invalid_grant",
        [ERR_INVALID_STATE] = "invalid_state",
        [ERR_FORBIDDEN] = "forbidden",
        [ERR_NOT_FOUND] = "not_found",
        [ERR_METHOD] = "method",
        [ERR_MEDIA_TYPE] = "media_type",
        [ERR_TOO_LARGE] = "too_large",
        [ERR_INSUFFICIENT_SCOPE] = "insufficient_scope",
        [ERR_UNALLOWED_SCOPE] = "unallowed_scope",
        [ERR_INVALID_CLIENT] = "invalid_client",
        [ERR_GRANT_TYPE] = "grant_type",
        [ERR_PENDING] = "pending",
        [ERR_SLOW_DOWN] = "slow_down",
        [ERR_DENIED] = "denied",
        [ERR_EXPIRED] = "expired",
        [ERR_NO_COOKIE] = "no_cookie",
        [ERR_ABSENT] = "absent",
        [ERR_REPLACED] = "replaced",
        [ERR_SUSPECT] = "suspect",
        [ERR_STORE] = "store",
        [ERR_UNREADABLE] = "unreadable",
        [ERR_UPSTREAM] = "upstream",
        [ERR_UPSTREAM_BUSY] = "upstream_busy",
        [ERR_MISCONFIGURED] = "misconfigured",
        [ERR_DRAINING] = "draining",
        [ERR_REFUSED] = "refused",
        [ERR_REJECTED] = "rejected",
        [ERR_HELD] = "held",
        [ERR_STALE] = "stale",
        [ERR_USED] = "used",
        [ERR_SEAL] = "seal",
        [ERR_SEAL_KEY] = "seal_key",
        [ERR_FORMAT] = "format",
    };
    return (size_t)err < ERR__MAX ? names[err] : "unknown";
}
