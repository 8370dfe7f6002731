/* One renewal from its lease to its end: who may call Spotify, and what follows from the answer (R2
 * to R5 of renewal.h). Who waits for it is renewal.c's business. */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/fiber.h"
#include "base/log.h"
#include "base/metrics.h"
#include "flows/backoff.h"
#include "flows/refusals.h"
#include "flows/renewal_impl.h"

/* A worker that waits for another's renewal looks again after this part of its wait so far, between
 * these bounds: with Spotify slow, many of them wait, and Redis has other things to do. */
#define POLL_PART 8
#define POLL_MIN_MS 20
#define POLL_MAX_MS 250
/* The lease outlives the call to Spotify by the store's own deadlines and this. */
#define LEASE_MARGIN_MS 2000
/* A suspect session is not tried again within this many seconds, and a second refusal ends it only
 * after so many. */
#define SUSPECT_RETRY_S 60
#define SUSPECT_END_S 300

bool renewal_was_refused_just_now(const struct session *session)
{
    /* What is yet to come was noted by a clock that was ahead, and says nothing. */
    int64_t ago_s = clock_unix_s() - session->suspect_tried_at;
    return session->suspect_since != 0 && ago_s >= 0 && ago_s < SUSPECT_RETRY_S;
}

/* ---- R2, R3 ---- */

static int64_t lease_ms(const struct settings *settings)
{
    return settings->upstream_timeout_ms + 2 * settings->store_timeout_ms + LEASE_MARGIN_MS;
}

/* A lease to be released once Redis answers again. */
struct leftover {
    struct service *service;
    struct secret secret;
    struct lease lease;
};

static void release_leftover(void *argument)
{
    struct leftover *leftover = argument;
    struct service *service = leftover->service;
    uint64_t give_up = clock_mono_ms() + (uint64_t)lease_ms(service->settings);
    enum err err = ERR_STORE;
    while (err == ERR_STORE && clock_mono_ms() < give_up) {
        fiber_sleep(RENEWAL_RETRY_MS);
        err = store_release_lease(service->store, &leftover->secret, &leftover->lease, false);
    }
    secret_wipe(&leftover->secret);
    free(leftover);
}

/* Redis may run a script long after its sender gave up, so a lease may be ours without our
 * knowledge; left alone, it would hold up this session's renewals until it runs out. */
static void release_later(const struct renewal *renewal)
{
    struct leftover *leftover = xcalloc(1, sizeof(*leftover));
    leftover->service = renewal->service;
    leftover->secret = renewal->secret;
    leftover->lease = renewal->lease;
    fiber_spawn(release_leftover, leftover);
}

static void release(const struct renewal *renewal, bool failed)
{
    if (store_release_lease(renewal->service->store, &renewal->secret, &renewal->lease, failed) ==
        ERR_STORE) {
        release_later(renewal);
    }
}

static unsigned poll_ms(uint64_t waited_ms)
{
    uint64_t part_ms = waited_ms / POLL_PART;
    if (part_ms < POLL_MIN_MS) {
        return POLL_MIN_MS;
    }
    return part_ms < POLL_MAX_MS ? (unsigned)part_ms : POLL_MAX_MS;
}

/* Wait for the lease as long as a live holder can need, where that is urgent. Fills renewal->result
 * with the record as it stands. OK: the lease is ours. ERR_STALE: another worker has renewed it,
 * result is what it stored (R6). */
static enum err take_lease(struct renewal *renewal)
{
    const struct settings *settings = renewal->service->settings;
    int64_t duration_ms = lease_ms(settings);
    uint64_t begun_ms = clock_mono_ms();
    for (;;) {
        struct session current = {0};
        renewal->lease_end_ms = clock_mono_ms() + (uint64_t)duration_ms;
        enum err err =
            store_take_lease(renewal->service->store, &renewal->secret, renewal->seen_generation,
                             duration_ms, &renewal->lease, &current);
        if (err == OK || err == ERR_STALE) {
            session_clear(&renewal->result);
            renewal->result = current;
        }
        if (err == ERR_STORE) {
            release_later(renewal);
        }
        if (err != ERR_HELD) {
            return err;
        }
        int64_t patience_ms = renewal->is_urgent ? duration_ms + 1000 : RENEWAL_PATIENCE_MS;
        uint64_t waited_ms = clock_mono_ms() - begun_ms;
        if (waited_ms >= (uint64_t)patience_ms) {
            return ERR_UPSTREAM;
        }
        metrics_add(METRIC_RENEWAL_WAITERS, METRIC_WAITER_OTHER_WORKER, 1);
        fiber_sleep(poll_ms(waited_ms));
        metrics_add(METRIC_RENEWAL_WAITERS, METRIC_WAITER_OTHER_WORKER, -1);
    }
}

/* ---- R4, and what follows from its answer ---- */

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
    renewal->is_shared = *is_newer;
    session_clear(&renewal->result);
    renewal->result = current;
    return OK;
}

/* Somebody wrote or took the lease between our look and our write: newer tokens are the result,
 * else the next request may try again. */
static enum err follow_other(struct renewal *renewal)
{
    bool is_newer = false;
    enum err err = reload(renewal, &is_newer);
    return err == OK && !is_newer ? ERR_UPSTREAM : err;
}

/* API.md 4.6: a refusal is believed at once at six months of age, else when it is the second, at
 * least five minutes after the first; and none while most renewals are refused. */
static bool is_believed(struct service *service, const struct session *session)
{
    bool is_mass = true;
    int64_t now = clock_unix_s();
    bool is_old = now - session->authorized_at >= REFRESH_TOKEN_LIFE_S;
    bool is_second = session->suspect_since != 0 && now - session->suspect_since >= SUSPECT_END_S;
    return (is_old || is_second) && refusals_look(service, &is_mass) == OK && !is_mass;
}

static enum err end_session(struct renewal *renewal)
{
    const struct session *session = &renewal->result;
    enum err err = store_end_refused_session(renewal->service->store, &renewal->secret,
                                             &renewal->lease, session);
    if (err == ERR_STALE) {
        release(renewal, false);
        return follow_other(renewal);
    }
    if (err == ERR_STORE) {
        release_later(renewal);
    }
    if (err == OK) {
        metrics_count(METRIC_SESSIONS_ENDED, METRIC_ENDED_REFUSED);
        log_warn("session ended: refused by spotify",
                 LOG_NUMBER("age_s", clock_unix_s() - session->authorized_at));
    }
    return err == OK ? ERR_ABSENT : err;
}

/* Kept, in case the refusal was a false one. */
static enum err mark_suspect(struct renewal *renewal)
{
    struct session *session = &renewal->result;
    int64_t now = clock_unix_s();
    if (session->suspect_since == 0 || session->suspect_since > now) {
        session->suspect_since = now;
    }
    session->suspect_tried_at = now;
    log_warn("session suspect: refused by spotify",
             LOG_NUMBER("age_s", now - session->authorized_at));
    enum err err = store_commit_session(renewal->service->store, &renewal->secret, &renewal->lease,
                                        session->generation, session);
    if (err == ERR_STALE) {
        release(renewal, false);
        return follow_other(renewal);
    }
    if (err == ERR_STORE) {
        release_later(renewal);
    }
    return err == ERR_ABSENT || err == ERR_REPLACED ? err : ERR_SUSPECT;
}

/* invalid_grant: only after the record was read again and found unchanged. */
static enum err judge_refusal(struct renewal *renewal)
{
    bool is_newer = false;
    enum err err = reload(renewal, &is_newer);
    if (err != OK || is_newer) {
        release(renewal, false);
        return err;
    }
    store_note_verdict(renewal->service->store, &renewal->secret, true);
    return is_believed(renewal->service, &renewal->result) ? end_session(renewal)
                                                           : mark_suspect(renewal);
}

static void take_tokens(struct renewal *renewal, const struct tokens *tokens)
{
    char *sent = xstrdup(renewal->result.refresh_token);
    session_take_tokens(&renewal->result, tokens, clock_unix_s());
    if (strcmp(sent, renewal->result.refresh_token) != 0) {
        renewal->replaced_token = sent;
    } else {
        xfree_secret(sent);
    }
}

/* After ERR_STALE. When the refresh token in the store is still the one that Spotify has replaced
 * by ours, it came with an earlier answer, and to leave it there would end the session: true, and
 * ours is to follow it. The lease is kept meanwhile, so that nobody sends the replaced one. */
static bool is_earlier_answer(struct renewal *renewal, enum err *err)
{
    struct session current = {0};
    enum err found =
        store_get_session(renewal->service->store, &renewal->secret, STORE_LOOK, &current);
    if (found != OK) {
        *err = found;
        return false;
    }
    bool is_earlier = strcmp(current.refresh_token, renewal->replaced_token) == 0;
    if (is_earlier) {
        renewal->expected_generation = current.generation;
        renewal->result.generation = current.generation + 1;
    }
    session_clear(&current);
    return is_earlier;
}

enum err renewal_write(struct renewal *renewal)
{
    enum err err;
    do {
        err = store_commit_session(renewal->service->store, &renewal->secret, &renewal->lease,
                                   renewal->expected_generation, &renewal->result);
    } while (err == ERR_STALE && renewal->replaced_token && is_earlier_answer(renewal, &err));
    if (err == ERR_STALE) {
        release(renewal, false);
    }
    return err;
}

/* R5. A result that cannot be written now is unsaved: it is handed out all the same, and offered
 * again. */
static enum err commit(struct renewal *renewal)
{
    enum err err = renewal_write(renewal);
    if (err == ERR_STORE) {
        renewal->is_unsaved = true;
        return OK;
    }
    return err == ERR_STALE ? follow_other(renewal) : err;
}

/* R4: this process may have stood still since it took the lease. A call that outlives its lease can
 * be the second one with the same refresh token, which under rotation ends the session. */
static bool lease_outlasts_call(const struct renewal *renewal)
{
    int64_t timeout_ms = renewal->service->settings->upstream_timeout_ms;
    return clock_mono_ms() + (uint64_t)timeout_ms <= renewal->lease_end_ms;
}

static enum err call_spotify(struct renewal *renewal)
{
    struct service *service = renewal->service;
    struct tokens tokens = {0};
    int64_t retry_after_s = -1;
    enum err err = backoff_check(service, &renewal->retry_after_s);
    if (err == OK && !renewal->is_probe && breaker_is_open(&service->accounts.token_breaker)) {
        err = ERR_UPSTREAM; /* it opened while we waited for the lease */
    }
    if (err != OK) {
        release(renewal, true);
        return err;
    }
    if (!lease_outlasts_call(renewal)) {
        log_warn("renewal not begun: its lease is too short by now");
        release(renewal, false);
        return ERR_UPSTREAM;
    }
    err = accounts_refresh(&service->accounts, renewal->result.refresh_token, &tokens,
                           &retry_after_s);
    if (err == OK) {
        store_note_verdict(service->store, &renewal->secret, false);
        take_tokens(renewal, &tokens);
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

enum err renewal_lead(struct renewal *renewal)
{
    enum err err = take_lease(renewal);
    if (err == ERR_STALE) {
        renewal->is_shared = true;
        return OK;
    }
    if (err == ERR_UPSTREAM) { /* it failed just now, perhaps because Spotify asked to wait */
        (void)backoff_check(renewal->service, &renewal->retry_after_s);
    }
    if (err != OK) {
        return err;
    }
    if (renewal_was_refused_just_now(&renewal->result)) {
        release(renewal, false);
        return ERR_SUSPECT;
    }
    renewal->expected_generation = renewal->result.generation;
    return call_spotify(renewal);
}
