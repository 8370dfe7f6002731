/* What is safe to try again, and what the breaker hears. All tries share one deadline, because a
 * renewal's lease is computed from it. What an answer says is for accounts.c. */
#include "spotify/attempt.h"

#include "base/clock.h"
#include "base/fiber.h"
#include "base/log.h"
#include "base/metrics.h"

/* The pause before a further try: the jitter keeps a crowd from coming back together. */
#define PAUSE_MIN_MS 50
#define PAUSE_JITTER_MS 100

/* All that is asked of chance here is that workers and calls differ. */
static uint64_t chance(void)
{
    return clock_mono_us();
}

static void show(const struct breaker *breaker)
{
    bool is_open = breaker_is_open(breaker);
    log_line(is_open ? LOG_WARN : LOG_INFO, is_open ? "breaker open" : "breaker closed",
             LOG_TEXT("service", breaker->name));
    metrics_set_breaker(breaker->name, is_open);
}

void attempt_lapse(struct breaker *breaker)
{
    if (breaker_lapse(breaker, clock_mono_ms())) {
        show(breaker);
    }
}

static void note(struct breaker *breaker, bool is_failure, uint64_t begun_ms)
{
    if (breaker_note(breaker, is_failure, begun_ms, clock_mono_ms(), chance()) != BREAKER_STAYS) {
        show(breaker);
    }
}

enum err attempt_once(struct upstream *upstream, struct breaker *breaker,
                      const struct upstream_call *call, struct upstream_answer *answer)
{
    struct upstream_call alone = *call;
    uint64_t begun_ms = clock_mono_ms();
    alone.is_alone = breaker_is_open(breaker);
    enum err err = upstream_call(upstream, &alone, answer);
    if (err != ERR_UPSTREAM_BUSY && !answer->is_withheld) { /* neither says anything of Spotify */
        note(breaker, err != OK || answer->status >= 500, begun_ms);
    }
    return err;
}

/* A refresh token or code may be spent by a call whose answer was lost or is late (RFC 9110 9.2.2);
 * and who asks to wait, by 429 or Retry-After, is not asked again at once. */
static bool is_safe_again(enum err err, const struct upstream_answer *answer)
{
    if (err == ERR_UPSTREAM) {
        return answer->is_unsent;
    }
    return err == OK && (answer->status == 502 || answer->status == 503) &&
           answer->retry_after_s < 0;
}

/* No further try begins in the second half of the time that all have together: one that our own
 * deadline cuts off may cost the refresh token. */
static bool is_early(const struct upstream_call *call, int64_t left_ms)
{
    return left_ms > call->timeout_ms / 2;
}

enum err attempt_call(struct upstream *upstream, struct breaker *breaker,
                      const struct upstream_call *call, struct upstream_answer *answer)
{
    struct upstream_call one = *call;
    int64_t deadline_ms = (int64_t)clock_mono_ms() + call->timeout_ms;
    for (uint64_t tries = 1;; tries++) {
        enum err err = attempt_once(upstream, breaker, &one, answer);
        uint64_t pause_ms =
            PAUSE_MIN_MS + (tries - 1) * PAUSE_JITTER_MS + chance() % PAUSE_JITTER_MS;
        int64_t left_ms = deadline_ms - (int64_t)(clock_mono_ms() + pause_ms);
        if (tries == ATTEMPTS_MAX || !is_safe_again(err, answer) || breaker_is_open(breaker) ||
            !is_early(call, left_ms)) {
            return err;
        }
        fiber_sleep(pause_ms);
        /* This process may have stood still meanwhile. */
        one.timeout_ms = deadline_ms - (int64_t)clock_mono_ms();
        if (breaker_is_open(breaker) || !is_early(call, one.timeout_ms)) {
            return err;
        }
        upstream_answer_clear(answer);
    }
}
