/* What store*.c see of Redis: commands that a fiber waits for. They go over the one link to the one
 * Redis there is, which is redis_link.c's business, or where redis_fleet.c sends them. */
#include "store/redis.h"

#include <assert.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/fiber.h"
#include "base/log.h"
#include "base/metrics.h"
#include "store/redis_fleet.h"
#include "store/redis_link.h"
#include "store/redis_slots.h"
#include "store/redis_tls.h"

/* Most calls are one command; the longest pipelines are lists of sessions. */
#define CALLS_ROOM 4

/* As in redis_pause.h, so that enough of a command's time is left for those who wait: the first
 * request after Redis' return finds it. */
#define PAUSE_PART 2

/* A master has its share of the slots: of so many tags one is in them. */
#define TAGS_MAX 1000000

struct redis {
    uv_loop_t *loop;
    const struct settings *settings; /* borrowed */
    struct redis_tls *tls;           /* owned; NULL: none */
    struct redis_link *link;         /* owned; NULL: fleet */
    struct redis_fleet *fleet;       /* owned; NULL: link */
    enum redis_trouble trouble;      /* see redis_trouble() */
    uv_timer_t end;                  /* closed last: fibers that redis_free wakes look in here */
};

/* All over one link. */
static void run_alone(struct redis_link *link, struct redis_call *calls, size_t count)
{
    redis_link_await(link);
    for (size_t i = 0; i < count; i++) {
        (void)redis_link_send(link, &calls[i]);
    }
    if (calls[0].wait->unanswered > 0) {
        fiber_park();
    }
}

/* Send them, wait for them all. Returns the trouble of the first that failed. */
static enum redis_trouble run_calls(struct redis *redis, struct redis_call *calls, size_t count)
{
    if (redis->fleet) {
        redis_fleet_run(redis->fleet, calls, count);
    } else {
        run_alone(redis->link, calls, count);
    }
    for (size_t i = 0; i < count; i++) {
        if (calls[i].trouble) {
            return calls[i].trouble;
        }
    }
    return TROUBLE_NONE;
}

static void note_time(uint64_t begin_us)
{
    uint64_t waited_us = clock_mono_us() - begin_us;
    struct log_context *context = log_context();
    if (context) {
        context->store_us += waited_us;
    }
    metrics_observe_redis(waited_us);
}

/* On failure no out holds anything. outs NULL: not looked at. node -1: whoever has the keys. */
static enum err run_commands(struct redis *redis, const struct redis_arg *args,
                             const size_t *counts, size_t commands, struct redis_value *outs,
                             bool is_quiet, int node)
{
    uint64_t begin_us = clock_mono_us();
    struct redis_wait wait = {.fiber = fiber_self(), .is_quiet = is_quiet};
    struct redis_call room[CALLS_ROOM];
    struct redis_call *calls = commands <= CALLS_ROOM ? room : xcalloc(commands, sizeof(*calls));
    /* The loop's clock is that of its last turn, and this process may have stood still since. */
    uv_update_time(redis->loop);
    wait.deadline_ms = uv_now(redis->loop) + (uint64_t)redis->settings->store_timeout_ms;
    assert(wait.fiber && commands > 0);
    for (size_t i = 0; i < commands; i++) {
        calls[i] = (struct redis_call){.args = args,
                                       .count = counts[i],
                                       .wait = &wait,
                                       .out = outs ? &outs[i] : NULL,
                                       .node = node};
        if (outs) {
            outs[i] = (struct redis_value){0};
        }
        args += counts[i];
    }
    enum redis_trouble trouble = run_calls(redis, calls, commands);
    note_time(begin_us);
    if (calls != room) {
        free(calls);
    }
    if (!trouble) {
        return OK;
    }
    redis->trouble = trouble;
    if (!is_quiet && trouble != TROUBLE_NOSCRIPT) {
        metrics_count_word(METRIC_REDIS_ERRORS, redis_trouble_word(trouble));
    }
    for (size_t i = 0; outs && i < commands; i++) {
        redis_value_clear(&outs[i]);
    }
    return ERR_STORE;
}

enum err redis_command(struct redis *redis, const struct redis_arg *args, size_t count,
                       struct redis_value *out)
{
    return run_commands(redis, args, &count, 1, out, false, -1);
}

enum err redis_probe(struct redis *redis, size_t index, const struct redis_arg *args, size_t count,
                     struct redis_value *out)
{
    int node = redis->fleet ? redis_masters_node(redis_fleet_masters(redis->fleet), index) : -1;
    return run_commands(redis, args, &count, 1, out, true, node);
}

size_t redis_count_masters(const struct redis *redis)
{
    return redis->fleet ? redis_masters_count(redis_fleet_masters(redis->fleet)) : 1;
}

bool redis_is_whole(const struct redis *redis)
{
    return !redis->fleet || redis_fleet_is_whole(redis->fleet);
}

enum err redis_confirm(struct redis *redis)
{
    if (!redis->fleet || redis_fleet_confirm(redis->fleet)) {
        return OK;
    }
    redis->trouble = TROUBLE_READONLY;
    return ERR_STORE;
}

void redis_find_tag(const struct redis *redis, size_t index, struct buf *out)
{
    int want = redis->fleet ? redis_masters_node(redis_fleet_masters(redis->fleet), index) : -1;
    struct buf tag = {0};
    for (int i = 0; i < TAGS_MAX; i++) {
        buf_reset(&tag);
        buf_addf(&tag, "%d", i);
        int slot = redis_slot_of_key(tag.data, tag.len);
        if (want < 0 || redis_masters_owner(redis_fleet_masters(redis->fleet), slot) == want) {
            break;
        }
    }
    buf_add(out, tag.data, tag.len);
    buf_clear(&tag);
}

enum err redis_pipeline(struct redis *redis, const struct redis_arg *args, const size_t *counts,
                        size_t commands, struct redis_value *outs)
{
    return run_commands(redis, args, counts, commands, outs, false, -1);
}

void redis_send(struct redis *redis, const struct redis_arg *args, size_t count)
{
    if (redis->fleet) {
        redis_fleet_send(redis->fleet, args, count);
    } else {
        struct redis_call call = {.args = args, .count = count};
        (void)redis_link_send(redis->link, &call);
    }
}

enum redis_trouble redis_trouble(const struct redis *redis)
{
    return redis->trouble;
}

int redis_check(const struct settings *settings, bool are_sound, FILE *problems)
{
    return redis_tls_check(settings, are_sound, problems);
}

struct redis *redis_new(uv_loop_t *loop, const struct settings *settings)
{
    struct redis *redis = xcalloc(1, sizeof(*redis));
    redis->loop = loop;
    redis->settings = settings;
    redis->tls = settings->redis.is_tls ? redis_tls_new(settings) : NULL;
    if (settings->redis.kind == REDIS_ALONE) {
        const struct redis_link_options options = {
            .settings = settings, .tls = redis->tls, .pause_part = PAUSE_PART};
        redis->link = redis_link_new(loop, &options);
    } else {
        redis->fleet = redis_fleet_new(loop, settings, redis->tls);
    }
    uv_timer_init(loop, &redis->end);
    redis->end.data = redis;
    /* hiredis writes without MSG_NOSIGNAL. */
    signal(SIGPIPE, SIG_IGN);
    return redis;
}

static void on_end_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void redis_free(struct redis *redis)
{
    if (redis->fleet) {
        redis_fleet_free(redis->fleet);
    } else {
        redis_link_free(redis->link);
    }
    redis_tls_free(redis->tls);
    uv_close((uv_handle_t *)&redis->end, on_end_closed);
}
