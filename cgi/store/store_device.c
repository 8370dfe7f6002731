/* Devices that wait for a login, and what a browser leaves for them. A user code is short enough to
 * be guessed from its hash by who has all of Redis: it opens nothing by itself, and its record is
 * sealed under a key of the ring as well. */
#include "store/store_device.h"

#include <string.h>

#include "base/clock.h"
#include "base/seal_box.h"
#include "store/record.h"
#include "store/store_impl.h"

/* For so much longer a device is told that its codes have expired. */
#define TOMBSTONES 2
/* A person mistypes and reloads; more than this is somebody else. */
#define LOOKS_MAX "50"
/* An answer that says to slow down may get lost: then both sides count differently, and a device
 * must not be told so for good. */
#define INTERVAL_MAX_MS "60000"

#define LUA_NOW                                                                                    \
    "local time = redis.call('TIME') "                                                             \
    "local now = time[1] * 1000 + math.floor(time[2] / 1000) "

/* KEYS: device. ARGV: TTL in ms, how much longer the key lives. */
static struct redis_script put_script = {
    .source = LUA_NOW "redis.call('HSET', KEYS[1], 'state', 'waiting', 'until', "
                      "string.format('%.0f', now + tonumber(ARGV[1]))) "
                      "redis.call('PEXPIRE', KEYS[1], ARGV[2]) "
                      "return 1",
};

/* Whether a device waits and its codes are good. KEYS: device. */
#define LUA_IF_WAITS                                                                               \
    LUA_NOW "local f = redis.call('HMGET', KEYS[1], 'state', 'until') "                            \
            "if f[1] ~= 'waiting' or now >= tonumber(f[2]) then return 0 end "

/* KEYS: device. */
static struct redis_script look_script = {
    .source = LUA_IF_WAITS "if redis.call('HINCRBY', KEYS[1], 'looks', 1) > " LOOKS_MAX
                           " then return 0 end "
                           "return 1",
};

/* KEYS: device. ARGV: state, sealed answer ("" for a no). */
static struct redis_script answer_script = {
    .source = LUA_IF_WAITS "redis.call('HSET', KEYS[1], 'state', ARGV[1], 'answer', ARGV[2]) "
                           "return 1",
};

/* RFC 8628 3.5. Who asks too soon is told so, and has to wait longer from then on. An answer that
 * is there waits for nothing: a device that never slows down gets it all the same. KEYS: device.
 * ARGV: interval at first, by how much it grows, both in ms. */
static struct redis_script poll_script = {
    .source =
        LUA_NOW "local f = redis.call('HMGET', KEYS[1], 'state', 'until', 'polled', 'answer', "
                "'interval') "
                "if not f[1] then return {'absent'} end "
                "if f[1] == 'given' then return {'given', f[4]} end "
                "if f[1] == 'denied' then return {'denied'} end "
                "if now >= tonumber(f[2]) then return {'expired'} end "
                "local interval = tonumber(f[5] or ARGV[1]) "
                "if f[3] and now - tonumber(f[3]) < interval then "
                "  local longer = math.min(interval + tonumber(ARGV[2]), " INTERVAL_MAX_MS ") "
                "  redis.call('HSET', KEYS[1], 'interval', string.format('%.0f', longer)) "
                "  return {'slow'} "
                "end "
                "redis.call('HSET', KEYS[1], 'polled', string.format('%.0f', now)) "
                "return {'waiting'}",
};

/* KEYS: guesses. ARGV: by, window in ms. */
static struct redis_script guess_script = {
    .source = "local count = redis.call('INCRBY', KEYS[1], ARGV[1]) "
              "if count == tonumber(ARGV[1]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end "
              "return count",
};

static struct buf device_key(const struct store *store, const char *name)
{
    struct buf key = {0};
    store_key(store, "device", name, &key);
    return key;
}

/* The key of a user code, and the secret that its record is sealed under besides the ring's key. */
static struct buf user_code_key(const struct store *store, const char *user_code,
                                struct secret *secret)
{
    char name[SECRET_NAME_LEN + 1];
    struct buf key = {0};
    secret_name("user code", user_code, strlen(user_code), name);
    store_key(store, "user-code", name, &key);
    secret_name("user code seal", user_code, strlen(user_code), name);
    (void)secret_parse(name, secret);
    return key;
}

/* A script over one key that answers 1, or 0 for err. */
static enum err ask(struct store *store, struct redis_script *script, const struct buf *key,
                    const struct redis_arg *args, size_t count, enum err err_of_0)
{
    const struct redis_arg keys[] = {REDIS_BUF(key)};
    struct redis_value value = {0};
    enum err err = redis_eval(store->redis, script, keys, 1, count ? args : keys, count, &value);
    if (!err && value.integer != 1) {
        err = err_of_0;
    }
    redis_value_clear(&value);
    return err;
}

/* The user code first: without the device it is a code that is unknown. */
static enum err put_user_code(struct store *store, const char *user_code,
                              const struct device *device)
{
    struct secret secret;
    struct buf key = user_code_key(store, user_code, &secret);
    struct buf plain = {0}, sealed = {0};
    struct redis_value value = {0};
    struct store_number life = store_number(store->settings->login_ttl_s * 1000);
    record_format_device(device, &plain);
    seal_seal(&store->settings->keys, &secret, &key, &plain, &sealed);
    const struct redis_arg args[] = {REDIS_TEXT("SET"), REDIS_BUF(&key),  REDIS_BUF(&sealed),
                                     REDIS_TEXT("NX"),  REDIS_TEXT("PX"), REDIS_TEXT(life.text)};
    enum err err = redis_command(store->redis, args, 6, &value);
    if (!err && value.type == REDIS_IS_NIL) {
        err = ERR_USED;
    }
    redis_value_clear(&value);
    buf_clear(&plain);
    buf_clear(&sealed);
    buf_clear(&key);
    return err;
}

enum err store_put_device(struct store *store, const struct secret *device_code,
                          const char *user_code, const char *scope)
{
    struct device device = {.scope = xstrdup(scope)};
    int64_t ttl_ms = store->settings->login_ttl_s * 1000;
    struct store_number ttl = store_number(ttl_ms);
    struct store_number kept = store_number(TOMBSTONES * ttl_ms);
    box_name(device_code, device.name);
    enum err err = put_user_code(store, user_code, &device);
    if (!err) {
        struct buf key = device_key(store, device.name);
        const struct redis_arg args[] = {REDIS_TEXT(ttl.text), REDIS_TEXT(kept.text)};
        err = ask(store, &put_script, &key, args, 2, ERR_STORE);
        buf_clear(&key);
    }
    device_clear(&device);
    return err;
}

static enum err get_user_code(struct store *store, const char *user_code, struct device *out)
{
    struct secret secret;
    struct buf key = user_code_key(store, user_code, &secret);
    struct buf plain = {0};
    struct redis_value value = {0};
    const struct redis_arg args[] = {REDIS_TEXT("GET"), REDIS_BUF(&key)};
    enum err err = redis_command(store->redis, args, 2, &value);
    if (!err && value.type == REDIS_IS_NIL) {
        err = ERR_ABSENT;
    } else if (!err) {
        err = store_open(store, "device", &secret, &key, buf_str(&value.text), value.text.len,
                         &plain);
        if (err == ERR_SEAL || (!err && record_parse_device(plain.data, plain.len, out) != OK)) {
            err = ERR_ABSENT;
        }
    }
    redis_value_clear(&value);
    buf_clear(&plain);
    buf_clear(&key);
    return err;
}

enum err store_find_device(struct store *store, const char *user_code, struct device *out)
{
    enum err err = get_user_code(store, user_code, out);
    if (err) {
        return err;
    }
    struct buf key = device_key(store, out->name);
    err = ask(store, &look_script, &key, NULL, 0, ERR_ABSENT);
    if (err) {
        device_clear(out);
    }
    buf_clear(&key);
    return err;
}

enum err store_answer_device(struct store *store, const char *name, const struct secret *handle)
{
    struct secret public;
    struct buf key = device_key(store, name);
    struct buf plain = {0}, sealed = {0};
    uint8_t box[BOX_LEN];
    enum err err = secret_parse(name, &public);
    if (!err && handle) {
        err = box_fill(name, handle, box);
        buf_add(&plain, box, sizeof(box));
        /* Anybody can fill a box. One that is ours is sealed by the ring, too. */
        seal_seal(&store->settings->keys, &public, &key, &plain, &sealed);
    }
    if (!err) {
        const struct redis_arg args[] = {REDIS_TEXT(handle ? "given" : "denied"),
                                         REDIS_BUF(&sealed)};
        err = ask(store, &answer_script, &key, args, 2, ERR_ABSENT);
    }
    buf_clear(&plain);
    buf_clear(&sealed);
    buf_clear(&key);
    return err == ERR_FORMAT ? ERR_ABSENT : err;
}

static enum err read_answer(const struct store *store, const struct secret *device_code,
                            const char *name, const struct buf *key,
                            const struct redis_value *answer, struct secret *handle)
{
    struct secret public;
    struct buf plain = {0};
    (void)secret_parse(name, &public);
    enum err err =
        store_open(store, "device", &public, key, buf_str(&answer->text), answer->text.len, &plain);
    if (!err) {
        err = box_open(device_code, plain.data, plain.len, handle);
    }
    buf_clear(&plain);
    return err == ERR_SEAL ? ERR_ABSENT : err;
}

enum err store_poll_device(struct store *store, const struct secret *device_code,
                           int64_t interval_ms, int64_t longer_ms, struct secret *handle)
{
    static const struct {
        const char *word;
        enum err err;
    } states[] = {{"waiting", ERR_PENDING},
                  {"slow", ERR_SLOW_DOWN},
                  {"denied", ERR_DENIED},
                  {"expired", ERR_EXPIRED}};
    char name[SECRET_NAME_LEN + 1];
    struct redis_value value = {0};
    struct store_number interval = store_number(interval_ms), longer = store_number(longer_ms);
    box_name(device_code, name);
    struct buf key = device_key(store, name);
    const struct redis_arg keys[] = {REDIS_BUF(&key)};
    const struct redis_arg args[] = {REDIS_TEXT(interval.text), REDIS_TEXT(longer.text)};
    enum err err = redis_eval(store->redis, &poll_script, keys, 1, args, 2, &value);
    if (!err && store_is_reply(&value, "given", 2)) {
        err = read_answer(store, device_code, name, &key, &value.items[1], handle);
    } else if (!err) {
        err = ERR_ABSENT;
        for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
            err = store_is_reply(&value, states[i].word, 1) ? states[i].err : err;
        }
    }
    redis_value_clear(&value);
    buf_clear(&key);
    return err;
}

enum err store_take_device(struct store *store, const struct secret *device_code)
{
    char name[SECRET_NAME_LEN + 1];
    struct redis_value value = {0};
    box_name(device_code, name);
    struct buf key = device_key(store, name);
    const struct redis_arg args[] = {REDIS_TEXT("DEL"), REDIS_BUF(&key)};
    enum err err = redis_command(store->redis, args, 2, &value);
    if (!err && value.integer != 1) {
        err = ERR_USED;
    }
    redis_value_clear(&value);
    buf_clear(&key);
    return err;
}

enum err store_count_guess(struct store *store, const char *guesser, int by, int64_t window_ms,
                           int64_t *count)
{
    char name[SECRET_NAME_LEN + 1];
    struct buf key = {0};
    struct redis_value value = {0};
    struct store_number number = store_number(by);
    struct store_number window = store_number(window_ms);
    secret_name("address", guesser, strlen(guesser), name);
    store_key(store, "guesses", name, &key);
    const struct redis_arg keys[] = {REDIS_BUF(&key)};
    const struct redis_arg args[] = {REDIS_TEXT(number.text), REDIS_TEXT(window.text)};
    enum err err = redis_eval(store->redis, &guess_script, keys, 1, args, 2, &value);
    if (!err) {
        *count = value.integer;
    }
    redis_value_clear(&value);
    buf_clear(&key);
    return err;
}
