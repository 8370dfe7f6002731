/* When calls to a service of Spotify's that is down are held back, and when one is let through to
 * look. What counts as a failure is for attempt.c, what is answered meanwhile for the flows. */
#include "spotify/breaker.h"

bool breaker_is_open(const struct breaker *breaker)
{
    return breaker->is_open;
}

/* The jitter keeps workers from probing together. */
static uint64_t next_probe_ms(uint64_t now_ms, uint64_t random)
{
    return now_ms + BREAKER_PROBE_MIN_MS +
           random % (BREAKER_PROBE_MAX_MS - BREAKER_PROBE_MIN_MS + 1);
}

bool breaker_admits(struct breaker *breaker, uint64_t now_ms, uint64_t random)
{
    if (!breaker->is_open) {
        return true;
    }
    if (now_ms < breaker->probe_at_ms) {
        return false;
    }
    breaker->probe_at_ms = next_probe_ms(now_ms, random);
    return true;
}

bool breaker_lapse(struct breaker *breaker, uint64_t now_ms)
{
    if (!breaker->is_open || now_ms < breaker->probe_at_ms + BREAKER_LAPSE_MS) {
        return false;
    }
    breaker->is_open = false;
    breaker->failures = BREAKER_FAILURES_MAX - 1;
    return true;
}

static enum breaker_change note_success(struct breaker *breaker, uint64_t now_ms)
{
    bool was_open = breaker->is_open;
    breaker->is_open = false;
    breaker->failures = 0;
    breaker->success_at_ms = now_ms;
    return was_open ? BREAKER_CLOSES : BREAKER_STAYS;
}

enum breaker_change breaker_note(struct breaker *breaker, bool is_failure, uint64_t begun_ms,
                                 uint64_t now_ms, uint64_t random)
{
    if (!is_failure) {
        return note_success(breaker, now_ms);
    }
    if (breaker->is_open || begun_ms < breaker->success_at_ms) {
        return BREAKER_STAYS;
    }
    breaker->failures++;
    if (breaker->failures < BREAKER_FAILURES_MAX) {
        return BREAKER_STAYS;
    }
    breaker->is_open = true;
    breaker->probe_at_ms = next_probe_ms(now_ms, random);
    return BREAKER_OPENS;
}
