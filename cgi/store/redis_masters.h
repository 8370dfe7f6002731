/* The masters that are known, their links and their slots. With Sentinels it is one that has all.
 */
#ifndef STORE_REDIS_MASTERS_H
#define STORE_REDIS_MASTERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/settings.h"
#include "store/redis_link.h"
#include "store/redis_slots.h"

/* A Cluster's own limit is about that. */
#define REDIS_NODES_MAX 1024

struct redis_node {
    struct redis_place place;
    struct redis_link *link; /* NULL: not needed yet */
    size_t slots;
    uint64_t asked_ms; /* when an ASK last led here; 0: never */
};

struct redis_masters {
    uv_loop_t *loop;
    const struct settings *settings;           /* borrowed */
    struct redis_tls *tls;                     /* borrowed; NULL: none */
    struct redis_link_owner owner;             /* of the links */
    struct redis_node *nodes[REDIS_NODES_MAX]; /* owned; NULL: none */
    uint16_t owners[REDIS_SLOTS];              /* index of the node plus one; 0: nobody */
    size_t covered;                            /* slots that have an owner */
};

/* All zero but for the first four at the start. */
void redis_masters_clear(struct redis_masters *masters);

/* Learn all there are, and forget the others. True when it says something new, which is logged. */
bool redis_masters_take(struct redis_masters *masters, const struct redis_map *map);

/* The index of the node there, which may be a new one; -1: there are too many. */
int redis_masters_find(struct redis_masters *masters, const struct redis_place *place);

/* That slot is the at-th node's. */
void redis_masters_move(struct redis_masters *masters, int slot, int at);

/* The link to who has the slot; NULL: nobody is known to. slot -1: to any, best one that is ready.
 */
struct redis_link *redis_masters_link(struct redis_masters *masters, int slot);

/* The link to the at-th node; NULL: there is none. */
struct redis_link *redis_masters_link_at(struct redis_masters *masters, int at);

/* The number of those that have slots, and the index-th of them as a node; -1: there are less. */
size_t redis_masters_count(const struct redis_masters *masters);
int redis_masters_node(const struct redis_masters *masters, size_t index);

/* The node that has the slot; -1: nobody. */
int redis_masters_owner(const struct redis_masters *masters, int slot);

#endif
