/* Where a connection leads, and a hiredis context that leads there. */
#ifndef STORE_REDIS_CONNECT_H
#define STORE_REDIS_CONNECT_H

#include <hiredis/async.h>
#include <stdbool.h>

#include "base/settings.h"
#include "store/redis_address.h"

struct redis_tls;

struct redis_target {
    const struct redis_url *url; /* borrowed */
    struct redis_tls *tls;       /* borrowed; NULL: none */
    const char *socket_path;     /* borrowed; NULL: place and address */
    struct redis_place place;
    struct redis_address address;
};

/* place NULL: where url leads; its host is looked up at once, blocking: for the start of a process.
 * Otherwise place, looked up off the loop. The target must stay where it is. */
void redis_target_init(struct redis_target *target, const struct redis_url *url,
                       const struct redis_place *place, struct redis_tls *tls, uv_loop_t *loop);
void redis_target_clear(struct redis_target *target);

/* False while its host has no address. */
bool redis_target_is_known(const struct redis_target *target);

/* True while its host is being looked up. */
bool redis_target_is_looked_up(const struct redis_target *target);

/* Look the host up again, off the loop. */
void redis_target_renew(struct redis_target *target, uv_loop_t *loop);

/* Append what the log calls it: "host:port", or the path of a socket. */
void redis_target_name(const struct redis_target *target, struct buf *out);

/* A context that connects to a target that is known, owned by the caller and not yet attached to a
 * loop. With err set when that failed at once. */
redisAsyncContext *redis_connect(const struct redis_target *target);

#endif
