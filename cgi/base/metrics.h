/* What the service counts, for GET /metrics (Prometheus text format 0.0.4). Every worker has a slot
 * of cells of its own in memory that all of them share, and is the only one who writes to it, so a
 * count is one plain add; whoever answers /metrics sums the slots. A label is always a value of an
 * enum below, never text from a request, from Spotify or from Redis. */
#ifndef BASE_METRICS_H
#define BASE_METRICS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

/* ---- labels; the words for them are in metrics_table.c ---- */

enum metric_route {
    METRIC_ROUTE_UNKNOWN,
    METRIC_ROUTE_AUTHORIZE,
    METRIC_ROUTE_CALLBACK,
    METRIC_ROUTE_SESSION,
    METRIC_ROUTE_TOKEN,
    METRIC_ROUTE_REFRESH,
    METRIC_ROUTE_SESSIONS,
    METRIC_ROUTE_LOGOUT,
    METRIC_ROUTE_API_TOKEN,
    METRIC_ROUTE_VERIFY,
    METRIC_ROUTE_SWAP,
    METRIC_ROUTE_SWAP_REFRESH,
    METRIC_ROUTE_DEVICE,
    METRIC_ROUTE_VERIFY_APP,
    METRIC_ROUTE_PREFLIGHT,
    METRIC_ROUTE_HEALTHZ,
    METRIC_ROUTE_READYZ,
    METRIC_ROUTE_METRICS,
    METRIC_ROUTE__MAX
};

enum metric_status {
    METRIC_STATUS_OTHER,
    METRIC_STATUS_200,
    METRIC_STATUS_204,
    METRIC_STATUS_302,
    METRIC_STATUS_303,
    METRIC_STATUS_400,
    METRIC_STATUS_401,
    METRIC_STATUS_403,
    METRIC_STATUS_404,
    METRIC_STATUS_405,
    METRIC_STATUS_413,
    METRIC_STATUS_415,
    METRIC_STATUS_429,
    METRIC_STATUS_500,
    METRIC_STATUS_503,
    METRIC_STATUS__MAX
};

/* Routes that do work of the same kind. */
enum metric_group {
    METRIC_GROUP_OTHER,
    METRIC_GROUP_LOGIN,
    METRIC_GROUP_SESSION,
    METRIC_GROUP_TOKEN,
    METRIC_GROUP_INTERNAL,
    METRIC_GROUP__MAX
};

enum metric_login {
    METRIC_LOGIN_OTHER,
    METRIC_LOGIN_SUCCESS,
    METRIC_LOGIN_ACCESS_DENIED, /* the user said no */
    METRIC_LOGIN_SERVER_ERROR,  /* any other error that came to /callback */
    METRIC_LOGIN_INVALID_STATE,
    METRIC_LOGIN_REFUSED,
    METRIC_LOGIN_REJECTED, /* what Spotify was given does not fit */
    METRIC_LOGIN_EXPIRED,  /* a device's codes had expired, or were used */
    METRIC_LOGIN_MISCONFIGURED,
    METRIC_LOGIN_UPSTREAM,
    METRIC_LOGIN_UPSTREAM_BUSY,
    METRIC_LOGIN_STORE,
    METRIC_LOGIN_LOST, /* its worker ended before it did */
    METRIC_LOGIN__MAX
};

enum metric_renewal {
    METRIC_RENEWAL_OTHER,
    METRIC_RENEWAL_RENEWED, /* by this worker */
    METRIC_RENEWAL_SHARED,  /* another worker had renewed it meanwhile */
    METRIC_RENEWAL_SUSPECT,
    METRIC_RENEWAL_ABSENT, /* also: refused for good, and ended */
    METRIC_RENEWAL_REPLACED,
    METRIC_RENEWAL_UPSTREAM,
    METRIC_RENEWAL_UPSTREAM_BUSY,
    METRIC_RENEWAL_HELD_BACK, /* not begun: the breaker is open */
    METRIC_RENEWAL_MISCONFIGURED,
    METRIC_RENEWAL_STORE,
    METRIC_RENEWAL_UNREADABLE,
    METRIC_RENEWAL__MAX
};

/* Who renews what a fiber waits for. */
enum metric_waiter { METRIC_WAITER_OWN_WORKER, METRIC_WAITER_OTHER_WORKER, METRIC_WAITER__MAX };

enum metric_begun { METRIC_BEGUN_LOGIN, METRIC_BEGUN_SWAP, METRIC_BEGUN_DEVICE, METRIC_BEGUN__MAX };

enum metric_ended {
    METRIC_ENDED_LOGOUT,
    METRIC_ENDED_LOGOUT_ALL,
    METRIC_ENDED_REPLACED, /* by a newer login of the same browser */
    METRIC_ENDED_REFUSED,  /* by Spotify, for good */
    METRIC_ENDED__MAX
};

enum metric_token { METRIC_TOKEN_USER, METRIC_TOKEN_APP, METRIC_TOKEN__MAX };

enum metric_call {
    METRIC_CALL_OTHER,
    METRIC_CALL_CODE,
    METRIC_CALL_REFRESH,
    METRIC_CALL_APP,
    METRIC_CALL_PROFILE,
    METRIC_CALL__MAX
};

enum metric_answer {
    METRIC_ANSWER_OTHER, /* 1xx, 3xx */
    METRIC_ANSWER_2XX,
    METRIC_ANSWER_4XX,
    METRIC_ANSWER_429,
    METRIC_ANSWER_5XX,
    METRIC_ANSWER_NONE, /* no connection, deadline, cut */
    METRIC_ANSWER_BUSY, /* not sent: UPSTREAM_MAX_IN_FLIGHT */
    METRIC_ANSWER__MAX
};

enum metric_upstream { METRIC_UPSTREAM_ACCOUNTS, METRIC_UPSTREAM_API, METRIC_UPSTREAM__MAX };

/* As redis_trouble.h has them. */
enum metric_redis_error {
    METRIC_REDIS_OTHER,
    METRIC_REDIS_UNREACHABLE,
    METRIC_REDIS_SLOW,
    METRIC_REDIS_GARBLED,
    METRIC_REDIS_LOADING,
    METRIC_REDIS_READONLY,
    METRIC_REDIS_MASTERDOWN,
    METRIC_REDIS_CLUSTERDOWN,
    METRIC_REDIS_CLUSTER,
    METRIC_REDIS_NOMASTER,
    METRIC_REDIS_NOREPLICAS,
    METRIC_REDIS_OOM,
    METRIC_REDIS_MISCONF,
    METRIC_REDIS_BUSY,
    METRIC_REDIS_AUTH,
    METRIC_REDIS_TLS,
    METRIC_REDIS_REFUSED,
    METRIC_REDIS__MAX
};

enum metric_worker_end { METRIC_WORKER_DRAINED, METRIC_WORKER_DIED, METRIC_WORKER_END__MAX };

/* ---- the cells of a slot ---- */

/* Finite bounds of every histogram; its cells are one for each, one for what is beyond the last,
 * and the sum. */
#define METRIC_BOUNDS 16
#define METRIC_HISTOGRAM_CELLS (METRIC_BOUNDS + 2)

/* The first cell of each metric; the label, where it has one, is added to it. The casts are for
 * newer versions of clang, which warn of two enumerations in one product. */
enum metric {
    METRIC_REQUESTS,
    METRIC_REQUEST_DURATION = METRIC_REQUESTS + (int)METRIC_ROUTE__MAX * METRIC_STATUS__MAX,
    METRIC_REQUESTS_IN_HAND = METRIC_REQUEST_DURATION + METRIC_GROUP__MAX * METRIC_HISTOGRAM_CELLS,
    METRIC_LOGINS_BEGUN,
    METRIC_LOGINS,
    METRIC_RENEWALS = METRIC_LOGINS + METRIC_LOGIN__MAX,
    METRIC_RENEWAL_WAITERS = METRIC_RENEWALS + METRIC_RENEWAL__MAX,
    METRIC_RENEWALS_UNSAVED = METRIC_RENEWAL_WAITERS + METRIC_WAITER__MAX,
    METRIC_MASS_REFUSAL,
    METRIC_SESSIONS_BEGUN,
    METRIC_SESSIONS_ENDED = METRIC_SESSIONS_BEGUN + METRIC_BEGUN__MAX,
    METRIC_REAUTH = METRIC_SESSIONS_ENDED + METRIC_ENDED__MAX,
    METRIC_TOKENS = METRIC_REAUTH + METRIC_HISTOGRAM_CELLS,
    METRIC_CALLS = METRIC_TOKENS + METRIC_TOKEN__MAX,
    METRIC_CALL_DURATION = METRIC_CALLS + (int)METRIC_CALL__MAX * METRIC_ANSWER__MAX,
    METRIC_CALLS_IN_FLIGHT = METRIC_CALL_DURATION + METRIC_CALL__MAX * METRIC_HISTOGRAM_CELLS,
    METRIC_BREAKER_OPEN,
    METRIC_REDIS_DURATION = METRIC_BREAKER_OPEN + METRIC_UPSTREAM__MAX,
    METRIC_REDIS_ERRORS = METRIC_REDIS_DURATION + METRIC_HISTOGRAM_CELLS,
    METRIC_WORKERS = METRIC_REDIS_ERRORS + METRIC_REDIS__MAX,
    METRIC_WORKER_ENDS,
    METRIC_START_TIME = METRIC_WORKER_ENDS + METRIC_WORKER_END__MAX,
    METRIC_BUILD_INFO,
    METRIC__CELLS
};

/* ---- counting; from any floor, in a fiber or not ---- */

/* This process's slot: shared once metrics_use_slot has said which, its own memory before. Only the
 * functions below look at it. */
extern uint64_t *metrics_own;

static inline void metrics_add(unsigned metric, unsigned label, int64_t count)
{
    uint64_t *cell = &metrics_own[metric + label];
    /* Nobody else writes here, so no locked instruction is needed; readers see whole numbers. */
    __atomic_store_n(cell, *cell + (uint64_t)count, __ATOMIC_RELAXED);
}

static inline void metrics_count(unsigned metric, unsigned label)
{
    metrics_add(metric, label, 1);
}

/* A gauge of this worker; /metrics shows the sum over all workers. */
static inline void metrics_set(unsigned metric, unsigned label, int64_t value)
{
    __atomic_store_n(&metrics_own[metric + label], (uint64_t)value, __ATOMIC_RELAXED);
}

/* Count under the label with this word, such as err_name(err); under "other" where there is none.
 * Only for metrics that have an "other". */
void metrics_count_word(enum metric metric, const char *word);

/* What a fiber waited for one round trip to Redis. */
void metrics_observe_redis(uint64_t us);

/* How long a session that begins or is renewed can still be renewed; less than 0 counts as 0. */
void metrics_observe_reauth(int64_t left_s);

/* Whether this worker spares a part of Spotify ("accounts", "api") its calls. */
void metrics_set_breaker(const char *upstream, bool is_open);

/* What is true of all workers, as whichever of them saw last. */
void metrics_set_mass_refusal(bool is_mass);

/* An answered request. */
void metrics_count_request(enum metric_route route, int status, uint64_t us);

/* The route's own label, by its path ("/token"); METRIC_ROUTE_UNKNOWN when it has none. */
enum metric_route metrics_find_route(const char *path);

/* A call to Spotify, by the name it has in the log ("token refresh"). status 0: without an answer.
 */
void metrics_count_call(const char *name, int status, uint64_t us);

/* A call to Spotify that was not made. */
void metrics_count_call_refused(const char *name, enum metric_answer why);

/* ---- slots: for the parent of the workers ---- */

/* As many workers as may live at once, those of older generations included. */
#define METRICS_SLOTS 4096

/* Make the shared memory, before the first worker is forked. False: there is none, nothing is
 * shown, and everything goes on. */
bool metrics_share(void);
bool metrics_is_shared(void);

/* A slot for a worker that is about to be forked, and back when it has ended. What it counted
 * stays, and the next worker in that slot goes on from there; its gauges are gone with it. -1: none
 * is left, the worker counts for nobody. */
int metrics_take_slot(void);
void metrics_free_slot(int slot);

/* In the new worker: count into this slot (-1: into memory of its own). */
void metrics_use_slot(int slot);

/* ---- the text ---- */

/* Append everything, summed over the slots, in text format 0.0.4. */
void metrics_format(struct buf *out);

#endif
