/* The calls to Spotify by meaning: accounts service (token endpoint) and GET /v1/me. */
#ifndef SPOTIFY_ACCOUNTS_H
#define SPOTIFY_ACCOUNTS_H

#include "base/model.h"
#include "base/settings.h"
#include "spotify/breaker.h"
#include "spotify/upstream.h"

struct accounts {
    struct upstream *upstream;       /* borrowed */
    const struct settings *settings; /* borrowed */
    struct breaker token_breaker;    /* of the accounts service: the callers ask it */
    struct breaker api_breaker;      /* of the Web API */
};

/* upstream is owned by the caller, settings borrowed, both for the life of accounts. */
void accounts_init(struct accounts *accounts, struct upstream *upstream,
                   const struct settings *settings);

/* L5: the URL of Spotify's authorization page (RFC 6749 4.1.1, RFC 7636 4.3), appended to out.
 * challenge NULL: without PKCE. */
struct authorization {
    const char *redirect_uri;
    const char *scope;
    const char *state;
    const char *challenge;
    bool show_dialog;
};
void accounts_format_authorize_url(const struct accounts *accounts,
                                   const struct authorization *authorization, struct buf *out);

/* C3: redeem a code (RFC 6749 4.1.3), with Basic authentication and nothing else of the client in
 * it. verifier NULL: without PKCE. ERR_REFUSED: invalid_grant. ERR_REJECTED: invalid_request, such
 * as for a verifier that is missing. ERR_MISCONFIGURED: any other OAuth error. ERR_UPSTREAM,
 * ERR_UPSTREAM_BUSY: no usable answer; *retry_after_s is Spotify's Retry-After or -1. Called also
 * while token_breaker is open: its user has just come from Spotify, and a code cannot be kept.
 * Tried again within UPSTREAM_TIMEOUT_MS where that is safe (attempt.h). */
enum err accounts_redeem_code(struct accounts *accounts, const char *code, const char *redirect_uri,
                              const char *verifier, struct tokens *tokens, int64_t *retry_after_s);

/* R4: RFC 6749 6. Errors as above, but for an expires_in that says nothing usable: then the answer
 * is handed on with expires_in 0, because its refresh token may be the only one that still works.
 */
enum err accounts_refresh(struct accounts *accounts, const char *refresh_token,
                          struct tokens *tokens, int64_t *retry_after_s);

/* A4: the app's own token (RFC 6749 4.4.2). A refresh_token in the answer is dropped (4.4.3).
 * ERR_MISCONFIGURED for any OAuth error; else as above. */
enum err accounts_get_app_token(struct accounts *accounts, struct tokens *tokens,
                                int64_t *retry_after_s);

/* C4: GET /v1/me. ERR_UPSTREAM for anything but a good answer, and at once while api_breaker is
 * open and no probe is due. */
enum err accounts_get_profile(struct accounts *accounts, const char *access_token,
                              struct profile *profile);

#endif
