/* One renewal at a time for each session (see renewal.h for the steps). The table here joins the
 * requests of one worker; the lease in Redis joins the workers; the generation fences out a worker
 * that comes back late. */
#include "flows/renewal.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fiber.h"
#include "base/log.h"
#include "flows/backoff.h"

/* How often a worker looks whether another's renewal has ended. */
#define POLL_MS 20
/* The lease outlives the call to Spotify by the store's own deadlines and this. */
#define LEASE_MARGIN_MS 2000
/* A suspect session is not tried again within this many seconds, and a second refusal ends it only
 * after so many. */
#define SUSPECT_RETRY_S 60
#define SUSPECT_END_S 300
/* A result that Redis did not take is offered again this often, for so long. */
#define SAVE_RETRY_MS 100
#define SAVE_GIVE_UP_MS ((uint64_t)1800 * 1000)
/* Session ids are random, so their first byte spreads thousands of renewals over so many lists. */
#define BUCKETS 256

struct waiter {
    struct waiter *next;
    struct fiber *fiber;
};

/* CALLING: the leader is at R2 to R5, waiters are parked. DONE: err, result and retry_after_s are
 * set. A DONE renewal stays in the table only while its result is unsaved, or its waiters copy it.
 */
struct renewal {
    struct renewal *next;
    struct service *service;
    struct secret secret;
    struct waiter *waiters;
    size_t users; /* fibers that still look at this */
    bool is_done;
    bool is_unsaved;
    enum err err;
    int64_t retry_after_s;
    struct session result;
    struct lease lease; /* for the result that is unsaved */
    uint64_t expected_generation;
};

struct renewals {
    struct service *service;
    struct renewal *buckets[BUCKETS];
    size_t unsaved;
};

struct renewals *renewals_new(struct service *service)
{
    struct renewals *renewals = xcalloc(1, sizeof(*renewals));
    renewals->service = service;
    return renewals;
}

static void free_renewal(struct renewal *renewal)
{
    session_clear(&renewal->result);
    secret_wipe(&renewal->secret);
    free(renewal);
}

void renewals_free(struct renewals *renewals)
{
    for (size_t i = 0; i < BUCKETS; i++) {
        while (renewals->buckets[i]) {
            struct renewal *renewal = renewals->buckets[i];
            renewals->buckets[i] = renewal->next;
            free_renewal(renewal);
        }
    }
    free(renewals);
}

size_t renewals_unsaved(const struct renewals *renewals)
{
    return renewals->unsaved;
}

static struct renewal **bucket_of(struct renewals *renewals, const struct secret *secret)
{
    return &renewals->buckets[secret->bytes[0]];
}

static struct renewal *find_renewal(struct renewals *renewals, const struct secret *secret)
{
    struct renewal *renewal = *bucket_of(renewals, secret);
    while (renewal && !secret_equal(&renewal->secret, secret)) {
        renewal = renewal->next;
    }
    return renewal;
}

static void drop_if_unused(struct renewals *renewals, struct renewal *renewal)
{
    if (renewal->users > 0) {
        return;
    }
    struct renewal **link = bucket_of(renewals, &renewal->secret);
    while (*link && *link != renewal) {
        link = &(*link)->next;
    }
    if (*link) {
        *link = renewal->next;
    }
    free_renewal(renewal);
}

/* ---- R2, R3 ---- */

static int64_t lease_ms(const struct settings *settings)
{
    return settings->upstream_timeout_ms + 2 * settings->store_timeout_ms + LEASE_MARGIN_MS;
}

/* Wait for the lease as long as a live holder can need. Fills renewal->result with the record as it
 * stands. OK: the lease is ours. ERR_STALE: another worker has renewed it, result is what it stored
 * (R6). */
static enum err take_lease(struct renewal *renewal, uint64_t seen_generation)
{
    const struct settings *settings = renewal->service->settings;
    int64_t duration_ms = lease_ms(settings);
    uint64_t give_up = clock_mono_ms() + (uint64_t)duration_ms + 1000;
    for (;;) {
        struct session current = {0};
        enum err err = store_take_lease(renewal->service->store, &renewal->secret, seen_generation,
                                        duration_ms, &renewal->lease, &current);
        if (err == OK || err == ERR_STALE) {
            session_clear(&renewal->result);
            renewal->result = current;
        }
        if (err != ERR_HELD) {
            return err;
        }
        if (clock_mono_ms() > give_up) {
            return ERR_UPSTREAM;
        }
        fiber_sleep(POLL_MS);
    }
}

static bool was_refused_just_now(const struct session *session)
{
    return session->suspect_since != 0 &&
           clock_unix_s() - session->suspect_tried_at < SUSPECT_RETRY_S;
}

/* ---- R4, and what follows from its answer ---- */

static void release(struct renewal *renewal, bool failed)
{
    (void)store_release_lease(renewal->service->store, &renewal->secret, &renewal->lease, failed);
}

/* Look at the record again: true when somebody wrote new tokens since, which are then the result.
 */
static enum err reload(struct renewal *renewal, bool *is_newer)
{
    struct session current = {0};
    enum err err =
        store_get_session(renewal->service->store, &renewal->secret, STORE_USE, &current);
    if (err != OK) {
        return err;
    }
    *is_newer = current.generation != renewal->expected_generation;
    session_clear(&renewal->result);
    renewal->result = current;
    return OK;
}

/* invalid_grant (API.md 4.6): believed at once at six months of age, else at the second refusal at
 * least five minutes after the first; until then the session is suspect and kept. */
static enum err judge_refusal(struct renewal *renewal)
{
    struct store *store = renewal->service->store;
    struct session *session = &renewal->result;
    bool is_newer = false;
    enum err err = reload(renewal, &is_newer);
    if (err != OK || is_newer) {
        release(renewal, false);
        return err;
    }
    int64_t now = clock_unix_s();
    bool is_old = now - session->authorized_at >= REFRESH_TOKEN_LIFE_S;
    bool is_second = session->suspect_since != 0 && now - session->suspect_since >= SUSPECT_END_S;
    if (is_old || is_second) {
        log_warn("session ended: refused by spotify",
                 LOG_NUMBER("age_s", now - session->authorized_at),
                 LOG_NUMBER("refusals", is_second ? 2 : 1));
        err = store_end_refused_session(store, &renewal->secret, &renewal->lease, session);
        return err == OK || err == ERR_STALE ? ERR_ABSENT : err;
    }
    log_warn("session suspect: refused by spotify",
             LOG_NUMBER("age_s", now - session->authorized_at));
    session->suspect_since = session->suspect_since ? session->suspect_since : now;
    session->suspect_tried_at = now;
    (void)store_commit_session(store, &renewal->secret, &renewal->lease, session->generation,
                               session);
    return ERR_SUSPECT;
}

/* R5. A result that cannot be written now is unsaved: it is handed out all the same, and offered
 * again. */
static enum err commit(struct renewal *renewal)
{
    enum err err = store_commit_session(renewal->service->store, &renewal->secret, &renewal->lease,
                                        renewal->expected_generation, &renewal->result);
    if (err == ERR_STORE) {
        renewal->is_unsaved = true;
        return OK;
    }
    if (err == ERR_STALE) {
        bool is_newer = false;
        return reload(renewal, &is_newer);
    }
    return err;
}

static enum err call_spotify(struct renewal *renewal)
{
    struct service *service = renewal->service;
    struct tokens tokens = {0};
    int64_t retry_after_s = -1;
    enum err err = backoff_check(service, &renewal->retry_after_s);
    if (err != OK) {
        release(renewal, true);
        return err;
    }
    err = accounts_refresh(&service->accounts, renewal->result.refresh_token, &tokens,
                           &retry_after_s);
    if (err == OK) {
        session_take_tokens(&renewal->result, &tokens, clock_unix_s());
        tokens_clear(&tokens);
        return commit(renewal);
    }
    if (err == ERR_REFUSED) {
        return judge_refusal(renewal);
    }
    renewal->retry_after_s = backoff_note(service, retry_after_s);
    release(renewal, true);
    return err;
}

static enum err lead(struct renewal *renewal, uint64_t seen_generation)
{
    enum err err = take_lease(renewal, seen_generation);
    if (err == ERR_STALE) {
        return OK;
    }
    if (err == ERR_UPSTREAM) { /* it failed just now, perhaps because Spotify asked to wait */
        (void)backoff_check(renewal->service, &renewal->retry_after_s);
    }
    if (err != OK) {
        return err;
    }
    if (was_refused_just_now(&renewal->result)) {
        release(renewal, false);
        return ERR_SUSPECT;
    }
    renewal->expected_generation = renewal->result.generation;
    return call_spotify(renewal);
}

/* ---- a result that Redis did not take ---- */

static void save_until_taken(void *argument)
{
    struct renewal *renewal = argument;
    struct renewals *renewals = renewal->service->renewals;
    uint64_t give_up = clock_mono_ms() + SAVE_GIVE_UP_MS;
    enum err err = ERR_STORE;
    while (err == ERR_STORE && clock_mono_ms() < give_up) {
        fiber_sleep(SAVE_RETRY_MS);
        err = store_commit_session(renewal->service->store, &renewal->secret, &renewal->lease,
                                   renewal->expected_generation, &renewal->result);
    }
    if (err == OK) {
        log_info("renewal saved late");
    } else {
        log_error("renewal not saved", LOG_TEXT("reason", err_name(err)));
    }
    renewals->unsaved--;
    renewal->users--;
    drop_if_unused(renewals, renewal);
}

/* ---- R6 ---- */

static void wake_waiters(struct renewal *renewal)
{
    while (renewal->waiters) {
        struct waiter *waiter = renewal->waiters;
        renewal->waiters = waiter->next;
        fiber_wake(waiter->fiber);
    }
}

static void wait_for_leader(struct renewal *renewal)
{
    struct waiter waiter = {renewal->waiters, fiber_self()};
    /* The leader takes it off the list before this returns. */
    /* cppcheck-suppress autoVariables */
    renewal->waiters = &waiter;
    fiber_park();
}

static struct renewal *begin(struct renewals *renewals, const struct secret *secret)
{
    struct renewal *renewal = xcalloc(1, sizeof(*renewal));
    renewal->service = renewals->service;
    renewal->secret = *secret;
    struct renewal **bucket = bucket_of(renewals, secret);
    renewal->next = *bucket;
    *bucket = renewal;
    return renewal;
}

static void end(struct renewals *renewals, struct renewal *renewal)
{
    renewal->is_done = true;
    if (renewal->is_unsaved) {
        log_error("renewal not saved yet: redis does not answer");
        renewals->unsaved++;
        renewal->users++;
        fiber_spawn(save_until_taken, renewal);
    }
    wake_waiters(renewal);
}

enum err renewal_renew(struct renewals *renewals, const struct secret *secret,
                       struct session *session, int64_t *retry_after_s)
{
    enum err err = ERR_SUSPECT;
    *retry_after_s = 0;
    if (!was_refused_just_now(session)) {
        struct renewal *renewal = find_renewal(renewals, secret);
        if (renewal) {
            renewal->users++;
            if (!renewal->is_done) {
                wait_for_leader(renewal);
            }
        } else {
            renewal = begin(renewals, secret);
            renewal->users++;
            renewal->err = lead(renewal, session->generation);
            end(renewals, renewal);
        }
        err = renewal->err;
        *retry_after_s = renewal->retry_after_s;
        if (err == OK) {
            session_clear(session);
            session_copy(&renewal->result, session);
        }
        renewal->users--;
        drop_if_unused(renewals, renewal);
    }
    bool is_final = err == OK || err == ERR_ABSENT || err == ERR_REPLACED;
    return !is_final && session->expires_at > clock_unix_s() ? OK : err;
}
