/* The masters behind a REDIS_URL of several hosts: the one that Sentinels name, or those of a
 * Cluster, each with its slots. Commands find their way to the right one, again where it has
 * changed meanwhile, all within STORE_TIMEOUT_MS. A command is sent again only when it surely was
 * not done: it never left, or was refused for where or when it came (redis_trouble_is_elsewhere).
 * One whose connection was lost is not. */
#ifndef STORE_REDIS_FLEET_H
#define STORE_REDIS_FLEET_H

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

#include "base/settings.h"
#include "store/redis_link.h"
#include "store/redis_masters.h"

struct redis_fleet;
struct redis_tls;

/* Owned by the caller; settings and tls (NULL: none) are borrowed for its life. */
struct redis_fleet *redis_fleet_new(uv_loop_t *loop, const struct settings *settings,
                                    struct redis_tls *tls);

/* Who waits for a command gets ERR_STORE before this memory is gone. */
void redis_fleet_free(struct redis_fleet *fleet);

/* Run count calls of one fiber, whose wait they share and of which args, count, out and node are
 * set; each has its trouble then. */
void redis_fleet_run(struct redis_fleet *fleet, struct redis_call *calls, size_t count);

/* Send a command that nobody waits for; args are copied. */
void redis_fleet_send(struct redis_fleet *fleet, const struct redis_arg *args, size_t count);

/* Whether Sentinels, asked anew, still name nobody else than the master that answered so far. True
 * without Sentinels, and when none of them can be asked. Waits, STORE_TIMEOUT_MS at most. */
bool redis_fleet_confirm(struct redis_fleet *fleet);

/* The masters as far as they are known. */
const struct redis_masters *redis_fleet_masters(const struct redis_fleet *fleet);

/* Whether each slot has a master. Looks for them when not. */
bool redis_fleet_is_whole(struct redis_fleet *fleet);

#endif
