/* Makes hiredis contexts. What is said over them first is redis_link.c's business. */
#include "store/redis_connect.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "store/redis_tls.h"

void redis_target_init(struct redis_target *target, const struct redis_url *url,
                       const struct redis_place *place, struct redis_tls *tls, uv_loop_t *loop)
{
    *target = (struct redis_target){.url = url, .tls = tls};
    if (place) {
        target->place = *place;
        redis_address_begin(&target->address, target->place.host, loop);
    } else if (url->socket_path) {
        target->socket_path = url->socket_path;
    } else {
        target->place = redis_place(url->host, url->port);
        redis_address_init(&target->address, target->place.host);
    }
}

void redis_target_clear(struct redis_target *target)
{
    redis_address_clear(&target->address);
}

bool redis_target_is_known(const struct redis_target *target)
{
    return target->socket_path || target->address.text[0];
}

bool redis_target_is_looked_up(const struct redis_target *target)
{
    return target->address.lookup != NULL;
}

void redis_target_renew(struct redis_target *target, uv_loop_t *loop)
{
    redis_address_renew(&target->address, loop);
}

void redis_target_name(const struct redis_target *target, struct buf *out)
{
    if (target->socket_path) {
        buf_adds(out, target->socket_path);
    } else {
        redis_place_name(&target->place, out);
    }
}

redisAsyncContext *redis_connect(const struct redis_target *target)
{
    redisAsyncContext *context = target->socket_path
                                     ? redisAsyncConnectUnix(target->socket_path)
                                     : redisAsyncConnect(target->address.text, target->place.port);
    if (!context) {
        abort();
    }
    if (!context->err) {
        fcntl(context->c.fd, F_SETFD, FD_CLOEXEC);
        if (!target->socket_path) { /* routers forget connections on which nothing happens */
            redisEnableKeepAlive(&context->c);
        }
    }
    if (!context->err && target->tls) {
        redis_tls_begin(target->tls, context, target->place.host);
    }
    return context;
}
