/* Looks, in a fiber of its own, for the masters behind a REDIS_URL of several hosts: asks Sentinels
 * for the one of that name, or nodes of a Cluster for all of theirs. They are asked in turn, each
 * for a part of STORE_TIMEOUT_MS, until one answers, beginning with the one that answered last;
 * with the one after it when that answer was of no use. Sentinels that are asked only whether
 * something has changed are asked until one says so: some of them learn it seconds after the
 * others. */
#ifndef STORE_REDIS_SEARCH_H
#define STORE_REDIS_SEARCH_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/settings.h"
#include "store/redis_slots.h"
#include "store/redis_trouble.h"

struct redis_search;
struct redis_tls;

/* Who is told; both are called in the search's own fiber. */
struct redis_search_owner {
    void *self;
    /* What was found. True when it says something new. */
    bool (*found)(void *self, const struct redis_map *map);
    /* Found or not, the search is over. */
    void (*ended)(void *self);
};

/* Owned by the caller; settings and tls (NULL: none) are borrowed for its life. */
struct redis_search *redis_search_new(uv_loop_t *loop, const struct settings *settings,
                                      struct redis_tls *tls,
                                      const struct redis_search_owner *owner);
void redis_search_free(struct redis_search *search);

/* Begin one, unless one is under way. Returns 0, or when to call again, by the loop's clock: there
 * are pauses between searches that find nothing new. */
uint64_t redis_search_begin(struct redis_search *search);

/* The same for what may have changed while nobody waits for it, if the last search ended gap_ms
 * ago. */
void redis_search_refresh(struct redis_search *search, uint64_t gap_ms);

/* How many have begun, and whether one is under way. */
uint64_t redis_search_count(const struct redis_search *search);
bool redis_search_is_running(const struct redis_search *search);

/* Why the last search found nothing; TROUBLE_NONE when it did, or there was none yet. */
enum redis_trouble redis_search_trouble(const struct redis_search *search);

#endif
