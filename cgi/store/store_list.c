/* What a user may see of the own sessions. The record of a session opens with its own browser's
 * secret only, so what the list tells of it stands in an entry beside its name, sealed for any
 * session of that user. It is written anew when the session's idle time begins anew, and so comes
 * under the newest key, too. Which sessions there are, is store_user.c's. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "store/record.h"
#include "store/store_impl.h"

/* An entry whose session has been taken out of the set must not come back. KEYS: user, shown. ARGV:
 * name, entry. */
static const char note_script[] = "if redis.call('ZSCORE', KEYS[1], ARGV[1]) then "
                                  "  redis.call('HSET', KEYS[2], ARGV[1], ARGV[2]) "
                                  "end";

/* What the entries of a user are sealed under, besides the key ring: a hash of the user that the
 * hash in the keys' names says nothing about. */
static void user_secret(const struct store *store, const struct session *session,
                        struct secret *out)
{
    char name[SECRET_NAME_LEN + 1] = "";
    (void)store_user_name(store, session, "shown", name);
    (void)secret_parse(name, out); /* it has the very form of a secret's text */
    explicit_bzero(name, sizeof(name));
}

/* No entry may stand in for another session's or another user's. */
static void add_aad(struct buf *aad, const struct buf *shown, const char *name)
{
    buf_add(aad, shown->data, shown->len);
    buf_adds(aad, name);
}

void store_seal_listing(const struct store *store, const struct buf *shown, const char *name,
                        const struct session *session, struct buf *out)
{
    const struct listing listing = {session->authorized_at, clock_unix_s(), session->agent};
    struct secret secret;
    struct buf aad = {0}, plain = {0};
    user_secret(store, session, &secret);
    add_aad(&aad, shown, name);
    record_format_listing(&listing, &plain);
    seal_seal(&store->settings->keys, &secret, &aad, &plain, out);
    secret_wipe(&secret);
    buf_clear(&plain);
    buf_clear(&aad);
}

static void open_listing(const struct store *store, const struct buf *shown,
                         const struct session *session, const struct buf *sealed,
                         struct listed_session *out)
{
    struct secret secret;
    struct buf aad = {0}, plain = {0};
    user_secret(store, session, &secret);
    add_aad(&aad, shown, out->name);
    if (store_open(store, "shown", &secret, &aad, sealed->data, sealed->len, &plain) == OK) {
        (void)record_parse_listing(plain.data, plain.len, &out->listing); /* all zero else */
    }
    secret_wipe(&secret);
    buf_clear(&plain);
    buf_clear(&aad);
}

void store_note_use(const struct store *store, const char *name, const struct session *session)
{
    struct buf user = {0}, shown = {0}, entry = {0};
    if (store_user_key(store, session, "user", &user) &&
        store_user_key(store, session, "shown", &shown)) {
        store_seal_listing(store, &shown, name, session, &entry);
        const struct redis_arg args[] = {
            REDIS_TEXT("EVAL"), REDIS_TEXT(note_script), REDIS_TEXT("2"),  REDIS_BUF(&user),
            REDIS_BUF(&shown),  REDIS_TEXT(name),        REDIS_BUF(&entry)};
        redis_send(store->redis, args, 7);
    }
    buf_clear(&user);
    buf_clear(&shown);
    buf_clear(&entry);
}

void session_list_clear(struct session_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        listing_clear(&list->items[i].listing);
    }
    free(list->items);
    *list = (struct session_list){0};
}

static struct listed_session *add_listed(struct session_list *list, const char *name)
{
    struct listed_session *listed = &list->items[list->count++];
    char id[SECRET_NAME_LEN + 1];
    memcpy(listed->name, name, SECRET_NAME_LEN);
    secret_name("listed", name, SECRET_NAME_LEN, id);
    memcpy(listed->id, id, LISTED_ID_LEN);
    return listed;
}

/* The session that asks is there and used now, whatever its entry says. */
static void add_current(struct session_list *list, const char *name, const struct session *session)
{
    struct listed_session *listed = add_listed(list, name);
    listed->is_current = true;
    listed->listing =
        (struct listing){session->authorized_at, clock_unix_s(), xstrdup(session->agent)};
}

/* Which of these names have a session, and their entries: outs[0] is the list of entries, then one
 * number for each name. One EXISTS for each, since in a Cluster they live in different places. */
static enum err look_up(struct store *store, const struct buf *shown,
                        const struct redis_value *names, struct redis_value *outs)
{
    struct buf keys[LISTED_MAX] = {0};
    struct redis_arg args[LISTED_MAX * 3 + 2];
    size_t counts[LISTED_MAX + 1];
    size_t count = names->item_count;
    struct redis_arg *exists = args + count + 2;
    args[0] = REDIS_TEXT("HMGET");
    args[1] = REDIS_BUF(shown);
    counts[0] = count + 2;
    for (size_t i = 0; i < count; i++) {
        const struct buf *name = &names->items[i].text;
        store_key(store, "session", buf_str(name), &keys[i]);
        args[i + 2] = REDIS_BUF(name);
        exists[i * 2] = REDIS_TEXT("EXISTS");
        exists[i * 2 + 1] = REDIS_BUF(&keys[i]);
        counts[i + 1] = 2;
    }
    enum err err = redis_pipeline(store->redis, args, counts, count + 1, outs);
    for (size_t i = 0; i < count; i++) {
        buf_clear(&keys[i]);
    }
    return err;
}

/* Add the sessions of these names to the list, which has own already. */
static enum err add_others(struct store *store, const struct session *session,
                           const struct buf *shown, const struct redis_value *names,
                           const char *own, struct session_list *list)
{
    struct redis_value outs[LISTED_MAX + 1] = {0};
    size_t count = names->item_count;
    enum err err = count > 0 ? look_up(store, shown, names, outs) : OK;
    for (size_t i = 0; !err && i < count && outs[0].item_count == count; i++) {
        const struct buf *name = &names->items[i].text;
        if (name->len != SECRET_NAME_LEN || strcmp(buf_str(name), own) == 0) {
            continue;
        }
        if (outs[i + 1].integer == 0) { /* replaced, or idle for too long */
            store_forget_name(store, buf_str(name), session);
            continue;
        }
        struct listed_session *listed = add_listed(list, buf_str(name));
        if (outs[0].items[i].type == REDIS_IS_STRING) {
            open_listing(store, shown, session, &outs[0].items[i].text, listed);
        }
    }
    for (size_t i = 0; !err && i <= count; i++) {
        redis_value_clear(&outs[i]);
    }
    return err;
}

enum err store_list_sessions(struct store *store, const struct secret *secret,
                             const struct session *session, struct session_list *out)
{
    char own[SECRET_NAME_LEN + 1];
    struct buf user = {0}, shown = {0};
    struct redis_value names = {0};
    struct store_number last = store_number(LISTED_MAX - 1);
    enum err err = OK;
    *out = (struct session_list){.items = xcalloc(LISTED_MAX + 1, sizeof(*out->items))};
    session_name(secret, own);
    add_current(out, own, session);
    if (store_user_key(store, session, "user", &user) &&
        store_user_key(store, session, "shown", &shown)) {
        const struct redis_arg args[] = {REDIS_TEXT("ZREVRANGE"), REDIS_BUF(&user), REDIS_TEXT("0"),
                                         REDIS_TEXT(last.text)};
        err = redis_command(store->redis, args, 4, &names);
    }
    if (!err) {
        err = add_others(store, session, &shown, &names, own, out);
    }
    if (err) {
        session_list_clear(out);
    }
    redis_value_clear(&names);
    buf_clear(&user);
    buf_clear(&shown);
    return err;
}

enum err store_end_listed_session(struct store *store, const struct session *session,
                                  const struct listed_session *listed, bool *ended)
{
    struct buf key = {0};
    store_key(store, "session", listed->name, &key);
    enum err err = store_delete_key(store, &key, ended);
    if (!err) {
        store_forget_name(store, listed->name, session);
    }
    buf_clear(&key);
    return err;
}
