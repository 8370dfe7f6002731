/* The connection to Redis. Commands queue in hiredis, replies come back in their order, and since
 * all commands have the same time, the oldest one's deadline is the only one to watch. A command
 * without an answer in time takes the connection with it: nothing says what the next bytes on it
 * would answer. When events reach the socket is redis_loop.c's business, what replies hold is
 * redis_reply.c's. */
#include "store/redis.h"

#include <assert.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/clock.h"
#include "base/fiber.h"
#include "base/log.h"
#include "store/redis_address.h"
#include "store/redis_loop.h"
#include "store/redis_reply.h"

#define COMMAND_NAME_MAX 16

/* After a failed attempt to connect, commands wait for this long before the next one, so that an
 * absent Redis costs no stream of attempts, and one that is back is found by the first command. The
 * jitter keeps workers from attempting together. */
#define RETRY_MS 20
#define RETRY_JITTER_MS 10

/* A fiber that waits for its commands. Lives on the fiber's stack. */
struct wait {
    struct fiber *fiber;
    size_t unanswered;
    bool is_script; /* NOSCRIPT is an answer to act upon, not an error */
    bool script_unknown;
    bool failed;
};

/* A command in flight. hiredis calls back for each exactly once, with NULL when the connection is
 * gone; until then it must not be freed. */
struct command {
    struct redis *redis;
    struct wait *wait;       /* NULL: nobody waits */
    struct redis_value *out; /* NULL: nobody looks at the reply */
    uint64_t deadline_ms;
    bool is_greeting;            /* AUTH or SELECT: no use of the connection without them */
    char name[COMMAND_NAME_MAX]; /* for the log */
    struct command *next;
};

enum link_state { LINK_NEW, LINK_UP, LINK_DOWN };

struct redis {
    uv_loop_t *loop;
    const struct settings *settings; /* borrowed */
    struct redis_address address;    /* of its host; unused with a unix socket */
    redisAsyncContext *context;      /* NULL: not connected, nor about to be */
    enum link_state state;           /* as the log tells it */
    bool has_answered;               /* this context did */
    uint64_t retry_at_ms;            /* no attempt before */
    struct command *head;            /* in flight, oldest first */
    struct command **tail;
    uint64_t answers; /* counted, to see progress */
    uv_timer_t timer; /* runs while commands are in flight */
};

/* The context is gone or about to be. One that never answered, or was told to go, is not replaced
 * at once. */
static void note_loss(struct redis *redis, const char *why, bool pause)
{
    redis->context = NULL;
    if (pause || !redis->has_answered) {
        uint64_t jitter_ms = uv_hrtime() / 1000 % RETRY_JITTER_MS;
        redis->retry_at_ms = uv_now(redis->loop) + RETRY_MS + jitter_ms;
    }
    redis->has_answered = false;
    redis_address_renew(&redis->address, redis->loop);
    if (redis->state != LINK_DOWN) {
        redis->state = LINK_DOWN;
        log_warn("redis lost", LOG_TEXT("error", why));
    }
}

static void note_answer(struct redis *redis)
{
    redis->has_answered = true;
    if (redis->state != LINK_UP) {
        redis->state = LINK_UP;
        log_info("redis connected");
    }
}

/* Inside a callback hiredis frees the context after it, else at once; either way before a fiber
 * runs again. All commands in flight get their NULL reply then. */
static void drop_context(struct redis *redis, const char *why)
{
    redisAsyncContext *context = redis->context;
    if (context) {
        note_loss(redis, why, true);
        redisAsyncFree(context);
    }
}

static void on_gone(redisAsyncContext *context)
{
    struct redis *redis = context->data;
    if (redis->context == context) {
        note_loss(redis, context->c.err ? context->c.errstr : "closed", false);
    }
}

static bool bytes_arrived(const redisAsyncContext *context)
{
    int count = 0;
    return (context->c.flags & REDIS_CONNECTED) && ioctl(context->c.fd, FIONREAD, &count) == 0 &&
           count > 0;
}

static void on_timer(uv_timer_t *timer)
{
    struct redis *redis = timer->data;
    uint64_t now_ms = uv_now(redis->loop);
    while (redis->context && redis->head && redis->head->deadline_ms <= now_ms) {
        /* This process may have been stopped, or busy, while the reply arrived in time. */
        uint64_t answers = redis->answers;
        while (redis->context && redis->answers == answers && bytes_arrived(redis->context)) {
            redisAsyncHandleRead(redis->context);
        }
        if (redis->answers == answers) {
            drop_context(redis, "no answer in time");
        }
    }
    if (redis->head) {
        uv_timer_start(timer, on_timer, redis->head->deadline_ms - now_ms, 0);
    }
}

static void push_command(struct redis *redis, struct command *command)
{
    if (!redis->head) {
        uv_timer_start(&redis->timer, on_timer, (uint64_t)redis->settings->store_timeout_ms, 0);
    }
    *redis->tail = command;
    redis->tail = &command->next;
}

static void shift_command(struct redis *redis, const struct command *command)
{
    assert(redis->head == command);
    redis->answers++;
    redis->head = command->next;
    if (!redis->head) {
        redis->tail = &redis->head;
        uv_timer_stop(&redis->timer);
    }
}

/* False when the command failed. */
static bool take_reply(struct command *command, const redisReply *reply)
{
    struct redis *redis = command->redis;
    struct redis_value ignored = {0};
    struct redis_value *out = command->out ? command->out : &ignored;
    if (!reply) {
        return false;
    }
    if (redis_reply_copy(reply, out)) {
        if (!command->out) {
            redis_value_clear(&ignored);
        }
        note_answer(redis);
        return true;
    }
    if (command->wait && command->wait->is_script && redis_reply_is_error(reply, "NOSCRIPT")) {
        command->wait->script_unknown = true;
        return false;
    }
    redis_reply_log_error(reply, command->name);
    if (command->is_greeting) {
        drop_context(redis, "login refused");
    } else if (redis_reply_is_error(reply, "READONLY")) {
        /* A replica now: whoever is the master may answer at the same address. */
        drop_context(redis, "read-only");
    }
    return false;
}

static void on_reply(redisAsyncContext *context, void *reply, void *data)
{
    struct command *command = data;
    struct wait *wait = command->wait;
    (void)context;
    shift_command(command->redis, command);
    bool ok = take_reply(command, reply);
    free(command);
    if (wait) {
        wait->failed = wait->failed || !ok;
        wait->unanswered--;
        if (wait->unanswered == 0) {
            fiber_wake(wait->fiber);
        }
    }
}

static bool queue_command(struct redis *redis, const struct redis_arg *args, size_t count,
                          const struct command *like)
{
    const char *texts[REDIS_ARGS_MAX];
    size_t lens[REDIS_ARGS_MAX];
    assert(count > 0 && count <= REDIS_ARGS_MAX);
    for (size_t i = 0; i < count; i++) {
        texts[i] = args[i].bytes;
        lens[i] = args[i].len;
    }
    struct command *command = xcalloc(1, sizeof(*command));
    *command = *like;
    command->redis = redis;
    command->deadline_ms = uv_now(redis->loop) + (uint64_t)redis->settings->store_timeout_ms;
    memcpy(command->name, args[0].bytes,
           args[0].len < COMMAND_NAME_MAX ? args[0].len : COMMAND_NAME_MAX - 1);
    if (redisAsyncCommandArgv(redis->context, on_reply, command, (int)count, texts, lens) !=
        REDIS_OK) {
        free(command);
        return false;
    }
    push_command(redis, command);
    return true;
}

/* First on a new connection, ahead of the command that made it. */
static void greet(struct redis *redis)
{
    const struct redis_url *url = &redis->settings->redis;
    const struct command greeting = {.is_greeting = true};
    if (url->password) {
        struct redis_arg auth[3] = {REDIS_TEXT("AUTH")};
        size_t count = 1;
        if (url->user) {
            auth[count++] = REDIS_TEXT(url->user);
        }
        auth[count++] = REDIS_TEXT(url->password);
        queue_command(redis, auth, count, &greeting);
    }
    if (url->database) {
        struct buf number = {0};
        buf_addf(&number, "%d", url->database);
        struct redis_arg select[] = {REDIS_TEXT("SELECT"), REDIS_BUF(&number)};
        queue_command(redis, select, 2, &greeting);
        buf_clear(&number);
    }
}

static redisAsyncContext *new_context(struct redis *redis)
{
    const struct redis_url *url = &redis->settings->redis;
    redisAsyncContext *context = url->socket_path
                                     ? redisAsyncConnectUnix(url->socket_path)
                                     : redisAsyncConnect(redis->address.text, url->port);
    if (!context) {
        abort();
    }
    return context;
}

static bool begin_connection(struct redis *redis)
{
    if (!redis->settings->redis.socket_path && !redis->address.text[0]) {
        note_loss(redis, "host name not found", true);
        return false;
    }
    redisAsyncContext *context = new_context(redis);
    if (context->err) {
        note_loss(redis, context->errstr, true);
        redisAsyncFree(context);
        return false;
    }
    fcntl(context->c.fd, F_SETFD, FD_CLOEXEC);
    int error = redis_loop_attach(redis->loop, context, on_gone);
    if (error) {
        note_loss(redis, uv_strerror(error), true);
        redisAsyncFree(context);
        return false;
    }
    context->data = redis;
    redis->context = context;
    greet(redis);
    return true;
}

static bool send_command(struct redis *redis, const struct redis_arg *args, size_t count,
                         struct wait *wait, struct redis_value *out)
{
    const struct command command = {.wait = wait, .out = out};
    if (!redis->context) {
        if (uv_now(redis->loop) < redis->retry_at_ms || !begin_connection(redis)) {
            return false;
        }
    }
    return queue_command(redis, args, count, &command);
}

/* Send commands, wait for them all; on failure no out holds anything. outs NULL: not looked at. */
static enum err run_commands(struct redis *redis, const struct redis_arg *args,
                             const size_t *counts, size_t commands, struct redis_value *outs,
                             struct wait *wait)
{
    uint64_t begin_us = clock_mono_us();
    wait->fiber = fiber_self();
    assert(wait->fiber);
    if (!redis->context && uv_now(redis->loop) < redis->retry_at_ms) {
        fiber_sleep(redis->retry_at_ms - uv_now(redis->loop));
    }
    for (size_t i = 0; i < commands; i++) {
        struct redis_value *out = outs ? &outs[i] : NULL;
        if (out) {
            *out = (struct redis_value){0};
        }
        if (send_command(redis, args, counts[i], wait, out)) {
            wait->unanswered++;
        } else {
            wait->failed = true;
        }
        args += counts[i];
    }
    if (wait->unanswered > 0) {
        fiber_park();
    }
    struct log_context *context = log_context();
    if (context) {
        context->store_us += clock_mono_us() - begin_us;
    }
    if (!wait->failed) {
        return OK;
    }
    for (size_t i = 0; outs && i < commands; i++) {
        redis_value_clear(&outs[i]);
    }
    return ERR_STORE;
}

enum err redis_command(struct redis *redis, const struct redis_arg *args, size_t count,
                       struct redis_value *out)
{
    struct wait wait = {0};
    return run_commands(redis, args, &count, 1, out, &wait);
}

enum err redis_pipeline(struct redis *redis, const struct redis_arg *args, const size_t *counts,
                        size_t commands, struct redis_value *outs)
{
    struct wait wait = {0};
    return run_commands(redis, args, counts, commands, outs, &wait);
}

void redis_send(struct redis *redis, const struct redis_arg *args, size_t count)
{
    send_command(redis, args, count, NULL, NULL);
}

enum err redis_try_script(struct redis *redis, const struct redis_arg *args, size_t count,
                          struct redis_value *out, bool *unknown)
{
    struct wait wait = {.is_script = true};
    enum err err = run_commands(redis, args, &count, 1, out, &wait);
    *unknown = wait.script_unknown;
    return err;
}

struct redis *redis_new(uv_loop_t *loop, const struct settings *settings)
{
    struct redis *redis = xcalloc(1, sizeof(*redis));
    redis->loop = loop;
    redis->settings = settings;
    redis->tail = &redis->head;
    if (!settings->redis.socket_path) {
        redis_address_init(&redis->address, settings->redis.host);
    }
    uv_timer_init(loop, &redis->timer);
    redis->timer.data = redis;
    /* hiredis writes without MSG_NOSIGNAL. */
    signal(SIGPIPE, SIG_IGN);
    return redis;
}

static void on_timer_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void redis_free(struct redis *redis)
{
    redisAsyncContext *context = redis->context;
    redis->context = NULL;
    if (context) {
        redisAsyncFree(context);
    }
    redis_address_clear(&redis->address);
    uv_close((uv_handle_t *)&redis->timer, on_timer_closed);
}
