/* What renewal.c and renewal_lead.c share. Nobody else includes it. */
#ifndef FLOWS_RENEWAL_IMPL_H
#define FLOWS_RENEWAL_IMPL_H

#include "flows/service.h"

/* How often what Redis did not answer is tried again. */
#define RENEWAL_RETRY_MS 100

/* Who has a token that stays valid for so long waits no longer than that for another worker, which
 * may be dead. */
#define RENEWAL_PATIENCE_MS 1000

struct waiter;

/* CALLING: the leader is at R2 to R5, waiters are parked. DONE: err, result and retry_after_s are
 * set. A DONE renewal stays in the table only while its result is unsaved, or its waiters copy it.
 */
struct renewal {
    struct renewal *next;
    struct service *service;
    struct secret secret;
    struct waiter *waiters;
    size_t users;             /* fibers that still look at this */
    uint64_t seen_generation; /* of the session that was to be renewed */
    bool is_urgent;           /* somebody cannot do with the token at hand */
    bool is_probe;            /* goes on by itself while the breaker is open */
    bool is_done;
    bool is_unsaved;
    bool is_shared; /* result is what another worker stored */
    enum err err;
    int64_t retry_after_s;
    struct session result;
    struct lease lease;    /* for the result that is unsaved */
    uint64_t lease_end_ms; /* by this worker's clock, at the earliest */
    uint64_t expected_generation;
    char *replaced_token; /* the refresh token that result's took the place of; NULL: none */
};

/* R2 to R5, by the fiber that began this renewal. OK: result holds the newest tokens, which may
 * have run out; is_unsaved when Redis does not have them yet. Else the errors of renewal_renew,
 * retry_after_s is set. */
enum err renewal_lead(struct renewal *renewal);

/* R5: write result, whose generation may rise by it, and release the lease. Errors of
 * store_commit_session and store_get_session. */
enum err renewal_write(struct renewal *renewal);

/* Spotify refused this session a moment ago: it is not asked again as yet. */
bool renewal_was_refused_just_now(const struct session *session);

#endif
