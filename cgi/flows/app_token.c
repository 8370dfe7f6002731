/* One app token for everybody (see app_token.h for the steps). The token at hand serves the
 * requests of this worker; the lease in Redis joins the workers. Sealing and scripts are the
 * store's. */
#include "flows/app_token.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/fiber.h"
#include "base/log.h"
#include "flows/backoff.h"
#include "spotify/attempt.h"

/* A token is due when so much of its life is left, or half of it if that is less. */
#define AHEAD_S 300
/* A token this young is not called for again. */
#define YOUNG_MS 10000
/* How often a worker looks whether another has the token. */
#define POLL_MS 20
/* How often what Redis did not answer is tried again. */
#define RETRY_MS 100
/* The lease outlives the call to Spotify by the store's own deadlines and this. */
#define LEASE_MARGIN_MS 2000
/* After a failure nobody in this worker tries again for so long: while there is a valid token; and
 * while there is none, where the failure is Spotify's. */
#define PAUSE_MS 10000
#define SHORT_PAUSE_MS 500
/* What a caller may be told while nobody waits for Spotify: it is looked for twice a second. */
#define RETRY_AFTER_OPEN_S 1

struct waiter {
    struct waiter *next;
    struct fiber *fiber;
};

/* What Redis has yet to be told: to take a token, or that a lease has no more use. */
struct leftover {
    struct leftover *next;
    struct app_tokens *app;
    struct lease lease;
    uint64_t lease_end_ms;
    int64_t seen_at_ms;
    int64_t token_at_ms; /* of the token to be offered, while it is the one at hand; 0: none */
};

struct app_tokens {
    struct service *service;
    struct app_token token; /* at hand; all zero: none */
    bool is_fetching;       /* A3 to A5 are under way, in a fiber of their own */
    struct waiter *waiters;
    enum err err; /* how the last fetch ended */
    int64_t retry_after_s;
    uint64_t ended_ms;     /* when */
    struct lease lease;    /* of the fetch under way */
    uint64_t lease_end_ms; /* by this worker's clock, at the earliest */
    int64_t seen_at_ms;    /* the token that the fetch is to replace */
    struct leftover *leftovers;
};

struct app_tokens *app_tokens_new(struct service *service)
{
    struct app_tokens *app = xcalloc(1, sizeof(*app));
    app->service = service;
    return app;
}

void app_tokens_free(struct app_tokens *app)
{
    while (app->leftovers) {
        struct leftover *leftover = app->leftovers;
        app->leftovers = leftover->next;
        free(leftover);
    }
    app_token_clear(&app->token);
    free(app);
}

bool app_tokens_busy(const struct app_tokens *app)
{
    return app->is_fetching;
}

static bool is_valid(const struct app_token *token)
{
    return token->access_token && token->expires_at > clock_unix_s();
}

static bool is_due(const struct app_token *token)
{
    int64_t half_s = (token->expires_at - token->obtained_at_ms / 1000) / 2;
    int64_t ahead_s = half_s < AHEAD_S ? half_s : AHEAD_S;
    return !token->access_token || token->expires_at - clock_unix_s() <= ahead_s;
}

/* ---- A6 ---- */

static void wake_waiters(struct app_tokens *app)
{
    while (app->waiters) {
        struct waiter *waiter = app->waiters;
        app->waiters = waiter->next;
        fiber_wake(waiter->fiber);
    }
}

static void wait(struct app_tokens *app)
{
    struct waiter waiter = {app->waiters, fiber_self()};
    /* It is taken off the list before this returns. */
    /* cppcheck-suppress autoVariables */
    app->waiters = &waiter;
    fiber_park();
}

/* Owns token's text from here on. */
static void take_in_hand(struct app_tokens *app, struct app_token token)
{
    app_token_clear(&app->token);
    app->token = token;
    wake_waiters(app);
}

/* ---- what Redis has yet to be told ---- */

static bool is_to_be_offered(const struct leftover *leftover)
{
    const struct app_token *token = &leftover->app->token;
    return leftover->token_at_ms == token->obtained_at_ms && is_valid(token);
}

static void remove_leftover(struct leftover *leftover)
{
    struct leftover **link = &leftover->app->leftovers;
    while (*link != leftover) {
        link = &(*link)->next;
    }
    *link = leftover->next;
    free(leftover);
}

static void settle(void *argument)
{
    struct leftover *leftover = argument;
    struct app_tokens *app = leftover->app;
    struct store *store = app->service->store;
    enum err err = ERR_STORE;
    while (err == ERR_STORE &&
           (is_to_be_offered(leftover) || clock_mono_ms() < leftover->lease_end_ms)) {
        fiber_sleep(RETRY_MS);
        err = is_to_be_offered(leftover)
                  ? store_put_app_token(store, &leftover->lease, leftover->seen_at_ms, &app->token)
                  : store_release_app_lease(store, &leftover->lease, false);
    }
    if (leftover->token_at_ms) {
        log_info("app token saved late", LOG_TEXT("result", err_name(err)));
    }
    remove_leftover(leftover);
}

/* A lease may be ours without our knowledge, since Redis may run a script long after its sender
 * gave up: left alone, it would hold up everybody else until it runs out. */
static void settle_later(struct app_tokens *app, int64_t token_at_ms)
{
    struct leftover *leftover = xcalloc(1, sizeof(*leftover));
    *leftover = (struct leftover){.next = app->leftovers,
                                  .app = app,
                                  .lease = app->lease,
                                  .lease_end_ms = app->lease_end_ms,
                                  .seen_at_ms = app->seen_at_ms,
                                  .token_at_ms = token_at_ms};
    app->leftovers = leftover;
    fiber_spawn(settle, leftover);
}

/* ---- A3 ---- */

static int64_t lease_ms(const struct settings *settings)
{
    return settings->upstream_timeout_ms + 2 * settings->store_timeout_ms + LEASE_MARGIN_MS;
}

/* Another worker's token. True when it is all that was wanted; one that is due, too, is still
 * better than none. */
static bool take_over(struct app_tokens *app, struct app_token *found)
{
    bool is_enough = is_valid(found) && !is_due(found);
    app->seen_at_ms = found->obtained_at_ms;
    if (is_enough || (is_valid(found) && !is_valid(&app->token))) {
        take_in_hand(app, *found);
    } else {
        app_token_clear(found);
    }
    return is_enough;
}

/* OK: the lease is ours. ERR_STALE: another worker's token is at hand. Waits for the lease as long
 * as a live holder can need. */
static enum err take_lease(struct app_tokens *app)
{
    int64_t duration_ms = lease_ms(app->service->settings);
    uint64_t give_up = clock_mono_ms() + (uint64_t)duration_ms + 1000;
    app->seen_at_ms = app->token.obtained_at_ms;
    app->lease = (struct lease){0};
    for (;;) {
        struct app_token found = {0};
        app->lease_end_ms = clock_mono_ms() + (uint64_t)duration_ms;
        enum err err = store_take_app_lease(app->service->store, app->seen_at_ms, duration_ms,
                                            &app->lease, &found);
        if (err == ERR_STALE && take_over(app, &found)) {
            return ERR_STALE;
        }
        if (err == ERR_STORE) {
            settle_later(app, 0);
        }
        if (err != ERR_STALE && err != ERR_HELD) {
            return err;
        }
        if (clock_mono_ms() > give_up) {
            return ERR_UPSTREAM;
        }
        fiber_sleep(POLL_MS);
    }
}

/* ---- A4, A5 ---- */

/* This process may have stood still since it took the lease: others are calling by now. */
static bool lease_outlasts_call(const struct app_tokens *app)
{
    int64_t timeout_ms = app->service->settings->upstream_timeout_ms;
    return clock_mono_ms() + (uint64_t)timeout_ms <= app->lease_end_ms;
}

static enum err call_spotify(struct app_tokens *app, struct tokens *tokens)
{
    struct service *service = app->service;
    int64_t retry_after_s = -1;
    enum err err = backoff_check(service, &app->retry_after_s);
    if (err != OK || !lease_outlasts_call(app)) {
        return ERR_UPSTREAM;
    }
    err = accounts_get_app_token(&service->accounts, tokens, &retry_after_s);
    if (err != OK) {
        app->retry_after_s = backoff_note(service, retry_after_s);
    }
    return err;
}

static void store_token(struct app_tokens *app)
{
    if (store_put_app_token(app->service->store, &app->lease, app->seen_at_ms, &app->token) ==
        ERR_STORE) {
        log_error("app token not saved yet: redis does not answer");
        settle_later(app, app->token.obtained_at_ms);
    }
}

static enum err renew(struct app_tokens *app)
{
    struct tokens tokens = {0};
    enum err err = call_spotify(app, &tokens);
    if (err != OK) {
        if (store_release_app_lease(app->service->store, &app->lease, true) == ERR_STORE) {
            settle_later(app, 0);
        }
        return err;
    }
    int64_t now_ms = clock_unix_ms();
    struct app_token token = {.access_token = tokens.access_token,
                              .obtained_at_ms = now_ms,
                              .expires_at = now_ms / 1000 + tokens.expires_in};
    tokens.access_token = NULL;
    tokens_clear(&tokens);
    take_in_hand(app, token); /* first, so that nobody here waits for Redis */
    store_token(app);
    return OK;
}

static enum err fetch(struct app_tokens *app)
{
    enum err err = take_lease(app);
    if (err == ERR_STALE) {
        return OK;
    }
    if (err == ERR_UPSTREAM) { /* it failed just now, perhaps because Spotify asked to wait */
        (void)backoff_check(app->service, &app->retry_after_s);
    }
    return err == OK ? renew(app) : err;
}

static bool is_paused(const struct app_tokens *app)
{
    uint64_t since_ms = clock_mono_ms() - app->ended_ms;
    if (app->err == OK) {
        return false;
    }
    if (is_valid(&app->token)) {
        return since_ms < PAUSE_MS;
    }
    /* Redis may be back at once. */
    return app->err != ERR_STORE && since_ms < SHORT_PAUSE_MS;
}

static void run_fetch(void *argument)
{
    struct app_tokens *app = argument;
    app->retry_after_s = 0;
    app->err = fetch(app);
    if (app->err != OK) {
        log_warn("no new app token", LOG_TEXT("reason", err_name(app->err)));
    }
    app->ended_ms = clock_mono_ms();
    app->is_fetching = false;
    wake_waiters(app);
}

/* ---- A1, A2 ---- */

static void begin_fetch(struct app_tokens *app, bool is_open)
{
    struct breaker *breaker = &app->service->accounts.token_breaker;
    if (app->is_fetching || is_paused(app) ||
        (is_open && !breaker_admits(breaker, clock_mono_ms(), clock_mono_us()))) {
        return;
    }
    app->is_fetching = true;
    fiber_spawn(run_fetch, app);
}

/* Begin a fetch, or join the one under way, and wait for it unless the token at hand will do. */
static void improve(struct app_tokens *app, bool is_open, int64_t unwanted_at_ms)
{
    begin_fetch(app, is_open);
    while (app->is_fetching && !is_open &&
           (!is_valid(&app->token) || app->token.obtained_at_ms == unwanted_at_ms)) {
        wait(app);
    }
}

enum err app_token_get(struct service *service, enum app_token_wish wish, struct app_token *out,
                       int64_t *retry_after_s)
{
    struct app_tokens *app = service->app_tokens;
    /* Of a clock that was set back, too, for then nothing is known of its age. */
    int64_t age_ms = llabs(clock_unix_ms() - app->token.obtained_at_ms);
    bool is_unwanted = wish == APP_TOKEN_NOW && age_ms >= YOUNG_MS;
    int64_t unwanted_at_ms = is_unwanted ? app->token.obtained_at_ms : -1;
    struct breaker *breaker = &service->accounts.token_breaker;
    attempt_lapse(breaker);
    bool is_open = breaker_is_open(breaker); /* then a fetch is a probe, and nobody waits for it */
    bool is_joined = app->is_fetching;
    if (is_unwanted || is_due(&app->token)) {
        improve(app, is_open, unwanted_at_ms);
    }
    if (is_joined && app->token.obtained_at_ms == unwanted_at_ms) {
        improve(app, is_open, unwanted_at_ms); /* that one was the unwanted token's own */
    }
    if (!is_valid(&app->token)) {
        *retry_after_s =
            is_open && app->retry_after_s == 0 ? RETRY_AFTER_OPEN_S : app->retry_after_s;
        return app->err != OK ? app->err : ERR_UPSTREAM;
    }
    *retry_after_s = 0;
    *out = app->token;
    out->access_token = xstrdup(app->token.access_token);
    return OK;
}
