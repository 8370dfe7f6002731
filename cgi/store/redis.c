/* What store*.c see of Redis: commands that a fiber waits for. Here it is decided which link a
 * command goes over; links are redis_link.c's business. */
#include "store/redis.h"

#include <assert.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/fiber.h"
#include "base/log.h"
#include "base/metrics.h"
#include "store/redis_link.h"
#include "store/redis_tls.h"

struct redis {
    uv_loop_t *loop;
    const struct settings *settings; /* borrowed */
    struct redis_tls *tls;           /* owned; NULL: none */
    struct redis_link *link;         /* owned */
    enum redis_trouble trouble;      /* see redis_trouble() */
    uv_timer_t end;                  /* closed last: fibers that redis_free wakes look in here */
};

/* Send commands, wait for them all; on failure no out holds anything. outs NULL: not looked at. */
static enum err run_commands(struct redis *redis, const struct redis_arg *args,
                             const size_t *counts, size_t commands, struct redis_value *outs,
                             bool is_quiet)
{
    uint64_t begin_us = clock_mono_us();
    struct redis_wait wait = {.fiber = fiber_self(), .is_quiet = is_quiet};
    /* The loop's clock is that of its last turn, and this process may have stood still since. */
    uv_update_time(redis->loop);
    wait.deadline_ms = uv_now(redis->loop) + (uint64_t)redis->settings->store_timeout_ms;
    assert(wait.fiber);
    redis_link_await(redis->link);
    for (size_t i = 0; i < commands; i++) {
        struct redis_value *out = outs ? &outs[i] : NULL;
        if (out) {
            *out = (struct redis_value){0};
        }
        if (!redis_link_send(redis->link, args, counts[i], &wait, out)) {
            wait.trouble = redis_link_trouble(redis->link);
        }
        args += counts[i];
    }
    if (wait.unanswered > 0) {
        fiber_park();
    }
    uint64_t waited_us = clock_mono_us() - begin_us;
    struct log_context *context = log_context();
    if (context) {
        context->store_us += waited_us;
    }
    metrics_observe_redis(waited_us);
    if (!wait.trouble) {
        return OK;
    }
    redis->trouble = wait.trouble;
    if (!is_quiet && wait.trouble != TROUBLE_NOSCRIPT) {
        metrics_count_word(METRIC_REDIS_ERRORS, redis_trouble_word(wait.trouble));
    }
    for (size_t i = 0; outs && i < commands; i++) {
        redis_value_clear(&outs[i]);
    }
    return ERR_STORE;
}

enum err redis_command(struct redis *redis, const struct redis_arg *args, size_t count,
                       struct redis_value *out)
{
    return run_commands(redis, args, &count, 1, out, false);
}

enum err redis_probe(struct redis *redis, const struct redis_arg *args, size_t count,
                     struct redis_value *out)
{
    return run_commands(redis, args, &count, 1, out, true);
}

enum err redis_pipeline(struct redis *redis, const struct redis_arg *args, const size_t *counts,
                        size_t commands, struct redis_value *outs)
{
    return run_commands(redis, args, counts, commands, outs, false);
}

void redis_send(struct redis *redis, const struct redis_arg *args, size_t count)
{
    redis_link_send(redis->link, args, count, NULL, NULL);
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
    redis->link = redis_link_new(loop, settings, redis->tls);
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
    redis_link_free(redis->link);
    redis_tls_free(redis->tls);
    uv_close((uv_handle_t *)&redis->end, on_end_closed);
}
