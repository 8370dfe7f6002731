/* The lease of a renewal, and the writes that it fences. Every decision is one script over keys of
 * one session, so that it holds across workers and machines. A lease that ran out does not undo the
 * work of its holder: what Spotify answered may be written as long as nobody else began. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "store/store_impl.h"

/* How long those who waited for a renewal can see that it failed; who comes anew tries again. */
#define FAILED_MS "1000"
#define OWNER_BYTES 16

/* A session that is not there. The write that changes nothing is refused by a replica: one that has
 * not caught up knows nothing about what is absent. */
#define LUA_IF_ABSENT                                                                              \
    "if not record then "                                                                          \
    "  redis.call('DEL', KEYS[1]) "                                                                \
    "  return {redis.call('EXISTS', KEYS[3]) == 1 and 'replaced' or 'absent'} "                    \
    "end "

/* R2, R3. KEYS: session, lease, replaced. ARGV: generation seen, owner, TTL in ms, the owner that
 * was waited for ("" at first). */
static struct redis_script take_script = {
    .source = "local record = redis.call('GET', KEYS[1]) " LUA_IF_ABSENT
              "if string.sub(record, 1, 8) ~= ARGV[1] then return {'newer', record} end "
              "local holder = redis.call('GET', KEYS[2]) "
              "if holder and string.sub(holder, 1, 1) ~= '!' then return {'held', holder} end "
              "if holder == '!' .. ARGV[4] then return {'failed'} end "
              "redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3]) "
              "return {'taken', record}",
};

/* R5. New tokens (the value's generation is another one) are written whoever has the lease by now:
 * they are the newest there are, and under rotation the only ones that work. A mark on the old ones
 * is not. KEYS: session, lease, replaced. ARGV: owner, generation expected, value, TTL in ms. */
static struct redis_script commit_script = {
    .source = "local record = redis.call('GET', KEYS[1]) " LUA_IF_ABSENT
              "if string.sub(record, 1, 8) ~= ARGV[2] then return {'newer', record} end "
              "local holder = redis.call('GET', KEYS[2]) "
              "local free = not holder or holder == ARGV[1] or string.sub(holder, 1, 1) == '!' "
              "local is_mark = string.sub(ARGV[3], 1, 8) == ARGV[2] "
              "if is_mark and not free then return {'held'} end "
              "redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4]) "
              "if free then redis.call('DEL', KEYS[2]) end "
              "return {'done'}",
};

/* KEYS: lease. ARGV: owner, "1" when what it was taken for failed. */
static struct redis_script release_script = {
    .source =
        "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end "
        "if ARGV[2] == '1' then redis.call('SET', KEYS[1], '!' .. ARGV[1], 'PX', " FAILED_MS ") "
        "else redis.call('DEL', KEYS[1]) end "
        "return 1",
};

/* KEYS: session, lease, replaced. ARGV: owner, generation refused. */
static struct redis_script end_script = {
    .source = "local record = redis.call('GET', KEYS[1]) " LUA_IF_ABSENT
              "if string.sub(record, 1, 8) ~= ARGV[2] then return {'newer'} end "
              "if redis.call('GET', KEYS[2]) ~= ARGV[1] then return {'held'} end "
              "redis.call('DEL', KEYS[1], KEYS[2]) "
              "return {'done'}",
};

/* The keys of one session. */
struct lease_keys {
    char name[SECRET_NAME_LEN + 1];
    struct buf session;
    struct buf lease;
    struct buf replaced;
};

static struct lease_keys lease_keys(const struct store *store, const struct secret *secret)
{
    struct lease_keys keys = {0};
    session_name(secret, keys.name);
    store_key(store, "session", keys.name, &keys.session);
    store_key(store, "lease", keys.name, &keys.lease);
    store_key(store, "replaced", keys.name, &keys.replaced);
    return keys;
}

static void lease_keys_clear(struct lease_keys *keys)
{
    buf_clear(&keys->session);
    buf_clear(&keys->lease);
    buf_clear(&keys->replaced);
}

void store_new_owner(struct lease *lease)
{
    struct secret random;
    struct buf text = {0};
    secret_new(&random);
    base64url_add(&text, random.bytes, OWNER_BYTES);
    memcpy(lease->owner, text.data, sizeof(lease->owner));
    secret_wipe(&random);
    buf_clear(&text);
}

enum err store_take_lease(struct store *store, const struct secret *secret,
                          uint64_t seen_generation, int64_t lease_ms, struct lease *lease,
                          struct session *out)
{
    struct lease_keys keys = lease_keys(store, secret);
    struct store_generation seen = store_generation(seen_generation);
    struct store_number life = store_number(lease_ms);
    struct redis_value value = {0};
    store_new_owner(lease);
    const struct redis_arg names[] = {REDIS_BUF(&keys.session), REDIS_BUF(&keys.lease),
                                      REDIS_BUF(&keys.replaced)};
    const struct redis_arg args[] = {{seen.bytes, GENERATION_LEN},
                                     REDIS_TEXT(lease->owner),
                                     REDIS_TEXT(life.text),
                                     REDIS_TEXT(lease->waited_for)};
    enum err err = redis_eval(store->redis, &take_script, names, 3, args, 4, &value);
    if (err) {
        goto out;
    }
    if (store_is_reply(&value, "taken", 2)) {
        err = store_open_session(store, secret, &keys.session, &value.items[1].text, out);
        if (err) {
            /* A process that can open the record need not wait for the lease to run out. */
            store_release_lease(store, secret, lease, false);
        }
    } else if (store_is_reply(&value, "newer", 2)) {
        err = store_open_session(store, secret, &keys.session, &value.items[1].text, out);
        err = err ? err : ERR_STALE;
    } else if (store_is_reply(&value, "failed", 1)) {
        err = ERR_UPSTREAM;
    } else if (store_is_reply(&value, "held", 2)) {
        snprintf(lease->waited_for, sizeof(lease->waited_for), "%s", buf_str(&value.items[1].text));
        err = ERR_HELD;
    } else if (store_is_reply(&value, "replaced", 1)) {
        err = ERR_REPLACED;
    } else {
        err = store_is_reply(&value, "absent", 1) ? ERR_ABSENT : ERR_STORE;
    }
    err = store_confirm(store, err);
out:
    redis_value_clear(&value);
    lease_keys_clear(&keys);
    return err;
}

/* Whether the newer record is the very one that was to be written: an earlier try did it, and only
 * its answer was lost. */
static bool is_written(const struct store *store, const struct secret *secret,
                       const struct buf *key, const struct redis_value *record,
                       const struct session *session)
{
    struct session found = {0};
    if (store_open_session(store, secret, key, &record->text, &found)) {
        return false;
    }
    bool same = found.generation == session->generation &&
                strcmp(found.access_token, session->access_token) == 0;
    session_clear(&found);
    return same;
}

enum err store_commit_session(struct store *store, const struct secret *secret,
                              const struct lease *lease, uint64_t expected_generation,
                              const struct session *session)
{
    struct lease_keys keys = lease_keys(store, secret);
    struct store_generation expected = store_generation(expected_generation);
    int64_t now_ms = clock_unix_ms();
    int64_t left_ms = store_session_end_ms(store, session, now_ms) - now_ms;
    struct store_number left = store_number(left_ms > 0 ? left_ms : 1);
    struct buf sealed = {0};
    struct redis_value value = {0};
    store_seal_session(store, secret, &keys.session, session, &sealed);
    const struct redis_arg names[] = {REDIS_BUF(&keys.session), REDIS_BUF(&keys.lease),
                                      REDIS_BUF(&keys.replaced)};
    const struct redis_arg args[] = {REDIS_TEXT(lease->owner),
                                     {expected.bytes, GENERATION_LEN},
                                     REDIS_BUF(&sealed),
                                     REDIS_TEXT(left.text)};
    enum err err = redis_eval(store->redis, &commit_script, names, 3, args, 4, &value);
    if (err) {
        goto out;
    }
    if (store_is_reply(&value, "absent", 1)) {
        err = ERR_ABSENT;
    } else if (store_is_reply(&value, "replaced", 1)) {
        err = ERR_REPLACED;
    } else if (store_is_reply(&value, "newer", 2)) {
        bool written = is_written(store, secret, &keys.session, &value.items[1], session);
        err = written ? OK : ERR_STALE;
    } else if (!store_is_reply(&value, "done", 1)) {
        err = store_is_reply(&value, "held", 1) ? ERR_STALE : ERR_STORE;
    }
    err = store_confirm(store, err);
out:
    redis_value_clear(&value);
    buf_clear(&sealed);
    lease_keys_clear(&keys);
    return err;
}

enum err store_release_key(struct store *store, const struct buf *key, const struct lease *lease,
                           bool failed)
{
    struct redis_value value = {0};
    const struct redis_arg names[] = {REDIS_BUF(key)};
    const struct redis_arg args[] = {REDIS_TEXT(lease->owner), REDIS_TEXT(failed ? "1" : "0")};
    enum err err = redis_eval(store->redis, &release_script, names, 1, args, 2, &value);
    redis_value_clear(&value);
    return err;
}

enum err store_release_lease(struct store *store, const struct secret *secret,
                             const struct lease *lease, bool failed)
{
    struct lease_keys keys = lease_keys(store, secret);
    enum err err = store_release_key(store, &keys.lease, lease, failed);
    lease_keys_clear(&keys);
    return err;
}

enum err store_end_refused_session(struct store *store, const struct secret *secret,
                                   const struct lease *lease, const struct session *session)
{
    struct lease_keys keys = lease_keys(store, secret);
    struct store_generation refused = store_generation(session->generation);
    struct redis_value value = {0};
    const struct redis_arg names[] = {REDIS_BUF(&keys.session), REDIS_BUF(&keys.lease),
                                      REDIS_BUF(&keys.replaced)};
    const struct redis_arg args[] = {REDIS_TEXT(lease->owner), {refused.bytes, GENERATION_LEN}};
    enum err err = redis_eval(store->redis, &end_script, names, 3, args, 2, &value);
    if (err) {
        goto out;
    }
    if (store_is_reply(&value, "newer", 1) || store_is_reply(&value, "held", 1)) {
        err = ERR_STALE;
    } else if (store_is_reply(&value, "replaced", 1)) {
        err = ERR_REPLACED;
    } else if (store_is_reply(&value, "done", 1) || store_is_reply(&value, "absent", 1)) {
        store_forget_name(store, keys.name, session);
        err = store_is_reply(&value, "done", 1) ? OK : ERR_ABSENT;
    } else {
        err = ERR_STORE;
    }
out:
    redis_value_clear(&value);
    lease_keys_clear(&keys);
    return err;
}
