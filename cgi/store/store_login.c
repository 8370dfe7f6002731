/* Logins under way, and the tombstones they leave. A login is a hash whose parts are sealed under
 * the secret in the cookie of the browser that began it (the binding); beside them stands a hash of
 * that secret, so that a script can tell whose callback it is before it changes anything. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "store/record.h"
#include "store/store_impl.h"

/* Both steps of taking a login need an answer within STORE_TIMEOUT_MS each. */
#define HOLD_TIMEOUTS 2

/* What may be waited for between taking a login and its outcome (C3 to C6). */
#define CALLS_MAX 2
#define COMMANDS_MAX 8

/* KEYS: login. ARGV: binding, login, return, TTL in ms. */
static struct redis_script put_script = {
    .source =
        "redis.call('HSET', KEYS[1], 'binding', ARGV[1], 'login', ARGV[2], 'return', ARGV[3]) "
        "redis.call('PEXPIRE', KEYS[1], ARGV[4]) "
        "return 1",
};

/* Unix ms by the one clock that all workers share. */
#define LUA_NOW                                                                                    \
    "local time = redis.call('TIME') "                                                             \
    "local now = time[1] * 1000 + math.floor(time[2] / 1000) "

/* RFC 6749 10.12: only the browser that began a login may end it, and somebody else who knows its
 * state must not be able to use it up. A login is taken in two steps: Redis may run a script long
 * after the worker that sent it gave up, and a login so taken must not be lost. Until the second
 * step, or HOLD after the first, it is kept for the one who took it at that time.
 * KEYS: login. ARGV: binding, hold in ms. */
static struct redis_script take_script = {
    .source =
        "local f = redis.call('HMGET', KEYS[1], 'binding', 'login', 'return', 'outcome', 'taken') "
        "if f[1] ~= ARGV[1] then return {'foreign'} end " LUA_NOW
        "local age = f[5] and now - f[5] or 0 "
        "if not f[2] then return {'used', f[3], f[4], age} end "
        "if f[5] and age < tonumber(ARGV[2]) then return {'used', f[3], false, age} end "
        "local taken = string.format('%.0f', now) "
        "redis.call('HSET', KEYS[1], 'taken', taken) "
        "return {'taken', f[2], taken}",
};

/* KEYS: login. ARGV: when it was taken, hold in ms, TTL of the tombstone in ms. */
static struct redis_script keep_script = {
    .source = LUA_NOW "if redis.call('HGET', KEYS[1], 'taken') ~= ARGV[1] "
                      "or now - ARGV[1] >= tonumber(ARGV[2]) then return 0 end "
                      "redis.call('HDEL', KEYS[1], 'login') "
                      "redis.call('PEXPIRE', KEYS[1], ARGV[3]) "
                      "return 1",
};

/* KEYS: login. ARGV: binding, outcome, TTL of the tombstone in ms, "1" where it must be the first.
 */
static struct redis_script outcome_script = {
    .source = "if redis.call('HGET', KEYS[1], 'binding') ~= ARGV[1] then return 0 end "
              "if ARGV[4] == '1' and redis.call('HGET', KEYS[1], 'outcome') then return 0 end "
              "redis.call('HSET', KEYS[1], 'outcome', ARGV[2]) "
              "redis.call('PEXPIRE', KEYS[1], ARGV[3]) "
              "return 1",
};

int64_t store_login_longest_ms(const struct settings *settings)
{
    return CALLS_MAX * settings->upstream_timeout_ms + COMMANDS_MAX * settings->store_timeout_ms;
}

/* As long as a login may take, and at least until nobody asks for its session again. */
static int64_t tombstone_ms(const struct settings *settings)
{
    int64_t ttl_ms = settings->login_ttl_s * 1000;
    int64_t least_ms = REPLAY_SESSION_S * 1000 + store_login_longest_ms(settings);
    return ttl_ms > least_ms ? ttl_ms : least_ms;
}

static void login_key(const struct store *store, const struct secret *state, struct buf *out)
{
    char name[SECRET_NAME_LEN + 1];
    secret_name("state", state->bytes, SECRET_LEN, name);
    store_key(store, "login", name, out);
}

static void binding_name(const struct secret *binding, char out[static SECRET_NAME_LEN + 1])
{
    secret_name("binding", binding->bytes, SECRET_LEN, out);
}

/* The parts of one login must not be exchanged for each other, so each part's associated data names
 * it besides its key. */
static struct buf field_aad(const struct buf *key, const char *field)
{
    struct buf aad = {0};
    buf_add(&aad, key->data, key->len);
    buf_addc(&aad, '\n');
    buf_adds(&aad, field);
    return aad;
}

static void seal_field(const struct store *store, const struct secret *binding,
                       const struct buf *key, const char *field, const struct buf *plain,
                       struct buf *out)
{
    struct buf aad = field_aad(key, field);
    seal_seal(&store->settings->keys, binding, &aad, plain, out);
    buf_clear(&aad);
}

static enum err open_field(const struct store *store, const struct secret *binding,
                           const struct buf *key, const char *field,
                           const struct redis_value *sealed, struct buf *plain)
{
    struct buf aad = field_aad(key, field);
    enum err err =
        store_open(store, field, binding, &aad, buf_str(&sealed->text), sealed->text.len, plain);
    buf_clear(&aad);
    return err == ERR_SEAL ? ERR_INVALID_STATE : err;
}

enum err store_put_login(struct store *store, const struct secret *state,
                         const struct secret *binding, const struct login *login)
{
    char name[SECRET_NAME_LEN + 1];
    struct buf key = {0}, plain = {0}, sealed = {0}, sealed_return = {0};
    struct redis_value value = {0};
    struct store_number ttl = store_number(store->settings->login_ttl_s * 1000);
    login_key(store, state, &key);
    binding_name(binding, name);
    record_format_login(login, &plain);
    seal_field(store, binding, &key, "login", &plain, &sealed);
    buf_reset(&plain);
    buf_adds(&plain, login->return_to);
    seal_field(store, binding, &key, "return", &plain, &sealed_return);

    const struct redis_arg keys[] = {REDIS_BUF(&key)};
    const struct redis_arg args[] = {REDIS_TEXT(name), REDIS_BUF(&sealed),
                                     REDIS_BUF(&sealed_return), REDIS_TEXT(ttl.text)};
    enum err err = redis_eval(store->redis, &put_script, keys, 1, args, 4, &value);
    if (!err && value.integer != 1) {
        err = ERR_STORE;
    }
    redis_value_clear(&value);
    buf_clear(&key);
    buf_clear(&plain);
    buf_clear(&sealed);
    buf_clear(&sealed_return);
    return err;
}

/* A record that opens and does not parse was written by another version, which may yet read it. */
static enum err note_foreign_format(enum err err, const char *field)
{
    if (!err) {
        return OK;
    }
    log_error("record of unknown format", LOG_TEXT("record", field));
    return ERR_STORE;
}

static enum err read_taken(const struct store *store, const struct secret *binding,
                           const struct buf *key, const struct redis_value *value,
                           struct login *out)
{
    struct buf plain = {0};
    enum err err = open_field(store, binding, key, "login", &value->items[1], &plain);
    if (!err) {
        err = note_foreign_format(record_parse_login(plain.data, plain.len, out), "login");
    }
    buf_clear(&plain);
    return err;
}

static enum err read_used(const struct store *store, const struct secret *binding,
                          const struct buf *key, const struct redis_value *value, struct login *out,
                          struct login_outcome *outcome)
{
    struct buf return_to = {0}, plain = {0};
    enum err err = open_field(store, binding, key, "return", &value->items[1], &return_to);
    if (!err && value->items[2].type == REDIS_IS_STRING) {
        err = open_field(store, binding, key, "outcome", &value->items[2], &plain);
        if (!err) {
            err = note_foreign_format(record_parse_outcome(plain.data, plain.len, outcome),
                                      "outcome");
        }
    }
    buf_clear(&plain);
    if (err) {
        buf_clear(&return_to);
        return err;
    }
    out->return_to = buf_take(&return_to);
    outcome->age_ms = value->items[3].integer;
    return ERR_USED;
}

/* The second step. ERR_USED: it came too late, and somebody else may have taken the login. */
static enum err keep_taken(struct store *store, const struct buf *key,
                           const struct redis_value *taken, const struct store_number *hold)
{
    struct redis_value value = {0};
    struct store_number ttl = store_number(tombstone_ms(store->settings));
    const struct redis_arg keys[] = {REDIS_BUF(key)};
    const struct redis_arg args[] = {REDIS_BUF(&taken->text), REDIS_TEXT(hold->text),
                                     REDIS_TEXT(ttl.text)};
    enum err err = redis_eval(store->redis, &keep_script, keys, 1, args, 3, &value);
    if (!err && value.integer != 1) {
        err = ERR_USED;
    }
    redis_value_clear(&value);
    return err;
}

enum err store_take_login(struct store *store, const struct secret *state,
                          const struct secret *binding, struct login *out,
                          struct login_outcome *outcome)
{
    char name[SECRET_NAME_LEN + 1];
    struct buf key = {0};
    struct redis_value value = {0};
    struct store_number hold = store_number(HOLD_TIMEOUTS * store->settings->store_timeout_ms);
    *out = (struct login){0};
    *outcome = (struct login_outcome){0};
    login_key(store, state, &key);
    binding_name(binding, name);
    const struct redis_arg keys[] = {REDIS_BUF(&key)};
    const struct redis_arg args[] = {REDIS_TEXT(name), REDIS_TEXT(hold.text)};
    enum err err = redis_eval(store->redis, &take_script, keys, 1, args, 2, &value);
    if (err) {
        goto out;
    }
    if (store_is_reply(&value, "taken", 3)) {
        err = read_taken(store, binding, &key, &value, out);
        if (!err) {
            err = keep_taken(store, &key, &value.items[2], &hold);
        }
    } else if (store_is_reply(&value, "used", 4)) {
        err = read_used(store, binding, &key, &value, out, outcome);
    } else {
        err = store_is_reply(&value, "foreign", 1) ? ERR_INVALID_STATE : ERR_STORE;
    }
out:
    redis_value_clear(&value);
    buf_clear(&key);
    return err;
}

enum err store_put_login_outcome(struct store *store, const struct secret *state,
                                 const struct secret *binding, const struct login_outcome *outcome,
                                 bool is_first)
{
    char name[SECRET_NAME_LEN + 1];
    struct buf key = {0}, plain = {0}, sealed = {0};
    struct redis_value value = {0};
    login_key(store, state, &key);
    binding_name(binding, name);
    record_format_outcome(outcome, &plain);
    seal_field(store, binding, &key, "outcome", &plain, &sealed);
    const struct redis_arg keys[] = {REDIS_BUF(&key)};
    struct store_number ttl = store_number(tombstone_ms(store->settings));
    const struct redis_arg args[] = {REDIS_TEXT(name), REDIS_BUF(&sealed), REDIS_TEXT(ttl.text),
                                     REDIS_TEXT(is_first ? "1" : "0")};
    enum err err = redis_eval(store->redis, &outcome_script, keys, 1, args, 4, &value);
    if (!err && value.integer != 1) {
        err = ERR_INVALID_STATE;
    }
    redis_value_clear(&value);
    buf_clear(&key);
    buf_clear(&plain);
    buf_clear(&sealed);
    return err;
}
