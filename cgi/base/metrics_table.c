/* Every metric once: its name, what it says, and the words of its labels. How it is counted is
 * metrics.c's business, how it is written metrics_text.c's.
 *
 * Names and units by Prometheus' conventions: seconds, _total for counters, the unit last. */
#include "base/metrics_table.h"

#include <string.h>

#include "base/version.h"

static const char *const routes[METRIC_ROUTE__MAX] = {
    [METRIC_ROUTE_UNKNOWN] = "unknown",      [METRIC_ROUTE_AUTHORIZE] = "/authorize",
    [METRIC_ROUTE_CALLBACK] = "/callback",   [METRIC_ROUTE_SESSION] = "/session",
    [METRIC_ROUTE_TOKEN] = "/token",         [METRIC_ROUTE_REFRESH] = "/refresh",
    [METRIC_ROUTE_API_TOKEN] = "/api/token", [METRIC_ROUTE_VERIFY_APP] = "/verify/app",
    [METRIC_ROUTE_VERIFY] = "/verify",       [METRIC_ROUTE_PREFLIGHT] = "/verify/preflight",
    [METRIC_ROUTE_SWAP] = "/swap",           [METRIC_ROUTE_SWAP_REFRESH] = "/swap/refresh",
    [METRIC_ROUTE_DEVICE] = "/device",       [METRIC_ROUTE_SESSIONS] = "/sessions",
    [METRIC_ROUTE_LOGOUT] = "/logout",       [METRIC_ROUTE_HEALTHZ] = "/healthz",
    [METRIC_ROUTE_READYZ] = "/readyz",       [METRIC_ROUTE_METRICS] = "/metrics",
};

static const char *const statuses[METRIC_STATUS__MAX] = {
    [METRIC_STATUS_OTHER] = "other", [METRIC_STATUS_200] = "200", [METRIC_STATUS_204] = "204",
    [METRIC_STATUS_302] = "302",     [METRIC_STATUS_303] = "303", [METRIC_STATUS_400] = "400",
    [METRIC_STATUS_401] = "401",     [METRIC_STATUS_403] = "403", [METRIC_STATUS_404] = "404",
    [METRIC_STATUS_405] = "405",     [METRIC_STATUS_413] = "413", [METRIC_STATUS_415] = "415",
    [METRIC_STATUS_429] = "429",     [METRIC_STATUS_500] = "500", [METRIC_STATUS_503] = "503",
};

static const char *const groups[METRIC_GROUP__MAX] = {
    [METRIC_GROUP_OTHER] = "other",       [METRIC_GROUP_LOGIN] = "login",
    [METRIC_GROUP_SESSION] = "session",   [METRIC_GROUP_TOKEN] = "token",
    [METRIC_GROUP_INTERNAL] = "internal",
};

/* Reasons are the words that the log has for them (err_name). */
static const char *const login_reasons[METRIC_LOGIN__MAX] = {
    [METRIC_LOGIN_OTHER] = "other",
    [METRIC_LOGIN_SUCCESS] = "none",
    [METRIC_LOGIN_ACCESS_DENIED] = "access_denied",
    [METRIC_LOGIN_SERVER_ERROR] = "server_error",
    [METRIC_LOGIN_INVALID_STATE] = "invalid_state",
    [METRIC_LOGIN_REFUSED] = "refused",
    [METRIC_LOGIN_REJECTED] = "rejected",
    [METRIC_LOGIN_EXPIRED] = "expired",
    [METRIC_LOGIN_MISCONFIGURED] = "misconfigured",
    [METRIC_LOGIN_UPSTREAM] = "upstream",
    [METRIC_LOGIN_UPSTREAM_BUSY] = "upstream_busy",
    [METRIC_LOGIN_STORE] = "store",
    [METRIC_LOGIN_LOST] = "lost",
};

static const char *const login_outcomes[METRIC_LOGIN__MAX] = {
    [METRIC_LOGIN_OTHER] = "failed",         [METRIC_LOGIN_SUCCESS] = "success",
    [METRIC_LOGIN_ACCESS_DENIED] = "denied", [METRIC_LOGIN_SERVER_ERROR] = "failed",
    [METRIC_LOGIN_INVALID_STATE] = "failed", [METRIC_LOGIN_REFUSED] = "failed",
    [METRIC_LOGIN_REJECTED] = "failed",      [METRIC_LOGIN_EXPIRED] = "failed",
    [METRIC_LOGIN_MISCONFIGURED] = "failed", [METRIC_LOGIN_UPSTREAM] = "failed",
    [METRIC_LOGIN_UPSTREAM_BUSY] = "failed", [METRIC_LOGIN_STORE] = "failed",
    [METRIC_LOGIN_LOST] = "failed",
};

static const char *const renewals[METRIC_RENEWAL__MAX] = {
    [METRIC_RENEWAL_OTHER] = "other",         [METRIC_RENEWAL_RENEWED] = "renewed",
    [METRIC_RENEWAL_SHARED] = "shared",       [METRIC_RENEWAL_SUSPECT] = "suspect",
    [METRIC_RENEWAL_ABSENT] = "absent",       [METRIC_RENEWAL_REPLACED] = "replaced",
    [METRIC_RENEWAL_UPSTREAM] = "upstream",   [METRIC_RENEWAL_UPSTREAM_BUSY] = "upstream_busy",
    [METRIC_RENEWAL_HELD_BACK] = "held_back", [METRIC_RENEWAL_MISCONFIGURED] = "misconfigured",
    [METRIC_RENEWAL_STORE] = "store",         [METRIC_RENEWAL_UNREADABLE] = "unreadable",
};

static const char *const waiters[METRIC_WAITER__MAX] = {
    [METRIC_WAITER_OWN_WORKER] = "own_worker",
    [METRIC_WAITER_OTHER_WORKER] = "other_worker",
};

static const char *const begun[METRIC_BEGUN__MAX] = {
    [METRIC_BEGUN_LOGIN] = "login", [METRIC_BEGUN_SWAP] = "swap", [METRIC_BEGUN_DEVICE] = "device"};

static const char *const ended[METRIC_ENDED__MAX] = {
    [METRIC_ENDED_LOGOUT] = "logout",
    [METRIC_ENDED_LOGOUT_ALL] = "logout_all",
    [METRIC_ENDED_REPLACED] = "replaced",
    [METRIC_ENDED_REFUSED] = "refused",
};

static const char *const tokens[METRIC_TOKEN__MAX] = {
    [METRIC_TOKEN_USER] = "user", [METRIC_TOKEN_APP] = "app"};

static const char *const calls[METRIC_CALL__MAX] = {
    [METRIC_CALL_OTHER] = "other",           [METRIC_CALL_CODE] = "token code",
    [METRIC_CALL_REFRESH] = "token refresh", [METRIC_CALL_APP] = "token app",
    [METRIC_CALL_PROFILE] = "profile",
};

static const char *const answers[METRIC_ANSWER__MAX] = {
    [METRIC_ANSWER_OTHER] = "other", [METRIC_ANSWER_2XX] = "2xx", [METRIC_ANSWER_4XX] = "4xx",
    [METRIC_ANSWER_429] = "429",     [METRIC_ANSWER_5XX] = "5xx", [METRIC_ANSWER_NONE] = "none",
    [METRIC_ANSWER_BUSY] = "busy",
};

static const char *const upstreams[METRIC_UPSTREAM__MAX] = {
    [METRIC_UPSTREAM_ACCOUNTS] = "accounts",
    [METRIC_UPSTREAM_API] = "api",
};

static const char *const redis_errors[METRIC_REDIS__MAX] = {
    [METRIC_REDIS_OTHER] = "other",
    [METRIC_REDIS_UNREACHABLE] = "unreachable",
    [METRIC_REDIS_SLOW] = "slow",
    [METRIC_REDIS_GARBLED] = "garbled",
    [METRIC_REDIS_LOADING] = "loading",
    [METRIC_REDIS_READONLY] = "readonly",
    [METRIC_REDIS_MASTERDOWN] = "masterdown",
    [METRIC_REDIS_CLUSTERDOWN] = "clusterdown",
    [METRIC_REDIS_CLUSTER] = "cluster",
    [METRIC_REDIS_NOMASTER] = "nomaster",
    [METRIC_REDIS_NOREPLICAS] = "noreplicas",
    [METRIC_REDIS_OOM] = "oom",
    [METRIC_REDIS_MISCONF] = "misconf",
    [METRIC_REDIS_BUSY] = "busy",
    [METRIC_REDIS_AUTH] = "auth",
    [METRIC_REDIS_TLS] = "tls",
    [METRIC_REDIS_REFUSED] = "refused",
};

static const char *const worker_ends[METRIC_WORKER_END__MAX] = {
    [METRIC_WORKER_DRAINED] = "drained",
    [METRIC_WORKER_DIED] = "died",
};

static const char *const versions[] = {SPOTIFY_AUTH_VERSION};

#define WORDS(key, list)                                                                           \
    (&(const struct metric_words){key, list, sizeof(list) / sizeof(*(list)), NULL, NULL})

/* Microseconds: from what an answer without a wait takes to the longest that a client waits. */
const uint64_t metric_request_us[METRIC_BOUNDS] = {
    50,    100,   250,    500,    1000,   2500,    5000,    10000,
    25000, 50000, 100000, 250000, 500000, 1000000, 2500000, 10000000};

/* Microseconds: one round trip on the same machine, up to the deadline of STORE_TIMEOUT_MS. */
const uint64_t metric_redis_us[METRIC_BOUNDS] = {25,     50,     100,    200,    300,   500,
                                                 1000,   2000,   5000,   10000,  25000, 50000,
                                                 100000, 250000, 500000, 1000000};

/* Microseconds: across the net, up to the deadline of UPSTREAM_TIMEOUT_MS. */
const uint64_t metric_call_us[METRIC_BOUNDS] = {5000,    10000,   25000,   50000,   75000,  100000,
                                                150000,  200000,  300000,  500000,  750000, 1000000,
                                                2000000, 3000000, 5000000, 10000000};

/* Seconds: weeks. An authorization lasts 26 of them (contract A.7). */
#define WEEK ((uint64_t)604800)
const uint64_t metric_reauth_s[METRIC_BOUNDS] = {
    1 * WEEK,  2 * WEEK,  3 * WEEK,  4 * WEEK,  5 * WEEK,  6 * WEEK,  8 * WEEK,  10 * WEEK,
    12 * WEEK, 14 * WEEK, 16 * WEEK, 18 * WEEK, 20 * WEEK, 22 * WEEK, 24 * WEEK, 26 * WEEK};

#define MICROSECONDS 1000000

const struct metric_family metric_families[] = {
    {METRIC_REQUESTS, METRIC_IS_COUNTER, "requests_total", .help = "Answered requests.",
     .labels = WORDS("route", routes), .across = WORDS("status", statuses), .is_sparse = true},
    {METRIC_REQUEST_DURATION, METRIC_IS_HISTOGRAM, "request_duration_seconds",
     .help = "Time from a whole request to its answer, by kind of route.",
     .labels = WORDS("group", groups), .bounds = metric_request_us, .per_unit = MICROSECONDS},
    {METRIC_REQUESTS_IN_HAND, METRIC_IS_GAUGE, "requests_in_hand",
     .help = "Requests that are being worked on, this one included."},
    {METRIC_LOGINS_BEGUN, METRIC_IS_COUNTER, "logins_begun_total",
     .help = "Logins that were sent on to Spotify."},
    {METRIC_LOGINS, METRIC_IS_COUNTER, "logins_total",
     .help = "Logins that came back, in a browser or in a phone's swap, by how they ended.",
     .labels = &(const struct metric_words){"outcome", login_outcomes, METRIC_LOGIN__MAX, "reason",
                                            login_reasons}},
    {METRIC_RENEWALS, METRIC_IS_COUNTER, "renewals_total",
     .help = "Renewals of access tokens, one for all requests of a worker that wait for it.",
     .labels = WORDS("outcome", renewals)},
    {METRIC_RENEWAL_WAITERS, METRIC_IS_GAUGE, "renewal_waiters",
     .help = "Requests that wait for a renewal which another one makes.",
     .labels = WORDS("where", waiters)},
    {METRIC_RENEWALS_UNSAVED, METRIC_IS_GAUGE, "renewals_unsaved",
     .help = "Renewed tokens that Redis has not taken yet, and that exist nowhere else."},
    {METRIC_MASS_REFUSAL, METRIC_IS_GAUGE, "mass_refusal",
     .help = "1 while Spotify refuses so many renewals that no session is ended for it."},
    {METRIC_SESSIONS_BEGUN, METRIC_IS_COUNTER, "sessions_begun_total",
     .help = "Sessions that were stored.", .labels = WORDS("by", begun)},
    {METRIC_SESSIONS_ENDED, METRIC_IS_COUNTER, "sessions_ended_total",
     .help = "Sessions that were ended; those that Redis let expire are not seen.",
     .labels = WORDS("reason", ended)},
    {METRIC_REAUTH, METRIC_IS_HISTOGRAM, "session_reauth_seconds",
     .help = "Time until the user has to agree anew, of each session as it begins and is renewed.",
     .bounds = metric_reauth_s, .per_unit = 1},
    {METRIC_TOKENS, METRIC_IS_COUNTER, "tokens_handed_out_total",
     .help = "Access tokens in answers.", .labels = WORDS("kind", tokens)},
    {METRIC_CALLS, METRIC_IS_COUNTER, "upstream_calls_total",
     .help = "Calls to Spotify, by the status of the answer.", .labels = WORDS("call", calls),
     .across = WORDS("answer", answers)},
    {METRIC_CALL_DURATION, METRIC_IS_HISTOGRAM, "upstream_call_duration_seconds",
     .help = "Time that calls to Spotify took, with an answer or without.",
     .labels = WORDS("call", calls), .bounds = metric_call_us, .per_unit = MICROSECONDS},
    {METRIC_CALLS_IN_FLIGHT, METRIC_IS_GAUGE, "upstream_calls_in_flight",
     .help = "Calls to Spotify under way."},
    {METRIC_BREAKER_OPEN, METRIC_IS_GAUGE, "breaker_open",
     .help = "Workers that spare this part of Spotify their calls, because it does not answer.",
     .labels = WORDS("upstream", upstreams)},
    {METRIC_REDIS_DURATION, METRIC_IS_HISTOGRAM, "redis_duration_seconds",
     .help = "Time that requests waited for one round trip to Redis.", .bounds = metric_redis_us,
     .per_unit = MICROSECONDS},
    {METRIC_REDIS_ERRORS, METRIC_IS_COUNTER, "redis_errors_total",
     .help = "Round trips to Redis that failed, by what ailed it.",
     .labels = WORDS("reason", redis_errors)},
    {METRIC_WORKERS, METRIC_IS_GAUGE, "workers", .help = "Worker processes that run."},
    {METRIC_WORKER_ENDS, METRIC_IS_COUNTER, "worker_ends_total",
     .help = "Worker processes that ended: told to, or by themselves.",
     .labels = WORDS("how", worker_ends)},
    {METRIC_START_TIME, METRIC_IS_GAUGE, "start_time_seconds",
     .help = "When the service was started, in unix time."},
    {METRIC_BUILD_INFO, METRIC_IS_GAUGE, "build_info",
     .help = "1, with the version of the program.", .labels = WORDS("version", versions)},
};

const unsigned metric_family_count = sizeof(metric_families) / sizeof(metric_families[0]);

const struct metric_family *metric_find(enum metric metric)
{
    for (unsigned i = 0; i < metric_family_count; i++) {
        if (metric_families[i].metric == metric) {
            return &metric_families[i];
        }
    }
    return NULL;
}

unsigned metric_find_word(const struct metric_words *words, const char *word)
{
    for (unsigned i = 0; i < words->count; i++) {
        const char *own = words->second_words ? words->second_words[i] : words->words[i];
        if (strcmp(own, word) == 0) {
            return i;
        }
    }
    return 0;
}

unsigned metric_width(const struct metric_family *family)
{
    return family->type == METRIC_IS_HISTOGRAM ? METRIC_HISTOGRAM_CELLS : 1;
}

unsigned metric_cells(const struct metric_family *family)
{
    unsigned rows = family->labels ? family->labels->count : 1;
    unsigned columns = family->across ? family->across->count : 1;
    return rows * columns * metric_width(family);
}
