/* From an authorization code to a stored session: what /callback and /swap have in common (C3 to C5
 * of login.h). */
#ifndef FLOWS_GRANT_H
#define FLOWS_GRANT_H

#include "flows/service.h"

struct code_grant {
    const char *code;
    const char *redirect_uri; /* the one that the code was sent to */
    const char *verifier;     /* NULL: without PKCE */
    const char *scope;        /* asked for; "" where that is not known */
    const char *agent;        /* what logs in, for its user to see; "" or NULL: unknown */
};

/* Redeem the code, read the profile, store the session under secret. OK: *out is that session, and
 * cleared by the caller. ERR_REFUSED, ERR_REJECTED, ERR_MISCONFIGURED: Spotify's no (accounts.h).
 * ERR_STORE, ERR_UPSTREAM, ERR_UPSTREAM_BUSY: *retry_after_s says when to try again (0: unknown);
 * the code may be lost. */
enum err grant_redeem(struct service *service, const struct code_grant *grant,
                      const struct secret *secret, struct session *out, int64_t *retry_after_s);

#endif
