/* Where a connection leads, and a hiredis context that leads there. */
#ifndef STORE_REDIS_CONNECT_H
#define STORE_REDIS_CONNECT_H

#include <hiredis/async.h>
#include <stdbool.h>

#include "base/settings.h"
#include "store/redis_address.h"

struct redis_tls;

struct redis_target {
    const struct redis_url *url;  /* borrowed */
    struct redis_tls *tls;        /* borrowed; NULL: none */
    struct redis_address address; /* of its host; unused with a unix socket */
};

/* Looks the host up, blocking, once: for the start of a process. */
void redis_target_init(struct redis_target *target, const struct redis_url *url,
                       struct redis_tls *tls);
void redis_target_clear(struct redis_target *target);

/* False while its host has no address. */
bool redis_target_is_known(const struct redis_target *target);

/* Look the host up again, off the loop. */
void redis_target_renew(struct redis_target *target, uv_loop_t *loop);

/* A context that connects to a target that is known, owned by the caller and not yet attached to a
 * loop. With err set when that failed at once. */
redisAsyncContext *redis_connect(const struct redis_target *target);

#endif
