/* When to connect to Redis again. At once after a good connection was lost; after that with pauses
 * that double up to a cap and are drawn by lot, so that many workers do not come back together. */
#ifndef STORE_REDIS_PAUSE_H
#define STORE_REDIS_PAUSE_H

#include <stdint.h>

/* All zero at the start. */
struct redis_pause {
    unsigned losses;   /* in a row, without a connection that held */
    uint64_t until_ms; /* no attempt before; 0: none is kept from */
};

/* A connection that was of use for good_ms (0: never), or an attempt, has ended at now_ms. No pause
 * is longer than cap_ms, or than a second. */
void redis_pause_note_loss(struct redis_pause *pause, uint64_t now_ms, uint64_t good_ms,
                           uint64_t cap_ms);

#endif
