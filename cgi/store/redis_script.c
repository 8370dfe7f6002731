/* Lua scripts. Redis forgets them when it restarts, when it is told to (SCRIPT FLUSH) and, from
 * version 7.4 on, when there are too many, so that a hash is only ever a short cut. */
#include "store/redis.h"

#include <assert.h>
#include <string.h>

/* The script whole, and in the same round trip its hash for next time. */
static enum err load_and_eval(struct redis *redis, struct redis_script *script,
                              const struct redis_arg *eval, size_t count, struct redis_value *out)
{
    struct redis_arg args[REDIS_ARGS_MAX + 3] = {REDIS_TEXT("SCRIPT"), REDIS_TEXT("LOAD"),
                                                 REDIS_TEXT(script->source)};
    const size_t counts[] = {3, count};
    struct redis_value outs[2];
    memcpy(args + 3, eval, count * sizeof(*eval));
    enum err err = redis_pipeline(redis, args, counts, 2, outs);
    if (err) {
        return err;
    }
    if (outs[0].type == REDIS_IS_STRING && outs[0].text.len == sizeof(script->sha) - 1) {
        memcpy(script->sha, outs[0].text.data, sizeof(script->sha));
    }
    redis_value_clear(&outs[0]);
    *out = outs[1];
    return OK;
}

enum err redis_eval(struct redis *redis, struct redis_script *script, const struct redis_arg *keys,
                    size_t key_count, const struct redis_arg *args, size_t arg_count,
                    struct redis_value *out)
{
    struct redis_arg all[REDIS_ARGS_MAX];
    char key_count_text[] = {(char)('0' + key_count), '\0'};
    size_t count = 3 + key_count + arg_count;
    assert(key_count < 10 && count <= REDIS_ARGS_MAX);
    all[2] = REDIS_TEXT(key_count_text);
    memcpy(all + 3, keys, key_count * sizeof(*keys));
    memcpy(all + 3 + key_count, args, arg_count * sizeof(*args));
    if (script->sha[0]) {
        all[0] = REDIS_TEXT("EVALSHA");
        all[1] = REDIS_TEXT(script->sha);
        enum err err = redis_command(redis, all, count, out);
        if (!err || redis_trouble(redis) != TROUBLE_NOSCRIPT) {
            return err;
        }
    }
    all[0] = REDIS_TEXT("EVAL");
    all[1] = REDIS_TEXT(script->source);
    return load_and_eval(redis, script, all, count, out);
}
