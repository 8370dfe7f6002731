/* Renewal of a session's access token: however many requests, workers and machines find it expired,
 * one of them calls Spotify and all get its result. The steps, cited in the code:
 *   R1  load; fresh enough: done (the caller)
 *   R2  join the renewal under way in this worker, or take the lease: SET NX PX with an owner, for
 *       longer than the call may take
 *   R3  with the lease, the record as it stands now
 *   R4  call Spotify
 *   R5  one script: write and release, if the generation is unchanged
 *   R6  everybody who waits, in every worker, gets the result; who waits for a holder that died
 *       takes over */
#ifndef FLOWS_RENEWAL_H
#define FLOWS_RENEWAL_H

#include "flows/service.h"

struct renewals;

struct renewals *renewals_new(struct service *service);
void renewals_free(struct renewals *renewals);

/* Renewed tokens that Redis does not have yet: they exist nowhere else, so a draining worker waits
 * for them. */
size_t renewals_unsaved(const struct renewals *renewals);

/* Renewals under way that no request waits for, since the breaker is open: a draining worker waits
 * for them too, as Spotify may be about to answer one. */
size_t renewals_probes(const struct renewals *renewals);

/* Renew *session, which the caller loaded (R1), and fill it anew. is_wanted: the caller asks for a
 * new token; else one that is still valid does not wait long for another worker's renewal. OK also
 * when the renewal failed for now but the token at hand is still valid. At once while
 * accounts.token_breaker is open: the renewal may go on as its probe, without this request. Else
 * ERR_ABSENT, ERR_REPLACED: it was ended; ERR_SUSPECT: refused by Spotify, kept; ERR_STORE,
 * ERR_UNREADABLE, ERR_UPSTREAM, ERR_UPSTREAM_BUSY, ERR_MISCONFIGURED: try again later,
 * *retry_after_s says when (0: unknown). Only inside a fiber. */
enum err renewal_renew(struct renewals *renewals, const struct secret *secret, bool is_wanted,
                       struct session *session, int64_t *retry_after_s);

#endif
