/* Makes hiredis contexts. What is said over them first is redis_link.c's business. */
#include "store/redis_connect.h"

#include <fcntl.h>
#include <stdlib.h>

#include "store/redis_tls.h"

void redis_target_init(struct redis_target *target, const struct redis_url *url,
                       struct redis_tls *tls)
{
    *target = (struct redis_target){.url = url, .tls = tls};
    if (!url->socket_path) {
        redis_address_init(&target->address, url->host);
    }
}

void redis_target_clear(struct redis_target *target)
{
    redis_address_clear(&target->address);
}

bool redis_target_is_known(const struct redis_target *target)
{
    return target->url->socket_path || target->address.text[0];
}

void redis_target_renew(struct redis_target *target, uv_loop_t *loop)
{
    redis_address_renew(&target->address, loop);
}

redisAsyncContext *redis_connect(const struct redis_target *target)
{
    const struct redis_url *url = target->url;
    redisAsyncContext *context = url->socket_path
                                     ? redisAsyncConnectUnix(url->socket_path)
                                     : redisAsyncConnect(target->address.text, url->port);
    if (!context) {
        abort();
    }
    if (!context->err) {
        fcntl(context->c.fd, F_SETFD, FD_CLOEXEC);
        if (!url->socket_path) { /* routers forget connections on which nothing happens */
            redisEnableKeepAlive(&context->c);
        }
    }
    if (!context->err && target->tls) {
        redis_tls_begin(target->tls, context, url->host);
    }
    return context;
}
