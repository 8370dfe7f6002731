/* The slots in which workers count. What the cells are called is metrics_table.c's business, how
 * they are shown metrics_text.c's.
 *
 * The memory is mapped once, by the parent, and is shared by all that it forks; a page of it costs
 * nothing before somebody counts on it. Slot 0 is the parent's own. A worker that dies in the
 * middle of a count leaves that count as it was before or after, since each is one store. */
#include "base/metrics.h"

#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics_table.h"

/* Whole pairs of cache lines, which are what processors fetch: no two workers write to one. */
#define SLOT_CELLS ((METRIC__CELLS + 15) / 16 * 16)

struct shared {
    unsigned slots_used; /* all that were ever taken are below; written by the parent */
    uint64_t slots[METRICS_SLOTS][SLOT_CELLS] __attribute__((aligned(128)));
};

static uint64_t private_slot[SLOT_CELLS];
static struct shared *shared;        /* NULL: not shared */
static bool is_taken[METRICS_SLOTS]; /* the parent's knowledge */

uint64_t *metrics_own = private_slot;

bool metrics_share(void)
{
    void *memory = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        log_warn("metrics not shared: no memory");
        return false;
    }
    shared = memory;
    shared->slots_used = 1;
    is_taken[0] = true;
    metrics_own = shared->slots[0];
    metrics_set(METRIC_START_TIME, 0, clock_unix_s());
    metrics_set(METRIC_BUILD_INFO, 0, 1);
    return true;
}

bool metrics_is_shared(void)
{
    return shared != NULL;
}

int metrics_take_slot(void)
{
    for (unsigned i = 0; shared && i < METRICS_SLOTS; i++) {
        if (is_taken[i]) {
            continue;
        }
        is_taken[i] = true;
        if (i >= shared->slots_used) {
            __atomic_store_n(&shared->slots_used, i + 1, __ATOMIC_RELAXED);
        }
        return (int)i;
    }
    return -1;
}

void metrics_free_slot(int slot)
{
    if (slot < 0) {
        return;
    }
    for (unsigned i = 0; i < metric_family_count; i++) {
        const struct metric_family *family = &metric_families[i];
        if (family->type == METRIC_IS_GAUGE) {
            memset(&shared->slots[slot][family->metric], 0,
                   metric_cells(family) * sizeof(uint64_t));
        }
    }
    is_taken[slot] = false;
}

void metrics_use_slot(int slot)
{
    metrics_own = slot < 0 ? private_slot : shared->slots[slot];
    metrics_set(METRIC_WORKERS, 0, 1);
}

uint64_t metrics_sum(unsigned cell)
{
    uint64_t sum = 0;
    if (!shared) {
        return private_slot[cell];
    }
    unsigned used = __atomic_load_n(&shared->slots_used, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < used; i++) {
        sum += __atomic_load_n(&shared->slots[i][cell], __ATOMIC_RELAXED);
    }
    return sum;
}

/* ---- counting ---- */

void metrics_set_breaker(const char *upstream, bool is_open)
{
    const struct metric_words *upstreams = metric_find(METRIC_BREAKER_OPEN)->labels;
    metrics_set(METRIC_BREAKER_OPEN, metric_find_word(upstreams, upstream), is_open);
}

void metrics_set_mass_refusal(bool is_mass)
{
    uint64_t *cell =
        shared ? &shared->slots[0][METRIC_MASS_REFUSAL] : &private_slot[METRIC_MASS_REFUSAL];
    __atomic_store_n(cell, is_mass, __ATOMIC_RELAXED);
}

void metrics_count_word(enum metric metric, const char *word)
{
    metrics_count(metric, metric_find_word(metric_find(metric)->labels, word));
}

static void observe(unsigned first, const uint64_t *bounds, uint64_t value)
{
    unsigned bucket = 0;
    while (bucket < METRIC_BOUNDS && value > bounds[bucket]) {
        bucket++;
    }
    metrics_count(first, bucket);
    metrics_add(first, METRIC_BOUNDS + 1, (int64_t)value);
}

void metrics_observe_redis(uint64_t us)
{
    observe(METRIC_REDIS_DURATION, metric_redis_us, us);
}

void metrics_observe_reauth(int64_t left_s)
{
    observe(METRIC_REAUTH, metric_reauth_s, left_s > 0 ? (uint64_t)left_s : 0);
}

void metrics_count_request(enum metric_route route, int status, uint64_t us)
{
    static const uint8_t label_of[] = {
        [200] = METRIC_STATUS_200, [204] = METRIC_STATUS_204, [302] = METRIC_STATUS_302,
        [303] = METRIC_STATUS_303, [400] = METRIC_STATUS_400, [401] = METRIC_STATUS_401,
        [403] = METRIC_STATUS_403, [404] = METRIC_STATUS_404, [405] = METRIC_STATUS_405,
        [413] = METRIC_STATUS_413, [415] = METRIC_STATUS_415, [429] = METRIC_STATUS_429,
        [500] = METRIC_STATUS_500, [503] = METRIC_STATUS_503,
    };
    static const uint8_t group_of[METRIC_ROUTE__MAX] = {
        [METRIC_ROUTE_AUTHORIZE] = METRIC_GROUP_LOGIN,
        [METRIC_ROUTE_CALLBACK] = METRIC_GROUP_LOGIN,
        [METRIC_ROUTE_SESSION] = METRIC_GROUP_SESSION,
        [METRIC_ROUTE_SESSIONS] = METRIC_GROUP_SESSION,
        [METRIC_ROUTE_LOGOUT] = METRIC_GROUP_SESSION,
        [METRIC_ROUTE_TOKEN] = METRIC_GROUP_TOKEN,
        [METRIC_ROUTE_REFRESH] = METRIC_GROUP_TOKEN,
        [METRIC_ROUTE_API_TOKEN] = METRIC_GROUP_TOKEN,
        [METRIC_ROUTE_VERIFY] = METRIC_GROUP_TOKEN,
        [METRIC_ROUTE_SWAP] = METRIC_GROUP_LOGIN,
        [METRIC_ROUTE_SWAP_REFRESH] = METRIC_GROUP_TOKEN,
        [METRIC_ROUTE_DEVICE] = METRIC_GROUP_LOGIN,
        [METRIC_ROUTE_VERIFY_APP] = METRIC_GROUP_TOKEN,
        [METRIC_ROUTE_PREFLIGHT] = METRIC_GROUP_INTERNAL,
        [METRIC_ROUTE_HEALTHZ] = METRIC_GROUP_INTERNAL,
        [METRIC_ROUTE_READYZ] = METRIC_GROUP_INTERNAL,
        [METRIC_ROUTE_METRICS] = METRIC_GROUP_INTERNAL,
    };
    unsigned label = (size_t)status < sizeof(label_of) ? label_of[status] : METRIC_STATUS_OTHER;
    metrics_count(METRIC_REQUESTS, (unsigned)route * METRIC_STATUS__MAX + label);
    observe(METRIC_REQUEST_DURATION + (unsigned)group_of[route] * METRIC_HISTOGRAM_CELLS,
            metric_request_us, us);
}

enum metric_route metrics_find_route(const char *path)
{
    return metric_find_word(metric_find(METRIC_REQUESTS)->labels, path);
}

static unsigned find_call(const char *name)
{
    return metric_find_word(metric_find(METRIC_CALLS)->labels, name);
}

static enum metric_answer answer_label(int status)
{
    if (status == 0) {
        return METRIC_ANSWER_NONE;
    }
    if (status == 429) {
        return METRIC_ANSWER_429;
    }
    switch (status / 100) {
    case 2:
        return METRIC_ANSWER_2XX;
    case 4:
        return METRIC_ANSWER_4XX;
    case 5:
        return METRIC_ANSWER_5XX;
    default:
        return METRIC_ANSWER_OTHER;
    }
}

void metrics_count_call(const char *name, int status, uint64_t us)
{
    unsigned call = find_call(name);
    metrics_count(METRIC_CALLS, call * METRIC_ANSWER__MAX + answer_label(status));
    observe(METRIC_CALL_DURATION + call * METRIC_HISTOGRAM_CELLS, metric_call_us, us);
}

void metrics_count_call_refused(const char *name, enum metric_answer why)
{
    metrics_count(METRIC_CALLS, find_call(name) * METRIC_ANSWER__MAX + (unsigned)why);
}
