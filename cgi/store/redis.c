/* The connection to Redis. Commands queue in hiredis, replies come back in their order, so the
 * oldest commands' deadlines are the only ones to watch. There are two: the fiber's, which counts
 * from when it came and may have waited for the connection since, and the connection's, which
 * counts from when the command was sent. A command that passes the second takes the connection with
 * it: nothing says what the next bytes on it would answer. When events reach the socket is
 * redis_loop.c's business, what replies hold is redis_reply.c's, what errors mean
 * redis_trouble.c's. */
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
#include "base/metrics.h"
#include "store/redis_address.h"
#include "store/redis_loop.h"
#include "store/redis_pause.h"
#include "store/redis_reply.h"

#define COMMAND_NAME_MAX 16

/* Pauses between attempts to connect are at most this part of a command's time, so that there is
 * enough of it left for those who wait: the first request after Redis' return finds it. */
#define PAUSE_PART 2

/* A fiber that waits for its commands. Lives on the fiber's stack. */
struct wait {
    struct fiber *fiber;
    uint64_t deadline_ms;
    size_t unanswered;
    bool is_quiet;              /* error replies are not logged */
    enum redis_trouble trouble; /* of the first command that failed */
};

/* A command in flight. hiredis calls back for each exactly once, with NULL when the connection is
 * gone; until then it must not be freed. */
struct command {
    struct redis *redis;
    struct wait *wait;           /* NULL: nobody waits, or nobody does any more */
    struct redis_value *out;     /* NULL: nobody looks at the reply */
    uint64_t lost_ms;            /* the connection's deadline */
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
    uint64_t answered_ms;            /* since when this context answers; 0: it did not yet */
    struct redis_pause pause;        /* before the next attempt */
    size_t pausing;                  /* fibers that wait for it */
    enum redis_trouble end;          /* how the last context ended */
    enum redis_trouble trouble;      /* see redis_trouble() */
    struct command *head;            /* in flight, oldest first */
    struct command **tail;
    uv_timer_t timer; /* runs while commands are in flight, until due_ms */
    uint64_t due_ms;
};

/* The context is gone or about to be. why NULL: for what it answered, which is logged already. */
static void note_loss(struct redis *redis, enum redis_trouble trouble, const char *why)
{
    uint64_t now_ms = uv_now(redis->loop);
    uint64_t good_ms = redis->answered_ms ? now_ms - redis->answered_ms : 0;
    redis_pause_note_loss(&redis->pause, now_ms, good_ms,
                          (uint64_t)redis->settings->store_timeout_ms / PAUSE_PART);
    redis->context = NULL;
    redis->answered_ms = 0;
    redis->end = trouble;
    redis_address_renew(&redis->address, redis->loop);
    if (why && redis->state != LINK_DOWN) {
        redis->state = LINK_DOWN;
        log_warn("redis lost", LOG_TEXT("error", why));
    }
}

static void note_answer(struct redis *redis)
{
    if (!redis->answered_ms) {
        redis->answered_ms = uv_now(redis->loop);
    }
    if (redis->state != LINK_UP) {
        redis->state = LINK_UP;
        log_info("redis connected");
    }
}

/* Inside a callback hiredis frees the context after it, else at once; either way before a fiber
 * runs again. All commands in flight get their NULL reply then. */
static void drop_context(struct redis *redis, enum redis_trouble trouble, const char *why)
{
    redisAsyncContext *context = redis->context;
    if (context) {
        note_loss(redis, trouble, why);
        redisAsyncFree(context);
    }
}

static enum redis_trouble end_of(const redisAsyncContext *context)
{
    return context->c.err == REDIS_ERR_PROTOCOL ? TROUBLE_GARBLED : TROUBLE_UNREACHABLE;
}

static void on_gone(redisAsyncContext *context)
{
    struct redis *redis = context->data;
    if (redis->context == context) {
        note_loss(redis, end_of(context), context->c.err ? context->c.errstr : "closed");
    }
}

static bool bytes_arrived(const redisAsyncContext *context)
{
    int count = 0;
    return (context->c.flags & REDIS_CONNECTED) && ioctl(context->c.fd, FIONREAD, &count) == 0 &&
           count > 0;
}

static void end_command(struct wait *wait, enum redis_trouble trouble)
{
    if (!wait) {
        return;
    }
    if (!wait->trouble) {
        wait->trouble = trouble;
    }
    wait->unanswered--;
    if (wait->unanswered == 0) {
        fiber_wake(wait->fiber);
    }
}

static enum redis_trouble silence_of(const redisAsyncContext *context)
{
    return context->c.flags & REDIS_CONNECTED ? TROUBLE_SLOW : TROUBLE_UNREACHABLE;
}

/* When something is due: the first fiber's deadline, or the connection's. */
static uint64_t next_due_ms(const struct redis *redis)
{
    uint64_t due_ms = redis->head->lost_ms;
    for (const struct command *command = redis->head; command; command = command->next) {
        if (command->wait) {
            return command->wait->deadline_ms < due_ms ? command->wait->deadline_ms : due_ms;
        }
    }
    return due_ms;
}

/* Whose fibers have waited long enough: the replies, should they come, are nobody's. */
static void abandon_late(struct redis *redis, uint64_t now_ms)
{
    for (struct command *command = redis->head; command; command = command->next) {
        struct wait *wait = command->wait;
        if (wait && wait->deadline_ms > now_ms) {
            break;
        }
        command->wait = NULL;
        command->out = NULL;
        end_command(wait, silence_of(redis->context));
    }
}

static void on_timer(uv_timer_t *timer);

static void start_timer(struct redis *redis, uint64_t due_ms)
{
    uint64_t now_ms = uv_now(redis->loop);
    redis->due_ms = due_ms;
    uv_timer_start(&redis->timer, on_timer, due_ms > now_ms ? due_ms - now_ms : 1, 0);
}

static void on_timer(uv_timer_t *timer)
{
    struct redis *redis = timer->data;
    uint64_t now_ms = uv_now(redis->loop);
    /* This process may have been stopped, or busy, while replies arrived in time. */
    while (redis->context && redis->head && next_due_ms(redis) <= now_ms &&
           bytes_arrived(redis->context)) {
        redisAsyncHandleRead(redis->context);
    }
    if (redis->context) {
        abandon_late(redis, now_ms);
    }
    if (redis->context && redis->head && redis->head->lost_ms <= now_ms) {
        drop_context(redis, silence_of(redis->context), "no answer in time");
    }
    if (redis->head) {
        start_timer(redis, next_due_ms(redis));
    }
}

static void push_command(struct redis *redis, struct command *command)
{
    uint64_t due_ms = command->wait ? command->wait->deadline_ms : command->lost_ms;
    if (!redis->head || due_ms < redis->due_ms) {
        start_timer(redis, due_ms);
    }
    *redis->tail = command;
    redis->tail = &command->next;
}

static void shift_command(struct redis *redis, const struct command *command)
{
    assert(redis->head == command);
    redis->head = command->next;
    if (!redis->head) {
        redis->tail = &redis->head;
        uv_timer_stop(&redis->timer);
    }
}

/* What went wrong, by an error reply. Whatever a greeting is refused for, the connection is of no
 * use then; of AUTH, versions before 6 say no more than ERR. */
static enum redis_trouble judge(const struct command *command, const redisReply *reply)
{
    struct redis *redis = command->redis;
    const char *error = reply->type == REDIS_REPLY_ERROR ? reply->str : "type";
    enum redis_trouble trouble = redis_trouble_of(error);
    if (trouble == TROUBLE_REFUSED && strcmp(command->name, "AUTH") == 0) {
        trouble = TROUBLE_AUTH;
    }
    bool is_quiet = command->wait && command->wait->is_quiet;
    if (!is_quiet && trouble != TROUBLE_NOSCRIPT) {
        redis_trouble_log(trouble, command->name, error);
    }
    if (command->is_greeting || redis_trouble_ends_connection(trouble)) {
        drop_context(redis, trouble, NULL);
    }
    return trouble;
}

static enum redis_trouble take_reply(struct command *command, const redisReply *reply)
{
    struct redis_value ignored = {0};
    if (!redis_reply_copy(reply, command->out ? command->out : &ignored)) {
        return judge(command, reply);
    }
    redis_value_clear(&ignored);
    note_answer(command->redis);
    return TROUBLE_NONE;
}

static void on_reply(redisAsyncContext *context, void *reply, void *data)
{
    struct command *command = data;
    struct redis *redis = command->redis;
    enum redis_trouble trouble;
    shift_command(redis, command);
    if (reply) {
        trouble = take_reply(command, reply);
    } else { /* a context that we have dropped is not ours any more */
        trouble = redis->context == context ? end_of(context) : redis->end;
    }
    end_command(command->wait, trouble);
    free(command);
    if (reply && !redis->head && context->c.reader->pos < context->c.reader->len) {
        /* hiredis asserts that nobody answers unasked. */
        drop_context(redis, TROUBLE_GARBLED, "more answers than commands");
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
    command->lost_ms = uv_now(redis->loop) + (uint64_t)redis->settings->store_timeout_ms;
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
    if (!context->err && !url->socket_path) {
        redisEnableKeepAlive(&context->c); /* routers forget connections on which nothing happens */
    }
    return context;
}

static bool begin_connection(struct redis *redis)
{
    if (!redis->settings->redis.socket_path && !redis->address.text[0]) {
        note_loss(redis, TROUBLE_UNREACHABLE, "host name not found");
        return false;
    }
    redisAsyncContext *context = new_context(redis);
    if (context->err) {
        note_loss(redis, TROUBLE_UNREACHABLE, context->errstr);
        redisAsyncFree(context);
        return false;
    }
    fcntl(context->c.fd, F_SETFD, FD_CLOEXEC);
    int error = redis_loop_attach(redis->loop, context, on_gone);
    if (error) {
        note_loss(redis, TROUBLE_UNREACHABLE, uv_strerror(error));
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
        if (uv_now(redis->loop) < redis->pause.until_ms || !begin_connection(redis)) {
            return false;
        }
    }
    return queue_command(redis, args, count, &command);
}

/* Wait for the next attempt to connect, which is the first one's in the queue. */
static void await_attempt(struct redis *redis)
{
    uint64_t now_ms = uv_now(redis->loop);
    uint64_t until_ms = redis->pause.until_ms;
    if (redis->context || (redis->pausing == 0 && now_ms >= until_ms)) {
        return;
    }
    redis->pausing++;
    fiber_sleep(until_ms > now_ms ? until_ms - now_ms : 0);
    redis->pausing--;
}

/* Send commands, wait for them all; on failure no out holds anything. outs NULL: not looked at. */
static enum err run_commands(struct redis *redis, const struct redis_arg *args,
                             const size_t *counts, size_t commands, struct redis_value *outs,
                             bool is_quiet)
{
    uint64_t begin_us = clock_mono_us();
    struct wait wait = {.fiber = fiber_self(), .is_quiet = is_quiet};
    /* The loop's clock is that of its last turn, and this process may have stood still since. */
    uv_update_time(redis->loop);
    wait.deadline_ms = uv_now(redis->loop) + (uint64_t)redis->settings->store_timeout_ms;
    assert(wait.fiber);
    await_attempt(redis);
    for (size_t i = 0; i < commands; i++) {
        struct redis_value *out = outs ? &outs[i] : NULL;
        if (out) {
            *out = (struct redis_value){0};
        }
        if (send_command(redis, args, counts[i], &wait, out)) {
            wait.unanswered++;
        } else {
            wait.trouble = redis->end;
        }
        args += counts[i];
    }
    if (wait.unanswered > 0) {
        fiber_park();
    }
    uint64_t waited_us = clock_mono_us() - begin_us;
    struct log_context *context = log_context();
    if (context) {
        context->store_us += waited_us;
    }
    metrics_observe_redis(waited_us);
    if (!wait.trouble) {
        return OK;
    }
    redis->trouble = wait.trouble;
    if (!is_quiet && wait.trouble != TROUBLE_NOSCRIPT) {
        metrics_count_word(METRIC_REDIS_ERRORS, redis_trouble_word(wait.trouble));
    }
    for (size_t i = 0; outs && i < commands; i++) {
        redis_value_clear(&outs[i]);
    }
    return ERR_STORE;
}

enum err redis_command(struct redis *redis, const struct redis_arg *args, size_t count,
                       struct redis_value *out)
{
    return run_commands(redis, args, &count, 1, out, false);
}

enum err redis_probe(struct redis *redis, const struct redis_arg *args, size_t count,
                     struct redis_value *out)
{
    return run_commands(redis, args, &count, 1, out, true);
}

enum err redis_pipeline(struct redis *redis, const struct redis_arg *args, const size_t *counts,
                        size_t commands, struct redis_value *outs)
{
    return run_commands(redis, args, counts, commands, outs, false);
}

void redis_send(struct redis *redis, const struct redis_arg *args, size_t count)
{
    send_command(redis, args, count, NULL, NULL);
}

enum redis_trouble redis_trouble(const struct redis *redis)
{
    return redis->trouble;
}

struct redis *redis_new(uv_loop_t *loop, const struct settings *settings)
{
    struct redis *redis = xcalloc(1, sizeof(*redis));
    redis->loop = loop;
    redis->settings = settings;
    redis->tail = &redis->head;
    redis->end = TROUBLE_UNREACHABLE;
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
