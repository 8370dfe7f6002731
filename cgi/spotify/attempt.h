/* Calls to Spotify as the breaker of their service hears them, and further tries of one that failed
 * without harm. */
#ifndef SPOTIFY_ATTEMPT_H
#define SPOTIFY_ATTEMPT_H

#include "spotify/breaker.h"
#include "spotify/upstream.h"

#define ATTEMPTS_MAX 3

/* breaker_lapse, with its log line: before an open breaker is asked. */
void attempt_lapse(struct breaker *breaker);

/* upstream_call, and breaker notes the outcome: a failure is ERR_UPSTREAM or a status from 500 on.
 * Logs when that opens or closes it. While it is open, the call takes a connection of its own: the
 * kept ones may be dead. */
enum err attempt_once(struct upstream *upstream, struct breaker *breaker,
                      const struct upstream_call *call, struct upstream_answer *answer);

/* The same for a POST, tried up to ATTEMPTS_MAX times within call->timeout_ms: again only after a
 * failure in which nothing was sent, or a 502 or 503 without Retry-After, while breaker is closed.
 * Errors and answer are those of the last try. */
enum err attempt_call(struct upstream *upstream, struct breaker *breaker,
                      const struct upstream_call *call, struct upstream_answer *answer);

#endif
