/* Arithmetic only: who waits, and for whom, is redis_link.c's business. */
#include "store/redis_pause.h"

#include "base/seal.h"

/* A connection that served for so long was good: what ended it is over, as far as anybody knows. */
#define GOOD_MS 1000
#define FIRST_MS 20
#define LONGEST_MS 1000
#define DOUBLINGS_MAX 6

static uint64_t random_below(uint64_t limit)
{
    struct secret random;
    secret_new(&random);
    uint64_t number = (uint64_t)random.bytes[0] << 8 | random.bytes[1];
    return number % limit;
}

void redis_pause_note_loss(struct redis_pause *pause, uint64_t now_ms, uint64_t good_ms,
                           uint64_t cap_ms)
{
    if (good_ms >= GOOD_MS) {
        *pause = (struct redis_pause){.until_ms = now_ms};
        return;
    }
    uint64_t span_ms = (uint64_t)FIRST_MS
                       << (pause->losses < DOUBLINGS_MAX ? pause->losses : DOUBLINGS_MAX);
    span_ms = span_ms < LONGEST_MS ? span_ms : LONGEST_MS;
    span_ms = span_ms < cap_ms ? span_ms : cap_ms;
    pause->losses++;
    pause->until_ms = now_ms + span_ms / 2 + random_below(span_ms / 2 + 1);
}
