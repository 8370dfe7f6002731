/* Handles: what a phone or a terminal keeps instead of Spotify's refresh token. A handle is a
 * secret H of 256 bits in base64url. Its record is a session's in every way (lease, renewal,
 * expiry, the user's other sessions), under the secret that is derived from H: so a handle is no
 * session cookie, and no session cookie a handle. It stays the same when Spotify's refresh token
 * changes. */
#ifndef FLOWS_HANDLE_H
#define FLOWS_HANDLE_H

#include "flows/grant.h"
#include "flows/session.h"

/* The secret under which the record of that handle is stored. */
void handle_derive(const struct secret *handle, struct secret *out);

/* The record of that handle with a token that can be used (R1 to R6). On OK *out is cleared by the
 * caller. ERR_INVALID_GRANT: it is none of ours, has ended, or Spotify refuses it (API.md 4.6: the
 * record is kept while that may be false). Else errors that say try again; reply->retry_after_s is
 * set. */
enum err handle_load(struct service *service, const struct secret *handle, enum freshness freshness,
                     struct reply *reply, struct session *out);

/* Redeem a code that a phone brings, for a new handle, and answer with both tokens.
 * ERR_INVALID_GRANT: Spotify refuses the code. ERR_INVALID_REQUEST: it misses something, such as
 * the verifier. Else errors that say try again; reply->retry_after_s is set. */
enum err handle_swap(struct service *service, const struct code_grant *grant, struct reply *reply);

/* Answer with a fresh access token of the handle in text. Errors of handle_load. */
enum err handle_refresh(struct service *service, const char *text, struct reply *reply);

#endif
