/* A breaker for one of Spotify's services: after a row of failures nobody waits for it any more,
 * and single calls find out whether it is back. A state machine over clock values; who asks it
 * keeps to its answer:
 *
 *   closed  every call goes
 *   open    a call goes only as a probe, one about every half second, however long the earlier ones
 *           take: each has its own deadline, so a Spotify that hangs has no more than
 *           UPSTREAM_TIMEOUT_MS / BREAKER_PROBE_MIN_MS of them. The first success closes it. */
#ifndef SPOTIFY_BREAKER_H
#define SPOTIFY_BREAKER_H

#include <stdbool.h>
#include <stdint.h>

#define BREAKER_FAILURES_MAX 5
#define BREAKER_PROBE_MIN_MS 400
#define BREAKER_PROBE_MAX_MS 600
#define BREAKER_LAPSE_MS 30000

/* All zero but for the name: closed. */
struct breaker {
    const char *name; /* of the service, for the log */
    bool is_open;
    unsigned failures; /* in a row, while closed */
    uint64_t success_at_ms;
    uint64_t probe_at_ms; /* when the next probe may go; set while open */
};

bool breaker_is_open(const struct breaker *breaker);

/* Whether a call may go now: true while closed; while open for the one that is due as a probe, and
 * the next is due later by what random, any number, chooses. */
bool breaker_admits(struct breaker *breaker, uint64_t now_ms, uint64_t random);

/* Close it, on trial, when for BREAKER_LAPSE_MS nobody has come who could have been the probe that
 * was due: it knows nothing of now, and that one may as well wait for the answer. The next failure
 * opens it again. True when that closed it. */
bool breaker_lapse(struct breaker *breaker, uint64_t now_ms);

/* Note the outcome of a call that began at begun_ms, admitted or not. A failure of one that began
 * before the last success came says nothing about now: calls that hung all end together, long after
 * Spotify's return. */
enum breaker_change { BREAKER_STAYS, BREAKER_OPENS, BREAKER_CLOSES };
enum breaker_change breaker_note(struct breaker *breaker, bool is_failure, uint64_t begun_ms,
                                 uint64_t now_ms, uint64_t random);

#endif
