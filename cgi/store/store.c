/* What all records have in common: their keys, their seal, the connection. Logins are in
 * store_login.c, sessions in store_session.c and store_user.c, renewals in store_lease.c; how Redis
 * itself is doing is store_health.c's. */
#include "store/store.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "store/store_impl.h"

int store_check(const struct settings *settings, bool are_sound, FILE *problems)
{
    return redis_check(settings, are_sound, problems);
}

struct store *store_new(uv_loop_t *loop, const struct settings *settings)
{
    struct store *store = xcalloc(1, sizeof(*store));
    store->redis = redis_new(loop, settings);
    store->settings = settings;
    return store;
}

void store_free(struct store *store)
{
    redis_free(store->redis);
    free(store);
}

void store_key(const struct store *store, const char *kind, const char *name, struct buf *out)
{
    buf_adds(out, store->settings->redis_prefix);
    buf_adds(out, kind);
    buf_adds(out, ":{");
    buf_adds(out, name);
    buf_addc(out, '}');
}

struct store_number store_number(int64_t number)
{
    struct store_number out;
    snprintf(out.text, sizeof(out.text), "%" PRId64, number);
    return out;
}

bool store_is_reply(const struct redis_value *value, const char *word, size_t count)
{
    return value->type == REDIS_IS_ARRAY && value->item_count == count &&
           strcmp(buf_str(&value->items[0].text), word) == 0;
}

enum err store_open(const struct store *store, const char *kind, const struct secret *secret,
                    const struct buf *aad, const void *sealed, size_t len, struct buf *plain)
{
    enum err err = seal_open(&store->settings->keys, secret, aad, sealed, len, plain);
    if (err == ERR_SEAL_KEY) {
        log_error("record under unknown key", LOG_TEXT("record", kind));
        return ERR_STORE;
    }
    if (err) {
        log_error("record does not open", LOG_TEXT("record", kind));
        return ERR_SEAL;
    }
    return OK;
}

enum err store_delete_key(struct store *store, const struct buf *key, bool *was_there)
{
    struct redis_value value = {0};
    const struct redis_arg args[] = {REDIS_TEXT("DEL"), REDIS_BUF(key)};
    enum err err = redis_command(store->redis, args, 2, &value);
    if (!err && value.type != REDIS_IS_INTEGER) { /* not to tell anybody that it is gone */
        err = ERR_STORE;
    }
    if (!err && was_there) {
        *was_there = value.integer == 1;
    }
    redis_value_clear(&value);
    return err;
}

enum err store_confirm(struct store *store, enum err err)
{
    bool is_gone = err == ERR_ABSENT || err == ERR_REPLACED;
    return is_gone && redis_confirm(store->redis) ? ERR_STORE : err;
}

static void backoff_key(const struct store *store, struct buf *out)
{
    buf_adds(out, store->settings->redis_prefix);
    buf_adds(out, "backoff");
}

enum err store_get_backoff(struct store *store, int64_t *until_unix_ms)
{
    struct buf key = {0};
    struct redis_value value = {0};
    backoff_key(store, &key);
    const struct redis_arg args[] = {REDIS_TEXT("GET"), REDIS_BUF(&key)};
    enum err err = redis_command(store->redis, args, 2, &value);
    if (!err) {
        *until_unix_ms = strtoll(buf_str(&value.text), NULL, 10);
    }
    redis_value_clear(&value);
    buf_clear(&key);
    return err;
}

/* Of two answers on their way at once, the one that asks for less must not shorten the other's.
 * KEYS: backoff. ARGV: until, in unix ms, TTL in ms. */
static struct redis_script backoff_script = {
    .source = "local kept = tonumber(redis.call('GET', KEYS[1]) or '0') "
              "if kept and kept >= tonumber(ARGV[1]) then return 0 end "
              "redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) "
              "return 1",
};

enum err store_put_backoff(struct store *store, int64_t until_unix_ms)
{
    int64_t left_ms = until_unix_ms - clock_unix_ms();
    if (left_ms <= 0) {
        return OK;
    }
    struct buf key = {0};
    struct store_number until = store_number(until_unix_ms);
    struct store_number left = store_number(left_ms);
    backoff_key(store, &key);
    const struct redis_arg keys[] = {REDIS_BUF(&key)};
    const struct redis_arg args[] = {REDIS_TEXT(until.text), REDIS_TEXT(left.text)};
    struct redis_value value = {0};
    enum err err = redis_eval(store->redis, &backoff_script, keys, 1, args, 2, &value);
    redis_value_clear(&value);
    buf_clear(&key);
    return err;
}
