/* A user's sessions: a new one is stored together with its name in a sorted set, so that all of
 * them can be ended at once. What a user may see of them is store_list.c's. The set's own name is a
 * hash of the user at this client, and says nothing about who that is. */
#include <string.h>

#include "base/clock.h"
#include "base/metrics.h"
#include "store/store_impl.h"

#define NAMES_AT_ONCE 32
#define ROUNDS_MAX 10000

bool store_user_name(const struct store *store, const struct session *session, const char *purpose,
                     char out[static SECRET_NAME_LEN + 1])
{
    const struct profile *profile = &session->profile;
    const char *user = profile->account_id ? profile->account_id : profile->id;
    if (!user) {
        return false;
    }
    struct buf text = {0};
    buf_adds(&text, store->settings->client_id);
    buf_addc(&text, '\n');
    buf_adds(&text, user);
    secret_name(purpose, text.data, text.len, out);
    buf_clear(&text);
    return true;
}

bool store_user_key(const struct store *store, const struct session *session, const char *kind,
                    struct buf *out)
{
    char name[SECRET_NAME_LEN + 1];
    bool has_user = store_user_name(store, session, "user", name);
    if (has_user) {
        store_key(store, kind, name, out);
    }
    return has_user;
}

/* Add a session's name, forget those that must have ended by now. It is sent whole, so that it can
 * go in one round trip with the session. KEYS: user, shown. ARGV: name, when it ends at the latest,
 * now (both unix seconds), its entry in the list. */
static const char add_script[] =
    "for _, ended in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[3])) do "
    "  redis.call('HDEL', KEYS[2], ended) "
    "end "
    "redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[3]) "
    "redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1]) "
    "redis.call('HSET', KEYS[2], ARGV[1], ARGV[4]) "
    "redis.call('EXPIREAT', KEYS[1], ARGV[2]) "
    "redis.call('EXPIREAT', KEYS[2], ARGV[2])";

/* The set before the session: a name without a session is harmless, a session that cannot be found
 * is not. */
enum err store_put_session(struct store *store, const struct secret *secret,
                           const struct session *session)
{
    char name[SECRET_NAME_LEN + 1];
    struct buf key = {0}, user = {0}, shown = {0}, entry = {0}, value = {0};
    int64_t now_ms = clock_unix_ms();
    int64_t left_ms = store_session_end_ms(store, session, now_ms) - now_ms;
    int64_t last_end_s = session->authorized_at + store->settings->session_max_age_s;
    struct store_number left = store_number(left_ms > 0 ? left_ms : 1);
    struct store_number last_end = store_number(last_end_s);
    struct store_number now = store_number(now_ms / 1000);
    session_name(secret, name);
    store_key(store, "session", name, &key);
    store_seal_session(store, secret, &key, session, &value);
    bool has_user = store_user_key(store, session, "user", &user) &&
                    store_user_key(store, session, "shown", &shown);
    if (has_user) {
        store_seal_listing(store, &shown, name, session, &entry);
    }
    /* clang-format off: one command a line */
    const struct redis_arg args[] = {
        REDIS_TEXT("EVAL"), REDIS_TEXT(add_script), REDIS_TEXT("2"),           REDIS_BUF(&user),
        REDIS_BUF(&shown),  REDIS_TEXT(name),       REDIS_TEXT(last_end.text), REDIS_TEXT(now.text),
        REDIS_BUF(&entry),  REDIS_TEXT("SET"),      REDIS_BUF(&key),           REDIS_BUF(&value),
        REDIS_TEXT("PX"),   REDIS_TEXT(left.text),
    };
    /* clang-format on */
    static const size_t counts[] = {9, 5};
    enum err err = has_user ? redis_pipeline(store->redis, args, counts, 2, NULL)
                            : redis_command(store->redis, args + counts[0], counts[1], NULL);
    buf_clear(&key);
    buf_clear(&user);
    buf_clear(&shown);
    buf_clear(&entry);
    buf_clear(&value);
    return err;
}

void store_forget_name(const struct store *store, const char *name, const struct session *session)
{
    struct buf user = {0}, shown = {0};
    if (store_user_key(store, session, "user", &user) &&
        store_user_key(store, session, "shown", &shown)) {
        const struct redis_arg from_set[] = {REDIS_TEXT("ZREM"), REDIS_BUF(&user),
                                             REDIS_TEXT(name)};
        const struct redis_arg from_list[] = {REDIS_TEXT("HDEL"), REDIS_BUF(&shown),
                                              REDIS_TEXT(name)};
        redis_send(store->redis, from_set, 3);
        redis_send(store->redis, from_list, 3);
    }
    buf_clear(&user);
    buf_clear(&shown);
}

/* Take these names from set and list. */
static enum err forget_named(struct store *store, const struct buf *user, const struct buf *shown,
                             const struct redis_value *names)
{
    struct redis_arg args[NAMES_AT_ONCE * 2 + 4] = {0};
    size_t count = names->item_count;
    const size_t counts[] = {count + 2, count + 2};
    struct redis_arg *hide = args;
    struct redis_arg *forget = args + count + 2;
    hide[0] = REDIS_TEXT("HDEL");
    hide[1] = REDIS_BUF(shown);
    forget[0] = REDIS_TEXT("ZREM");
    forget[1] = REDIS_BUF(user);
    for (size_t i = 0; i < count; i++) {
        hide[i + 2] = forget[i + 2] = REDIS_BUF(&names->items[i].text);
    }
    return redis_pipeline(store->redis, args, counts, 2, NULL);
}

/* End the sessions of these names, and only then forget the names: a session that cannot be found
 * any more would never end. One DEL for each, since in a Cluster they live in different places. */
static enum err end_named(struct store *store, const struct buf *user, const struct buf *shown,
                          const struct redis_value *names)
{
    struct buf keys[NAMES_AT_ONCE] = {0};
    struct redis_arg args[NAMES_AT_ONCE * 2] = {0};
    size_t counts[NAMES_AT_ONCE] = {0};
    struct redis_value answers[NAMES_AT_ONCE];
    size_t count = names->item_count;
    for (size_t i = 0; i < count; i++) {
        store_key(store, "session", buf_str(&names->items[i].text), &keys[i]);
        args[i * 2] = REDIS_TEXT("DEL");
        args[i * 2 + 1] = REDIS_BUF(&keys[i]);
        counts[i] = 2;
    }
    enum err err = redis_pipeline(store->redis, args, counts, count, answers);
    bool are_numbers = err == OK;
    for (size_t i = 0; i < count; i++) {
        if (err == OK) { /* 1 or 0: a name may outlive its session */
            are_numbers = are_numbers && answers[i].type == REDIS_IS_INTEGER;
            metrics_add(METRIC_SESSIONS_ENDED, METRIC_ENDED_LOGOUT_ALL, answers[i].integer);
            redis_value_clear(&answers[i]);
        }
        buf_clear(&keys[i]);
    }
    return are_numbers ? forget_named(store, user, shown, names) : ERR_STORE;
}

/* A session that a login adds meanwhile is either ended, too, or keeps its name in the set. */
static enum err end_all_named(struct store *store, const struct buf *user, const struct buf *shown)
{
    struct store_number last = store_number(NAMES_AT_ONCE - 1);
    for (int i = 0; i < ROUNDS_MAX; i++) {
        struct redis_value names = {0};
        const struct redis_arg args[] = {REDIS_TEXT("ZRANGE"), REDIS_BUF(user), REDIS_TEXT("0"),
                                         REDIS_TEXT(last.text)};
        enum err err = redis_command(store->redis, args, 4, &names);
        size_t count = names.item_count;
        if (!err && count > 0) {
            err = end_named(store, user, shown, &names);
        }
        redis_value_clear(&names);
        if (err || count == 0) {
            return err;
        }
    }
    return ERR_STORE;
}

enum err store_end_user_sessions(struct store *store, const struct secret *secret,
                                 const struct session *session)
{
    struct buf user = {0}, shown = {0};
    bool ended = false;
    enum err err = OK;
    if (store_user_key(store, session, "user", &user) &&
        store_user_key(store, session, "shown", &shown)) {
        err = end_all_named(store, &user, &shown);
    }
    if (!err) { /* without a user it is in no set */
        err = store_end_session(store, secret, session, &ended);
        metrics_add(METRIC_SESSIONS_ENDED, METRIC_ENDED_LOGOUT_ALL, ended);
    }
    buf_clear(&user);
    buf_clear(&shown);
    return err;
}
