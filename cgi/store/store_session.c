/* Sessions. A session's value is its generation, in clear so that scripts can compare it, then the
 * sealed record; the generation is part of the associated data, so that no value passes for a
 * newer one. The record is written on login and renewal only: what a look-up moves is the expiry.
 */
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "store/record.h"
#include "store/store_impl.h"

/* How long the cookie of a session that a newer login replaced is told from that of an ended one:
 * as long as requests of that browser may be under way with the old cookie. */
#define REPLACED_MS 60000

/* The idle time begins anew at each use, but the expiry is moved only when it would move far
 * enough: by a 64th of the idle time, at least and at most that far. */
#define SLIDE_PART 64
#define SLIDE_MIN_MS 100
#define SLIDE_MAX_MS 60000

/* Most records fit: Spotify's tokens have some hundred bytes. */
#define PLAIN_ROOM 2048

void session_name(const struct secret *secret, char out[static SECRET_NAME_LEN + 1])
{
    secret_name("session", secret->bytes, SECRET_LEN, out);
}

struct store_generation store_generation(uint64_t generation)
{
    struct store_generation out;
    for (int i = GENERATION_LEN - 1; i >= 0; i--) {
        out.bytes[i] = (uint8_t)generation;
        generation >>= 8;
    }
    return out;
}

uint64_t store_read_generation(const struct buf *value)
{
    uint64_t generation = 0;
    for (size_t i = 0; i < GENERATION_LEN; i++) {
        generation = generation << 8 | (uint8_t)value->data[i];
    }
    return generation;
}

static void add_aad(struct buf *aad, const struct buf *key, const void *generation)
{
    buf_add(aad, key->data, key->len);
    buf_add(aad, generation, GENERATION_LEN);
}

void store_seal_session(const struct store *store, const struct secret *secret,
                        const struct buf *key, const struct session *session, struct buf *out)
{
    struct store_generation generation = store_generation(session->generation);
    char aad_room[STORE_KEY_ROOM + GENERATION_LEN];
    char plain_room[PLAIN_ROOM];
    struct buf aad = BUF_ROOM(aad_room);
    struct buf plain = BUF_ROOM(plain_room);
    add_aad(&aad, key, generation.bytes);
    record_format_session(session, &plain);
    buf_add(out, generation.bytes, GENERATION_LEN);
    seal_seal(&store->settings->keys, secret, &aad, &plain, out);
    buf_clear(&plain);
    buf_clear(&aad);
}

static int64_t last_end_s(const struct store *store, const struct session *session)
{
    return session->authorized_at + store->settings->session_max_age_s;
}

enum err store_open_session(const struct store *store, const struct secret *secret,
                            const struct buf *key, const struct buf *value, struct session *out)
{
    if (value->len < GENERATION_LEN) {
        log_error("record does not open", LOG_TEXT("record", "session"));
        return ERR_UNREADABLE;
    }
    char aad_room[STORE_KEY_ROOM + GENERATION_LEN];
    char plain_room[PLAIN_ROOM];
    struct buf aad = BUF_ROOM(aad_room);
    struct buf plain = BUF_ROOM(plain_room);
    add_aad(&aad, key, value->data);
    enum err err = store_open(store, "session", secret, &aad, value->data + GENERATION_LEN,
                              value->len - GENERATION_LEN, &plain);
    if (err) {
        err = ERR_UNREADABLE;
        goto out;
    }
    if (record_parse_session(plain.data, plain.len, out)) {
        /* Another version wrote it, which may yet read it. */
        log_error("record of unknown format", LOG_TEXT("record", "session"));
        err = ERR_UNREADABLE;
        goto out;
    }
    out->generation = store_read_generation(value);
    if (last_end_s(store, out) <= clock_unix_s()) {
        /* SESSION_MAX_AGE was longer when the key got its expiry. */
        const struct redis_arg args[] = {REDIS_TEXT("DEL"), REDIS_BUF(key)};
        redis_send(store->redis, args, 2);
        session_clear(out);
        err = ERR_ABSENT;
    }
out:
    buf_clear(&plain);
    buf_clear(&aad);
    return err;
}

int64_t store_session_end_ms(const struct store *store, const struct session *session,
                             int64_t now_ms)
{
    int64_t idle_end_ms = now_ms + store->settings->session_idle_ttl_s * 1000;
    int64_t last_end_ms = last_end_s(store, session) * 1000;
    return idle_end_ms < last_end_ms ? idle_end_ms : last_end_ms;
}

/* What this worker knows of that session's expiry: nothing (0), when another took its place. */
static struct store_slide *find_slide(struct store *store, const struct secret *secret)
{
    uint64_t id;
    memcpy(&id, secret->bytes, sizeof(id)); /* random, and this table is never shown */
    struct store_slide *slide = &store->slides[id % STORE_SLIDES];
    if (slide->id != id) {
        *slide = (struct store_slide){.id = id};
    }
    return slide;
}

/* R1: let the idle time begin anew, unless this worker did so a moment ago. Not waited for. */
static void slide(struct store *store, const struct secret *secret, const char *name,
                  const struct buf *key, const struct session *session)
{
    int64_t now_ms = clock_unix_ms();
    int64_t end_ms = store_session_end_ms(store, session, now_ms);
    int64_t step_ms = store->settings->session_idle_ttl_s * 1000 / SLIDE_PART;
    step_ms = step_ms < SLIDE_MIN_MS ? SLIDE_MIN_MS : step_ms;
    step_ms = step_ms > SLIDE_MAX_MS ? SLIDE_MAX_MS : step_ms;
    struct store_slide *last = find_slide(store, secret);
    if (end_ms >= last->end_ms && end_ms - last->end_ms < step_ms) {
        return;
    }
    last->end_ms = end_ms;
    /* Not the time itself: for a Redis whose clock is ahead of ours it might be over. */
    struct store_number left = store_number(end_ms - now_ms);
    const struct redis_arg args[] = {REDIS_TEXT("PEXPIRE"), REDIS_BUF(key), REDIS_TEXT(left.text)};
    redis_send(store->redis, args, 3);
    store_note_use(store, name, session);
}

/* Why there is no session: only the browser of an ended one may lose its cookie. Asked again in one
 * script with a write that changes nothing, which a replica refuses: one that has not caught up
 * knows nothing about what is absent. KEYS: session, replaced. */
static struct redis_script absence_script = {
    .source = "if redis.call('EXISTS', KEYS[1]) == 1 then return {'there'} end "
              "redis.call('DEL', KEYS[1]) "
              "return {redis.call('EXISTS', KEYS[2]) == 1 and 'replaced' or 'absent'}",
};

static enum err find_absence(struct store *store, const char *name, const struct buf *key)
{
    struct buf replaced = {0};
    struct redis_value value = {0};
    store_key(store, "replaced", name, &replaced);
    const struct redis_arg keys[] = {REDIS_BUF(key), REDIS_BUF(&replaced)};
    enum err err = redis_eval(store->redis, &absence_script, keys, 2, keys, 0, &value);
    if (!err && store_is_reply(&value, "replaced", 1)) {
        err = ERR_REPLACED;
    } else if (!err) {
        err = store_is_reply(&value, "absent", 1) ? ERR_ABSENT : ERR_STORE;
    }
    err = store_confirm(store, err);
    redis_value_clear(&value);
    buf_clear(&replaced);
    return err;
}

enum err store_get_session(struct store *store, const struct secret *secret, enum store_use use,
                           struct session *out)
{
    char name[SECRET_NAME_LEN + 1];
    char key_room[STORE_KEY_ROOM];
    struct buf key = BUF_ROOM(key_room);
    struct redis_value value = {0};
    session_name(secret, name);
    log_note_session(name);
    store_key(store, "session", name, &key);
    const struct redis_arg args[] = {REDIS_TEXT("GET"), REDIS_BUF(&key)};
    enum err err = redis_command(store->redis, args, 2, &value);
    if (!err && value.type == REDIS_IS_NIL) {
        err = find_absence(store, name, &key);
    } else if (!err) {
        err = store_open_session(store, secret, &key, &value.text, out);
    }
    if (!err && use == STORE_USE) {
        slide(store, secret, name, &key, out);
    }
    redis_value_clear(&value);
    buf_clear(&key);
    return err;
}

enum err store_limit_session(struct store *store, const struct secret *secret, int64_t life_ms)
{
    char name[SECRET_NAME_LEN + 1];
    struct buf key = {0};
    struct store_number life = store_number(life_ms);
    session_name(secret, name);
    store_key(store, "session", name, &key);
    const struct redis_arg args[] = {REDIS_TEXT("PEXPIRE"), REDIS_BUF(&key), REDIS_TEXT(life.text)};
    enum err err = redis_command(store->redis, args, 3, NULL);
    buf_clear(&key);
    return err;
}

enum err store_end_session(struct store *store, const struct secret *secret,
                           const struct session *session, bool *ended)
{
    char name[SECRET_NAME_LEN + 1];
    struct buf key = {0};
    session_name(secret, name);
    store_key(store, "session", name, &key);
    enum err err = store_delete_key(store, &key, ended);
    if (!err && session) {
        store_forget_name(store, name, session);
    }
    buf_clear(&key);
    return err;
}

/* In one, so that nobody finds the session gone and not replaced. KEYS: session, replaced. ARGV:
 * for how long in ms. */
static struct redis_script replace_script = {
    .source = "redis.call('SET', KEYS[2], '1', 'PX', ARGV[1]) "
              "return redis.call('DEL', KEYS[1])",
};

enum err store_replace_session(struct store *store, const char *name, const struct session *by,
                               bool *ended)
{
    *ended = false;
    if (!name[0]) {
        return OK;
    }
    struct buf key = {0}, replaced = {0};
    struct redis_value value = {0};
    struct store_number life = store_number(REPLACED_MS);
    store_key(store, "session", name, &key);
    store_key(store, "replaced", name, &replaced);
    const struct redis_arg keys[] = {REDIS_BUF(&key), REDIS_BUF(&replaced)};
    const struct redis_arg args[] = {REDIS_TEXT(life.text)};
    enum err err = redis_eval(store->redis, &replace_script, keys, 2, args, 1, &value);
    if (!err) { /* where it was another user's, that list leaves out what has ended */
        store_forget_name(store, name, by);
        *ended = value.integer == 1;
    }
    redis_value_clear(&value);
    buf_clear(&key);
    buf_clear(&replaced);
    return err;
}
