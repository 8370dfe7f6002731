/* Redis for all fibers of a worker: one pipelined connection (hiredis, libuv) to the one Redis, to
 * the master that Sentinels name, or to each master of a Cluster. Commands of one round of the loop
 * leave in one write. Nobody waits for a command longer than STORE_TIMEOUT_MS, whatever happens. A
 * lost or stuck connection, and one to a server that cannot serve, fails its commands with
 * ERR_STORE and is made anew when the next command comes, at once or after a short pause
 * (redis_pause.h) that the command waits out. In a Cluster all keys of one command must be of one
 * slot; the commands of a pipeline need not be. */
#ifndef STORE_REDIS_H
#define STORE_REDIS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <uv.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/settings.h"
#include "store/redis_command.h"
#include "store/redis_trouble.h"

struct redis;

/* See store_check. */
int redis_check(const struct settings *settings, bool are_sound, FILE *problems);

/* Owned by the caller; connects at the first command. settings is borrowed for its life. */
struct redis *redis_new(uv_loop_t *loop, const struct settings *settings);
void redis_free(struct redis *redis);

/* Run one command and wait for its reply. ERR_STORE: not reached in time, connection lost (the
 * command may or may not have been done), or an error reply (logged, without arguments). out is
 * filled on OK only and then cleared by the caller; NULL: the reply is not looked at, but waited
 * for. Only inside a fiber. */
enum err redis_command(struct redis *redis, const struct redis_arg *args, size_t count,
                       struct redis_value *out);

/* The same for several commands in one round trip: counts[i] arguments each, taken from args in
 * turn; outs[i] filled for each. ERR_STORE when any of them failed. */
enum err redis_pipeline(struct redis *redis, const struct redis_arg *args, const size_t *counts,
                        size_t commands, struct redis_value *outs);

/* Send a command and do not wait; its reply is only logged when it is an error. Fine outside a
 * fiber. */
void redis_send(struct redis *redis, const struct redis_arg *args, size_t count);

/* A Lua script: sent by its hash (EVALSHA), whole when Redis does not know it (NOSCRIPT). */
struct redis_script {
    const char *source;
    char sha[41]; /* filled from Redis; "" until known. Must be writable static memory */
};
enum err redis_eval(struct redis *redis, struct redis_script *script, const struct redis_arg *keys,
                    size_t key_count, const struct redis_arg *args, size_t arg_count,
                    struct redis_value *out);

/* How many masters share the keys, as far as is known: 1 but for a Cluster, there 0 before the
 * first command. */
size_t redis_count_masters(const struct redis *redis);

/* Whether each key has a master, as far as is known. */
bool redis_is_whole(const struct redis *redis);

/* OK when the master that has just answered is one still, as far as anybody knows: Sentinels, asked
 * anew, name no other. ERR_STORE: what it said may be wrong. */
enum err redis_confirm(struct redis *redis);

/* Append a tag that makes, between braces, any key the index-th master's. */
void redis_find_tag(const struct redis *redis, size_t index, struct buf *out);

/* redis_command, to the index-th master, for a reply that may well be an error: none is logged. */
enum err redis_probe(struct redis *redis, size_t index, const struct redis_arg *args, size_t count,
                     struct redis_value *out);

/* Why the command failed that this fiber has just got ERR_STORE for. */
enum redis_trouble redis_trouble(const struct redis *redis);

#endif
