/* How renewals end, counted over all workers by HyperLogLogs: a session counts once however often
 * it tries, and what is kept does not grow with their number. */
#include <string.h>

#include "base/clock.h"
#include "store/store_impl.h"

#define BUCKET_S 60
#define BUCKETS 10
/* A bucket is looked at until it is BUCKETS minutes old, by clocks that may differ. */
#define BUCKET_LIFE_S "720"

enum verdict { RENEWED, REFUSED, VERDICT__MAX };

#define KEYS_MAX ((size_t)VERDICT__MAX * BUCKETS)

/* Both or neither: a bucket without an end would stay. KEYS: bucket. ARGV: session's name. */
static const char note_script[] = "redis.call('PFADD', KEYS[1], ARGV[1]) "
                                  "redis.call('EXPIRE', KEYS[1], " BUCKET_LIFE_S ")";

/* All in one Cluster slot, so that they can be counted together. */
static void verdict_key(const struct store *store, enum verdict verdict, int64_t bucket,
                        struct buf *out)
{
    static const char *const names[VERDICT__MAX] = {[RENEWED] = "renewed", [REFUSED] = "refused"};
    store_key(store, "verdicts", "all", out);
    buf_addf(out, ":%s:%s", names[verdict], store_number(bucket).text);
}

void store_note_verdict(struct store *store, const struct secret *secret, bool is_refused)
{
    char name[SECRET_NAME_LEN + 1];
    struct buf key = {0};
    session_name(secret, name);
    verdict_key(store, is_refused ? REFUSED : RENEWED, clock_unix_s() / BUCKET_S, &key);
    const struct redis_arg args[] = {REDIS_TEXT("EVAL"), REDIS_TEXT(note_script), REDIS_TEXT("1"),
                                     REDIS_BUF(&key), REDIS_TEXT(name)};
    redis_send(store->redis, args, 5);
    buf_clear(&key);
}

enum err store_count_verdicts(struct store *store, struct verdicts *out)
{
    struct buf keys[KEYS_MAX] = {0};
    struct redis_arg args[2 + KEYS_MAX + BUCKETS];
    const size_t counts[] = {1 + KEYS_MAX, 1 + BUCKETS};
    struct redis_arg *refused = args + counts[0];
    struct redis_value values[2];
    int64_t now = clock_unix_s() / BUCKET_S;
    args[0] = refused[0] = REDIS_TEXT("PFCOUNT");
    for (size_t i = 0; i < KEYS_MAX; i++) {
        enum verdict verdict = i < BUCKETS ? REFUSED : RENEWED;
        verdict_key(store, verdict, now - (int64_t)(i % BUCKETS), &keys[i]);
        args[1 + i] = REDIS_BUF(&keys[i]);
    }
    for (size_t i = 0; i < BUCKETS; i++) {
        refused[1 + i] = args[1 + i];
    }
    enum err err = redis_pipeline(store->redis, args, counts, 2, values);
    if (!err) {
        *out = (struct verdicts){values[0].integer, values[1].integer};
        redis_value_clear(&values[0]);
        redis_value_clear(&values[1]);
    }
    for (size_t i = 0; i < KEYS_MAX; i++) {
        buf_clear(&keys[i]);
    }
    return err;
}
