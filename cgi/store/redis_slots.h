/* A Cluster's slots (Redis Cluster Specification): which one a command belongs to, and what nodes
 * say about who owns which. */
#ifndef STORE_REDIS_SLOTS_H
#define STORE_REDIS_SLOTS_H

#include <stddef.h>

#include "base/err.h"
#include "store/redis_address.h"
#include "store/redis_command.h"

#define REDIS_SLOTS 16384

/* The slot of a key: CRC16 of what is between its first braces, of all of it without. */
int redis_slot_of_key(const void *key, size_t len);

/* The slot of a command's first key; -1 for one without keys. Knows the commands that store*.c
 * use. */
int redis_slot_of_command(const struct redis_arg *args, size_t count);

/* A host and port as a node or a Sentinel gives them, from being the host that was asked.
 * ERR_FORMAT. */
enum err redis_place_read(const struct buf *host, int64_t port, const char *from,
                          struct redis_place *out);

/* Slots first to last and their master. */
struct redis_range {
    int first;
    int last;
    struct redis_place owner;
};

struct redis_map {
    struct redis_range *items; /* owned */
    size_t count;
};
void redis_map_clear(struct redis_map *map);

/* Read a reply to CLUSTER SLOTS of the node at from, whose host is that of all who name none.
 * ERR_FORMAT: it is none, names nobody, or gives away more slots than there are. */
enum err redis_map_read(const struct redis_value *reply, const char *from, struct redis_map *out);

/* Read "MOVED slot host:port" or "ASK slot host:port", said by the node at from. ERR_FORMAT. */
enum err redis_redirect_parse(const char *error, const char *from, int *slot,
                              struct redis_place *out);

#endif
