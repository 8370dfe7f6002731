/* The app's own token, by Client Credentials (RFC 6749 4.4): one for all workers and machines,
 * called for by one of them, and early, so that nobody waits for it while there is an old one. The
 * steps, cited in the code:
 *   A1  the token that this worker has at hand: handed out as long as it is valid; once it is due
 *       (5 minutes are left), the next steps go on beside the requests
 *   A2  join what is under way in this worker, or begin it; while Spotify is known to be away (the
 *       breaker is open) it is a probe, for which nobody waits
 *   A3  one script: another worker's newer token is taken over; else the lease, SET NX PX with an
 *       owner, for longer than the call may take; else wait for its holder
 *   A4  call Spotify
 *   A5  one script: write, sealed, and release
 *   A6  everybody who waits, in every worker, gets the token; who waits for a holder that died
 *       takes over; a token that Redis does not take is handed out all the same, and offered again
 * A record that is lost or does not open costs one call, nothing else. In Redis it is sealed under
 * the key ring and a hash of the app's client id and secret, since no browser holds a secret for
 * it: Redis alone, or with the key ring, opens nothing; the whole configuration of a worker does.
 */
#ifndef FLOWS_APP_TOKEN_H
#define FLOWS_APP_TOKEN_H

#include "flows/service.h"

struct app_tokens;

struct app_tokens *app_tokens_new(struct service *service);
void app_tokens_free(struct app_tokens *app);

/* True while A3 to A5 are under way: a worker that ends would leave its lease behind. */
bool app_tokens_busy(const struct app_tokens *app);

/* APP_TOKEN_AHEAD: the token at hand as long as it is valid. APP_TOKEN_NOW: another one than that
 * at hand, because Spotify's Web API does not take it; as it is when it is younger than 10 s, or
 * valid and there is no other to be had. */
enum app_token_wish { APP_TOKEN_AHEAD, APP_TOKEN_NOW };

/* OK: *out is filled and valid, the caller clears it. Else there is no valid token: ERR_STORE,
 * ERR_UPSTREAM, ERR_UPSTREAM_BUSY, ERR_MISCONFIGURED; *retry_after_s says when to try again (0:
 * unknown). Only inside a fiber. */
enum err app_token_get(struct service *service, enum app_token_wish wish, struct app_token *out,
                       int64_t *retry_after_s);

#endif
