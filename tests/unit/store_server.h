/* What the tests of store/ share: a store on a Redis of their own, and a look at its keys. Each
 * sets what else it needs in settings before store_start. */
#ifndef TESTS_STORE_SERVER_H
#define TESTS_STORE_SERVER_H

#include "redis_server.h"

#include "store/redis.h"
#include "store/store.h"

static struct settings settings;
static struct store *store;
static struct redis *redis; /* the test's own look at the keys */

static void store_start(void)
{
    static char prefix[] = "test:";
    server_start("");
    settings.redis.socket_path = server_socket;
    settings.redis_prefix = prefix;
    settings.store_timeout_ms = 500;
    settings.keys.count = 1;
    strcpy(settings.keys.keys[0].kid, "k1");
    memset(settings.keys.keys[0].key, 7, SEAL_KEY_LEN);
    store = store_new(uv_default_loop(), &settings);
    redis = redis_new(uv_default_loop(), &settings);
}

static int tear_down(void **state)
{
    (void)state;
    store_free(store);
    redis_free(redis);
    uv_run(uv_default_loop(), UV_RUN_DEFAULT);
    server_kill();
    return 0;
}

/* A command with up to two arguments; NULL: without. */
static struct redis_value ask(const char *name, const char *a, const char *b)
{
    struct redis_value value = {0};
    const struct redis_arg args[] = {REDIS_TEXT(name), REDIS_TEXT(a ? a : ""),
                                     REDIS_TEXT(b ? b : "")};
    CHECK(redis_command(redis, args, b ? 3 : a ? 2 : 1, &value) == OK);
    return value;
}

#endif
