/* How Redis is doing, for /readyz: whether it stores what it is given, and whether it may lose it
 * later. The second is asked for politely: a user of Redis' ACL need not be allowed INFO or CONFIG,
 * and what is not known is no risk. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "store/store_impl.h"

/* Health checks come often, and who changes Redis' settings can wait for that long. */
#define RISKS_KEPT_MS 30000

/* A write that leaves nothing behind, made like those of logins and renewals. Unlike PING, it is
 * refused where they would be: by a replica, a full Redis, one whose disk is full, and by an ACL.
 * KEYS: ping. */
static struct redis_script ping_script = {
    .source = "redis.call('SET', KEYS[1], '1', 'PX', 1000) "
              "return redis.call('DEL', KEYS[1])",
};

static enum err ping(struct store *store, const struct buf *key, const char **trouble)
{
    struct redis_value value = {0};
    const struct redis_arg keys[] = {REDIS_BUF(key)};
    enum err err = redis_eval(store->redis, &ping_script, keys, 1, keys, 0, &value);
    if (err) {
        *trouble = redis_trouble_word(redis_trouble(store->redis));
    } else if (value.type != REDIS_IS_INTEGER) {
        err = ERR_STORE;
        *trouble = redis_trouble_word(TROUBLE_GARBLED);
    }
    redis_value_clear(&value);
    return err;
}

/* A Cluster stores what it is given when each of its masters does, and when each slot has one. */
static enum err ping_masters(struct store *store, const char **trouble)
{
    enum err err = OK;
    size_t count = redis_count_masters(store->redis);
    for (size_t i = 0; i < count && !err; i++) {
        struct buf key = {0}, tag = {0};
        redis_find_tag(store->redis, i, &tag);
        store_key(store, "ping", buf_str(&tag), &key);
        err = ping(store, &key, trouble);
        buf_clear(&tag);
        buf_clear(&key);
    }
    if (!err && !redis_is_whole(store->redis)) {
        err = ERR_STORE;
        *trouble = redis_trouble_word(TROUBLE_CLUSTERDOWN);
    }
    return err;
}

enum err store_ping(struct store *store, const char **trouble)
{
    struct buf key = {0};
    buf_adds(&key, store->settings->redis_prefix);
    buf_adds(&key, "ping");
    enum err err = ping(store, &key, trouble);
    if (!err && store->settings->redis.kind == REDIS_CLUSTER) {
        err = ping_masters(store, trouble);
    }
    buf_clear(&key);
    return err;
}

/* The value of a line "name:value" of INFO; NULL without one. */
static const char *find_info(const struct redis_value *info, const char *name)
{
    const char *line = buf_str(&info->text);
    size_t len = strlen(name);
    while (line) {
        if (strncmp(line, name, len) == 0 && line[len] == ':') {
            return line + len + 1;
        }
        line = strchr(line, '\n');
        line = line ? line + 1 : NULL;
    }
    return NULL;
}

/* OK, too, with an empty value, for what this Redis does not know or does not let us know. */
static enum err ask(struct store *store, size_t master, const struct redis_arg *args, size_t count,
                    struct redis_value *out)
{
    enum err err = redis_probe(store->redis, master, args, count, out);
    enum redis_trouble trouble = redis_trouble(store->redis);
    return err && (trouble == TROUBLE_AUTH || trouble == TROUBLE_REFUSED) ? OK : err;
}

static enum err read_evicts(struct store *store, size_t master, bool *evicts)
{
    static const struct redis_arg args[] = {{"INFO", 4}, {"memory", 6}};
    struct redis_value info = {0};
    enum err err = ask(store, master, args, 2, &info);
    const char *max = find_info(&info, "maxmemory");
    const char *policy = find_info(&info, "maxmemory_policy");
    *evicts = max && strtoll(max, NULL, 10) > 0 && policy &&
              strncmp(policy, "noeviction", strlen("noeviction")) != 0;
    redis_value_clear(&info);
    return err;
}

static enum err read_has_file(struct store *store, size_t master, bool *has_file)
{
    static const struct redis_arg args[] = {{"INFO", 4}, {"persistence", 11}};
    struct redis_value info = {0};
    enum err err = ask(store, master, args, 2, &info);
    const char *enabled = find_info(&info, "aof_enabled");
    *has_file = !enabled || *enabled != '0';
    redis_value_clear(&info);
    return err;
}

static enum err read_has_snapshots(struct store *store, size_t master, bool *has_snapshots)
{
    static const struct redis_arg args[] = {{"CONFIG", 6}, {"GET", 3}, {"save", 4}};
    struct redis_value save = {0};
    enum err err = ask(store, master, args, 3, &save);
    bool is_known = save.type == REDIS_IS_ARRAY && save.item_count == 2;
    *has_snapshots = !is_known || save.items[1].text.len > 0;
    redis_value_clear(&save);
    return err;
}

static void log_change(bool was, bool is, const char *risk)
{
    if (is && !was) {
        log_warn("redis may lose sessions", LOG_TEXT("why", risk));
    } else if (was && !is) {
        log_info("redis may not lose sessions any more", LOG_TEXT("why", risk));
    }
}

/* What any of the masters may lose. */
static enum err read_risks(struct store *store, struct store_risks *out)
{
    size_t count = redis_count_masters(store->redis);
    for (size_t i = 0; i < count || i == 0; i++) {
        bool evicts, has_file, has_snapshots;
        if (read_evicts(store, i, &evicts) || read_has_file(store, i, &has_file) ||
            read_has_snapshots(store, i, &has_snapshots)) {
            return ERR_STORE;
        }
        out->evicts = out->evicts || evicts;
        out->forgets = out->forgets || (!has_file && !has_snapshots);
        count = redis_count_masters(store->redis); /* known since the first answer */
    }
    return OK;
}

struct store_risks store_get_risks(struct store *store)
{
    uint64_t now_ms = clock_mono_ms();
    if (store->risks_read_ms && now_ms - store->risks_read_ms < RISKS_KEPT_MS) {
        return store->risks;
    }
    store->risks_read_ms = now_ms; /* who comes meanwhile takes what was known before */
    struct store_risks found = {0};
    if (read_risks(store, &found)) {
        store->risks_read_ms = 0;
        return store->risks;
    }
    log_change(store->risks.evicts, found.evicts, "maxmemory-policy may evict them");
    log_change(store->risks.forgets, found.forgets, "neither appendonly nor save is set");
    store->risks = found;
    return found;
}
