/* One renewal at a time for each session (see renewal.h for the steps). The table here joins the
 * requests of one worker; the lease in Redis joins the workers; the generation fences out a worker
 * that comes back late. While the breaker is open, nobody waits and one renewal at a time finds out
 * whether Spotify is back. */
#include "flows/renewal.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fiber.h"
#include "base/log.h"
#include "base/metrics.h"
#include "flows/backoff.h"
#include "flows/renewal_impl.h"
#include "spotify/attempt.h"

/* A result that Redis did not take is offered again for so long. */
#define SAVE_GIVE_UP_MS ((uint64_t)1800 * 1000)
/* After a renewal that failed slowly, a token that is still valid is handed out at once for so
 * long, instead of making each request wait for a Spotify that does not answer. */
#define SLOW_FAILURE_MS 1000
#define SLOW_FAILURE_KEPT_MS 15000
#define SUFFERERS 256
/* While the breaker is open: a probe may have closed it by then. */
#define RETRY_AFTER_OPEN_S 1
/* Session ids are random, so their first byte spreads thousands of renewals over so many lists. */
#define BUCKETS 256

struct waiter {
    struct waiter *next;
    struct fiber *fiber;
};

/* A session whose renewal took long to fail. */
struct sufferer {
    uint64_t id; /* the first bytes of its secret */
    uint64_t until_ms;
};

struct renewals {
    struct service *service;
    struct renewal *buckets[BUCKETS];
    struct sufferer sufferers[SUFFERERS];
    size_t unsaved;
    size_t probes; /* under way */
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
    xfree_secret(renewal->replaced_token);
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

size_t renewals_probes(const struct renewals *renewals)
{
    return renewals->probes;
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

/* ---- a result that Redis did not take ---- */

static void save_until_taken(void *argument)
{
    struct renewal *renewal = argument;
    struct renewals *renewals = renewal->service->renewals;
    uint64_t give_up = clock_mono_ms() + SAVE_GIVE_UP_MS;
    enum err err = ERR_STORE;
    while (err == ERR_STORE && clock_mono_ms() < give_up) {
        fiber_sleep(RENEWAL_RETRY_MS);
        err = renewal_write(renewal);
    }
    if (err == OK) {
        log_info("renewal saved late");
    } else {
        log_error("renewal not saved", LOG_TEXT("reason", err_name(err)));
    }
    renewals->unsaved--;
    metrics_add(METRIC_RENEWALS_UNSAVED, 0, -1);
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
    metrics_add(METRIC_RENEWAL_WAITERS, METRIC_WAITER_OWN_WORKER, 1);
    fiber_park();
    metrics_add(METRIC_RENEWAL_WAITERS, METRIC_WAITER_OWN_WORKER, -1);
}

static struct sufferer *find_sufferer(struct renewals *renewals, const struct secret *secret)
{
    uint64_t id;
    memcpy(&id, secret->bytes, sizeof(id));
    struct sufferer *sufferer = &renewals->sufferers[id % SUFFERERS];
    if (sufferer->id != id) {
        *sufferer = (struct sufferer){.id = id};
    }
    return sufferer;
}

static struct renewal *begin(struct renewals *renewals, const struct secret *secret,
                             uint64_t seen_generation)
{
    struct renewal *renewal = xcalloc(1, sizeof(*renewal));
    renewal->service = renewals->service;
    renewal->secret = *secret;
    renewal->seen_generation = seen_generation;
    renewal->users = 1;
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
        metrics_add(METRIC_RENEWALS_UNSAVED, 0, 1);
        renewal->users++;
        fiber_spawn(save_until_taken, renewal);
    }
    wake_waiters(renewal);
}

static void count_end(const struct renewal *renewal)
{
    const struct settings *settings = renewal->service->settings;
    if (renewal->err != OK) {
        metrics_count_word(METRIC_RENEWALS, err_name(renewal->err));
    } else if (renewal->is_shared) {
        metrics_count(METRIC_RENEWALS, METRIC_RENEWAL_SHARED);
    } else {
        metrics_count(METRIC_RENEWALS, METRIC_RENEWAL_RENEWED);
        metrics_observe_reauth(renewal->result.authorized_at +
                               settings_authorization_life_s(settings) - clock_unix_s());
    }
}

static void lead(struct renewals *renewals, struct renewal *renewal)
{
    uint64_t begun_ms = clock_mono_ms();
    renewal->err = renewal_lead(renewal);
    count_end(renewal);
    if (renewal->err != OK && clock_mono_ms() - begun_ms >= SLOW_FAILURE_MS) {
        find_sufferer(renewals, &renewal->secret)->until_ms =
            clock_mono_ms() + SLOW_FAILURE_KEPT_MS;
    }
    end(renewals, renewal);
}

static void leave(struct renewals *renewals, struct renewal *renewal)
{
    renewal->users--;
    drop_if_unused(renewals, renewal);
}

/* R2, R6: the renewal that is under way in this worker, or one that this fiber leads; when it is
 * done. The caller is one of its users. */
static struct renewal *join(struct renewals *renewals, const struct secret *secret,
                            uint64_t seen_generation, bool is_urgent)
{
    struct renewal *renewal = find_renewal(renewals, secret);
    if (renewal) {
        renewal->users++;
        renewal->is_urgent |= is_urgent;
        if (!renewal->is_done) {
            wait_for_leader(renewal);
        }
        return renewal;
    }
    renewal = begin(renewals, secret, seen_generation);
    renewal->is_urgent = is_urgent;
    lead(renewals, renewal);
    return renewal;
}

static enum err take_part(struct renewals *renewals, const struct secret *secret, bool is_urgent,
                          struct session *session, int64_t *retry_after_s)
{
    struct renewal *renewal = join(renewals, secret, session->generation, is_urgent);
    enum err err = renewal->err;
    *retry_after_s = renewal->retry_after_s;
    if (err == OK) {
        session_clear(session);
        session_copy(&renewal->result, session);
    }
    leave(renewals, renewal);
    return err;
}

/* ---- while the breaker is open ---- */

static void run_probe(void *argument)
{
    struct renewal *renewal = argument;
    struct renewals *renewals = renewal->service->renewals;
    struct log_context context = {0};
    char name[SECRET_NAME_LEN + 1];
    fiber_set_local(&context);
    session_name(&renewal->secret, name);
    log_note_session(name);
    lead(renewals, renewal);
    renewals->probes--;
    leave(renewals, renewal);
}

/* Whether a renewal would have to wait for a Spotify that does not answer. A result that only Redis
 * has yet to take is there for all. */
static bool is_held_back(struct renewals *renewals, const struct secret *secret)
{
    struct breaker *breaker = &renewals->service->accounts.token_breaker;
    const struct renewal *renewal = find_renewal(renewals, secret);
    attempt_lapse(breaker);
    return breaker_is_open(breaker) && !(renewal && renewal->is_done);
}

/* Nobody waits. Where a probe is due, this renewal is it and goes on by itself; not in a worker
 * that drains, which would wait for one after the other until its deadline. */
static enum err hold_back(struct renewals *renewals, const struct secret *secret,
                          uint64_t seen_generation, int64_t *retry_after_s)
{
    struct service *service = renewals->service;
    if (backoff_check(service, retry_after_s) != OK) {
        return ERR_UPSTREAM;
    }
    *retry_after_s = RETRY_AFTER_OPEN_S;
    if (!service->draining && !find_renewal(renewals, secret) &&
        breaker_admits(&service->accounts.token_breaker, clock_mono_ms(), clock_mono_us())) {
        struct renewal *renewal = begin(renewals, secret, seen_generation);
        renewal->is_probe = true;
        renewals->probes++;
        fiber_spawn(run_probe, renewal);
    } else {
        metrics_count(METRIC_RENEWALS, METRIC_RENEWAL_HELD_BACK);
    }
    return ERR_UPSTREAM;
}

enum err renewal_renew(struct renewals *renewals, const struct secret *secret, bool is_wanted,
                       struct session *session, int64_t *retry_after_s)
{
    enum err err;
    *retry_after_s = 0;
    int64_t left_s = session->expires_at - clock_unix_s();
    bool is_urgent = is_wanted || left_s <= RENEWAL_PATIENCE_MS / 1000 + 1;
    if (left_s > 0 && clock_mono_ms() < find_sufferer(renewals, secret)->until_ms) {
        return OK;
    }
    if (renewal_was_refused_just_now(session)) {
        err = ERR_SUSPECT;
    } else if (is_held_back(renewals, secret)) {
        err = hold_back(renewals, secret, session->generation, retry_after_s);
    } else {
        err = take_part(renewals, secret, is_urgent, session, retry_after_s);
    }
    if (err == ERR_ABSENT || err == ERR_REPLACED) {
        return err;
    }
    if (session->expires_at > clock_unix_s()) {
        return OK;
    }
    /* A result may be of no use: Spotify gave it no life time, or it has run out before Redis took
     * it or before we came to see what another worker stored. */
    return err == OK ? ERR_UPSTREAM : err;
}
