/* One pipelined connection to one Redis, made when the first command comes and made anew, after a
 * pause where need be, when one comes after its loss. Which command goes over which link, and what
 * is done about one that fails, is redis.c's business. */
#ifndef STORE_REDIS_LINK_H
#define STORE_REDIS_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/fiber.h"
#include "base/settings.h"
#include "store/redis.h"

struct redis_link;
struct redis_tls;

/* A fiber that waits for its commands. Lives on the fiber's stack. */
struct redis_wait {
    struct fiber *fiber;
    uint64_t deadline_ms; /* by the loop's clock */
    size_t unanswered;
    bool is_quiet;              /* error replies are not logged */
    enum redis_trouble trouble; /* of the first command that failed */
};

/* A link to where REDIS_URL leads. Owned by the caller; settings and tls (NULL: none) are borrowed
 * for its life. Looks its host name up, blocking. */
struct redis_link *redis_link_new(uv_loop_t *loop, const struct settings *settings,
                                  struct redis_tls *tls);

/* Commands in flight fail before any fiber runs again. */
void redis_link_free(struct redis_link *link);

/* Wait until the next attempt to connect may be made, when there is no connection. */
void redis_link_await(struct redis_link *link);

/* Send a command. False: there is no connection, see redis_link_trouble. True: wait counts it as
 * unanswered until its reply, its deadline or the connection's end; the last of them wakes its
 * fiber. out is filled from a good reply. wait NULL: nobody waits; out NULL: nobody looks. */
bool redis_link_send(struct redis_link *link, const struct redis_arg *args, size_t count,
                     struct redis_wait *wait, struct redis_value *out);

/* How the last connection, or the last attempt to make one, ended. */
enum redis_trouble redis_link_trouble(const struct redis_link *link);

#endif
