/* One connection. Commands queue in hiredis, replies come back in their order, so the oldest
 * commands' deadlines are the only ones to watch. There are two: the fiber's, which counts from
 * when it came and may have waited for the connection since, and the connection's, which counts
 * from when the command was sent. A command that passes the second takes the connection with it:
 * nothing says what the next bytes on it would answer. How a context is made is redis_connect.c's
 * business, when events reach its socket redis_loop.c's, what replies hold redis_reply.c's, what
 * errors mean redis_trouble.c's. */
#include "store/redis_link.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/log.h"
#include "store/redis_connect.h"
#include "store/redis_loop.h"
#include "store/redis_pause.h"
#include "store/redis_reply.h"
#include "store/redis_tls.h"

#define COMMAND_NAME_MAX 16

/* Pauses between attempts to connect are at most this part of a command's time, so that there is
 * enough of it left for those who wait: the first request after Redis' return finds it. */
#define PAUSE_PART 2

/* A command in flight. hiredis calls back for each exactly once, with NULL when the connection is
 * gone; until then it must not be freed. */
struct command {
    struct redis_link *link;
    struct redis_wait *wait;     /* NULL: nobody waits, or nobody does any more */
    struct redis_value *out;     /* NULL: nobody looks at the reply */
    uint64_t lost_ms;            /* the connection's deadline */
    bool is_greeting;            /* AUTH or SELECT: no use of the connection without them */
    char name[COMMAND_NAME_MAX]; /* for the log */
    struct command *next;
};

enum link_state { LINK_NEW, LINK_UP, LINK_DOWN };

struct redis_link {
    uv_loop_t *loop;
    const struct settings *settings; /* borrowed */
    struct redis_target target;
    redisAsyncContext *context; /* NULL: not connected, nor about to be */
    enum link_state state;      /* as the log tells it */
    uint64_t answered_ms;       /* since when this context answers; 0: it did not yet */
    struct redis_pause pause;   /* before the next attempt */
    size_t pausing;             /* fibers that wait for it */
    enum redis_trouble end;     /* how the last context ended */
    struct command *head;       /* in flight, oldest first */
    struct command **tail;
    uv_timer_t timer; /* runs while commands are in flight, until due_ms */
    uint64_t due_ms;
};

/* The context is gone or about to be. why NULL: for what it answered, which is logged already. */
static void note_loss(struct redis_link *link, enum redis_trouble trouble, const char *why)
{
    uint64_t now_ms = uv_now(link->loop);
    uint64_t good_ms = link->answered_ms ? now_ms - link->answered_ms : 0;
    redis_pause_note_loss(&link->pause, now_ms, good_ms,
                          (uint64_t)link->settings->store_timeout_ms / PAUSE_PART);
    /* Somebody has to mend a certificate, and learns why from this line alone. */
    bool is_news = link->state != LINK_DOWN || (trouble == TROUBLE_TLS && link->end != trouble);
    link->context = NULL;
    link->answered_ms = 0;
    link->end = trouble;
    redis_target_renew(&link->target, link->loop);
    if (why && is_news) {
        link->state = LINK_DOWN;
        log_warn("redis lost", LOG_TEXT("error", why));
    }
}

static void note_answer(struct redis_link *link)
{
    if (!link->answered_ms) {
        link->answered_ms = uv_now(link->loop);
    }
    if (link->state != LINK_UP) {
        link->state = LINK_UP;
        log_info("redis connected");
    }
}

/* Inside a callback hiredis frees the context after it, else at once; either way before a fiber
 * runs again. All commands in flight get their NULL reply then. */
static void drop_context(struct redis_link *link, enum redis_trouble trouble, const char *why)
{
    redisAsyncContext *context = link->context;
    if (context) {
        note_loss(link, trouble, why);
        redisAsyncFree(context);
    }
}

static enum redis_trouble end_of(const redisAsyncContext *context)
{
    const struct redis_link *link = context->data;
    if (context->c.err == REDIS_ERR_PROTOCOL) {
        return TROUBLE_GARBLED;
    }
    return redis_tls_failure(context, link->answered_ms) ? TROUBLE_TLS : TROUBLE_UNREACHABLE;
}

/* A context that hiredis has given up. */
static void note_end(struct redis_link *link, const redisAsyncContext *context)
{
    const char *why = redis_tls_failure(context, link->answered_ms);
    if (!why) {
        why = context->c.err ? context->c.errstr : "closed";
    }
    note_loss(link, end_of(context), why);
}

static void on_gone(redisAsyncContext *context)
{
    struct redis_link *link = context->data;
    if (link->context == context) {
        note_end(link, context);
    }
}

static bool bytes_arrived(const redisAsyncContext *context)
{
    int count = 0;
    return (context->c.flags & REDIS_CONNECTED) && ioctl(context->c.fd, FIONREAD, &count) == 0 &&
           count > 0;
}

static void end_command(struct redis_wait *wait, enum redis_trouble trouble)
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
static uint64_t next_due_ms(const struct redis_link *link)
{
    uint64_t due_ms = link->head->lost_ms;
    for (const struct command *command = link->head; command; command = command->next) {
        if (command->wait) {
            return command->wait->deadline_ms < due_ms ? command->wait->deadline_ms : due_ms;
        }
    }
    return due_ms;
}

/* Whose fibers have waited long enough: the replies, should they come, are nobody's. */
static void abandon_late(struct redis_link *link, uint64_t now_ms)
{
    for (struct command *command = link->head; command; command = command->next) {
        struct redis_wait *wait = command->wait;
        if (wait && wait->deadline_ms > now_ms) {
            break;
        }
        command->wait = NULL;
        command->out = NULL;
        end_command(wait, silence_of(link->context));
    }
}

static void on_timer(uv_timer_t *timer);

static void start_timer(struct redis_link *link, uint64_t due_ms)
{
    uint64_t now_ms = uv_now(link->loop);
    link->due_ms = due_ms;
    uv_timer_start(&link->timer, on_timer, due_ms > now_ms ? due_ms - now_ms : 1, 0);
}

static void on_timer(uv_timer_t *timer)
{
    struct redis_link *link = timer->data;
    uint64_t now_ms = uv_now(link->loop);
    /* This process may have been stopped, or busy, while replies arrived in time. */
    while (link->context && link->head && next_due_ms(link) <= now_ms &&
           bytes_arrived(link->context)) {
        redis_loop_read(link->context);
    }
    if (link->context) {
        abandon_late(link, now_ms);
    }
    if (link->context && link->head && link->head->lost_ms <= now_ms) {
        drop_context(link, silence_of(link->context), "no answer in time");
    }
    if (link->head) {
        start_timer(link, next_due_ms(link));
    }
}

static void push_command(struct redis_link *link, struct command *command)
{
    uint64_t due_ms = command->wait ? command->wait->deadline_ms : command->lost_ms;
    if (!link->head || due_ms < link->due_ms) {
        start_timer(link, due_ms);
    }
    *link->tail = command;
    link->tail = &command->next;
}

static void shift_command(struct redis_link *link, const struct command *command)
{
    assert(link->head == command);
    link->head = command->next;
    if (!link->head) {
        link->tail = &link->head;
        uv_timer_stop(&link->timer);
    }
}

/* What went wrong, by an error reply. Whatever a greeting is refused for, the connection is of no
 * use then; of AUTH, versions before 6 say no more than ERR. */
static enum redis_trouble judge(const struct command *command, const redisReply *reply)
{
    struct redis_link *link = command->link;
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
        drop_context(link, trouble, NULL);
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
    note_answer(command->link);
    return TROUBLE_NONE;
}

static void on_reply(redisAsyncContext *context, void *reply, void *data)
{
    struct command *command = data;
    struct redis_link *link = command->link;
    enum redis_trouble trouble;
    shift_command(link, command);
    if (reply) {
        trouble = take_reply(command, reply);
    } else { /* a context that we have dropped is not ours any more */
        trouble = link->context == context ? end_of(context) : link->end;
    }
    end_command(command->wait, trouble);
    free(command);
    if (reply && !link->head && context->c.reader->pos < context->c.reader->len) {
        /* hiredis asserts that nobody answers unasked. */
        drop_context(link, TROUBLE_GARBLED, "more answers than commands");
    }
}

static bool queue_command(struct redis_link *link, const struct redis_arg *args, size_t count,
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
    command->link = link;
    command->lost_ms = uv_now(link->loop) + (uint64_t)link->settings->store_timeout_ms;
    memcpy(command->name, args[0].bytes,
           args[0].len < COMMAND_NAME_MAX ? args[0].len : COMMAND_NAME_MAX - 1);
    if (redisAsyncCommandArgv(link->context, on_reply, command, (int)count, texts, lens) !=
        REDIS_OK) {
        free(command);
        return false;
    }
    push_command(link, command);
    return true;
}

/* First on a new connection, ahead of the command that made it. */
static void greet(struct redis_link *link)
{
    const struct redis_url *url = &link->settings->redis;
    const struct command greeting = {.is_greeting = true};
    if (url->password) {
        struct redis_arg auth[3] = {REDIS_TEXT("AUTH")};
        size_t count = 1;
        if (url->user) {
            auth[count++] = REDIS_TEXT(url->user);
        }
        auth[count++] = REDIS_TEXT(url->password);
        queue_command(link, auth, count, &greeting);
    }
    if (url->database) {
        struct buf number = {0};
        buf_addf(&number, "%d", url->database);
        struct redis_arg select[] = {REDIS_TEXT("SELECT"), REDIS_BUF(&number)};
        queue_command(link, select, 2, &greeting);
        buf_clear(&number);
    }
}

static bool begin_connection(struct redis_link *link)
{
    if (!redis_target_is_known(&link->target)) {
        note_loss(link, TROUBLE_UNREACHABLE, "host name not found");
        return false;
    }
    redisAsyncContext *context = redis_connect(&link->target);
    context->data = link;
    if (context->err) {
        note_end(link, context);
        redisAsyncFree(context);
        return false;
    }
    int error = redis_loop_attach(link->loop, context, on_gone);
    if (error) {
        note_loss(link, TROUBLE_UNREACHABLE, uv_strerror(error));
        redisAsyncFree(context);
        return false;
    }
    link->context = context;
    greet(link);
    return true;
}

bool redis_link_send(struct redis_link *link, const struct redis_arg *args, size_t count,
                     struct redis_wait *wait, struct redis_value *out)
{
    const struct command command = {.wait = wait, .out = out};
    if (!link->context) {
        if (uv_now(link->loop) < link->pause.until_ms || !begin_connection(link)) {
            return false;
        }
    }
    if (!queue_command(link, args, count, &command)) {
        return false;
    }
    if (wait) {
        wait->unanswered++;
    }
    return true;
}

void redis_link_await(struct redis_link *link)
{
    uint64_t now_ms = uv_now(link->loop);
    uint64_t until_ms = link->pause.until_ms;
    if (link->context || (link->pausing == 0 && now_ms >= until_ms)) {
        return;
    }
    link->pausing++;
    fiber_sleep(until_ms > now_ms ? until_ms - now_ms : 0);
    link->pausing--;
}

enum redis_trouble redis_link_trouble(const struct redis_link *link)
{
    return link->end;
}

struct redis_link *redis_link_new(uv_loop_t *loop, const struct settings *settings,
                                  struct redis_tls *tls)
{
    struct redis_link *link = xcalloc(1, sizeof(*link));
    link->loop = loop;
    link->settings = settings;
    link->tail = &link->head;
    link->end = TROUBLE_UNREACHABLE;
    redis_target_init(&link->target, &settings->redis, tls);
    uv_timer_init(loop, &link->timer);
    link->timer.data = link;
    return link;
}

static void on_timer_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void redis_link_free(struct redis_link *link)
{
    redisAsyncContext *context = link->context;
    link->context = NULL;
    if (context) {
        redisAsyncFree(context);
    }
    redis_target_clear(&link->target);
    uv_close((uv_handle_t *)&link->timer, on_timer_closed);
}
