/* The app's own token and the lease of its renewal. Like a session's, each decision is one script.
 * Unlike a session's, two tokens of two calls are good beside each other, so nothing has to be
 * fenced: what comes late is only not written. */
#include <string.h>

#include "base/clock.h"
#include "store/record.h"
#include "store/store_impl.h"

/* A3. What is shorter than a record counts as none. KEYS: app-token, lease. ARGV: version seen,
 * owner, TTL in ms, the owner that was waited for ("" at first). */
static struct redis_script take_script = {
    .source = "local record = redis.call('GET', KEYS[1]) "
              "if record and #record > 8 and string.sub(record, 1, 8) ~= ARGV[1] then "
              "  return {'newer', record} "
              "end "
              "local holder = redis.call('GET', KEYS[2]) "
              "if holder and string.sub(holder, 1, 1) ~= '!' then return {'held', holder} end "
              "if holder == '!' .. ARGV[4] then return {'failed'} end "
              "redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3]) "
              "return {'taken'}",
};

/* A5. KEYS: app-token, lease. ARGV: owner, version seen, value, TTL in ms. */
static struct redis_script put_script = {
    .source = "local holder = redis.call('GET', KEYS[2]) "
              "if holder and (holder == ARGV[1] or string.sub(holder, 1, 1) == '!') then "
              "  redis.call('DEL', KEYS[2]) "
              "end "
              "local record = redis.call('GET', KEYS[1]) "
              "if record and #record > 8 and string.sub(record, 1, 8) ~= ARGV[2] then "
              "  return {'newer'} "
              "end "
              "redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4]) "
              "return {'done'}",
};

struct app_keys {
    struct secret secret; /* what the record is sealed under, beside the key ring */
    struct buf token;
    struct buf lease;
};

/* Another client id or secret is another app with another key, so that a changed secret never meets
 * a record that it cannot open. */
static struct app_keys app_keys(const struct store *store)
{
    const struct settings *settings = store->settings;
    struct app_keys keys = {0};
    struct buf credentials = {0};
    char text[SECRET_NAME_LEN + 1];
    char name[SECRET_NAME_LEN + 1];
    buf_add(&credentials, settings->client_id, strlen(settings->client_id) + 1);
    buf_adds(&credentials, settings->client_secret);
    secret_name("app token seal", credentials.data, credentials.len, text);
    (void)secret_parse(text, &keys.secret);
    secret_name("app token", keys.secret.bytes, SECRET_LEN, name);
    store_key(store, "app-token", name, &keys.token);
    store_key(store, "lease", name, &keys.lease);
    explicit_bzero(text, sizeof(text));
    buf_clear(&credentials);
    return keys;
}

static void app_keys_clear(struct app_keys *keys)
{
    secret_wipe(&keys->secret);
    buf_clear(&keys->token);
    buf_clear(&keys->lease);
}

static void add_aad(struct buf *aad, const struct buf *key, const void *version)
{
    buf_add(aad, key->data, key->len);
    buf_add(aad, version, GENERATION_LEN);
}

static void seal_token(const struct store *store, const struct app_keys *keys,
                       const struct app_token *token, struct buf *out)
{
    struct store_generation version = store_generation((uint64_t)token->obtained_at_ms);
    struct buf aad = {0}, plain = {0};
    add_aad(&aad, &keys->token, version.bytes);
    record_format_app_token(token, &plain);
    buf_add(out, version.bytes, GENERATION_LEN);
    seal_seal(&store->settings->keys, &keys->secret, &aad, &plain, out);
    buf_clear(&plain);
    buf_clear(&aad);
}

/* A record that does not open (of another key ring, cut, changed) is as good as none, since a new
 * token can always be had: only its version is read then. */
static void open_token(const struct store *store, const struct app_keys *keys,
                       const struct buf *value, struct app_token *out)
{
    struct buf aad = {0}, plain = {0};
    *out = (struct app_token){0};
    if (value->len < GENERATION_LEN) {
        return;
    }
    add_aad(&aad, &keys->token, value->data);
    if (store_open(store, "app token", &keys->secret, &aad, value->data + GENERATION_LEN,
                   value->len - GENERATION_LEN, &plain) == OK) {
        (void)record_parse_app_token(buf_str(&plain), plain.len, out);
    }
    out->obtained_at_ms = (int64_t)store_read_generation(value);
    buf_clear(&plain);
    buf_clear(&aad);
}

enum err store_take_app_lease(struct store *store, int64_t seen_at_ms, int64_t lease_ms,
                              struct lease *lease, struct app_token *out)
{
    struct app_keys keys = app_keys(store);
    struct store_generation seen = store_generation((uint64_t)seen_at_ms);
    struct store_number life = store_number(lease_ms);
    struct redis_value value = {0};
    store_new_owner(lease);
    const struct redis_arg names[] = {REDIS_BUF(&keys.token), REDIS_BUF(&keys.lease)};
    const struct redis_arg args[] = {{seen.bytes, GENERATION_LEN},
                                     REDIS_TEXT(lease->owner),
                                     REDIS_TEXT(life.text),
                                     REDIS_TEXT(lease->waited_for)};
    enum err err = redis_eval(store->redis, &take_script, names, 2, args, 4, &value);
    if (!err && store_is_reply(&value, "newer", 2)) {
        open_token(store, &keys, &value.items[1].text, out);
        err = ERR_STALE;
    } else if (!err && store_is_reply(&value, "held", 2)) {
        const struct buf *holder = &value.items[1].text;
        size_t len = holder->len < LEASE_OWNER_LEN ? holder->len : LEASE_OWNER_LEN;
        memcpy(lease->waited_for, buf_str(holder), len);
        lease->waited_for[len] = '\0';
        err = ERR_HELD;
    } else if (!err && store_is_reply(&value, "failed", 1)) {
        err = ERR_UPSTREAM;
    } else if (!err && !store_is_reply(&value, "taken", 1)) {
        err = ERR_STORE;
    }
    redis_value_clear(&value);
    app_keys_clear(&keys);
    return err;
}

enum err store_put_app_token(struct store *store, const struct lease *lease, int64_t seen_at_ms,
                             const struct app_token *token)
{
    int64_t left_ms = token->expires_at * 1000 - clock_unix_ms();
    struct app_keys keys = app_keys(store);
    struct store_generation seen = store_generation((uint64_t)seen_at_ms);
    struct store_number left = store_number(left_ms > 0 ? left_ms : 1);
    struct buf sealed = {0};
    struct redis_value value = {0};
    seal_token(store, &keys, token, &sealed);
    const struct redis_arg names[] = {REDIS_BUF(&keys.token), REDIS_BUF(&keys.lease)};
    const struct redis_arg args[] = {REDIS_TEXT(lease->owner),
                                     {seen.bytes, GENERATION_LEN},
                                     REDIS_BUF(&sealed),
                                     REDIS_TEXT(left.text)};
    enum err err = redis_eval(store->redis, &put_script, names, 2, args, 4, &value);
    if (!err && store_is_reply(&value, "newer", 1)) {
        err = ERR_STALE;
    } else if (!err && !store_is_reply(&value, "done", 1)) {
        err = ERR_STORE;
    }
    redis_value_clear(&value);
    buf_clear(&sealed);
    app_keys_clear(&keys);
    return err;
}

enum err store_release_app_lease(struct store *store, const struct lease *lease, bool failed)
{
    struct app_keys keys = app_keys(store);
    enum err err = store_release_key(store, &keys.lease, lease, failed);
    app_keys_clear(&keys);
    return err;
}
