/* One connection. Commands queue in hiredis, replies come back in their order. There are two
 * deadlines to watch: the fiber's, which counts from when it came and may have waited for the
 * connection or been elsewhere since, and the connection's, which counts from when the command was
 * sent. A command that passes the second takes the connection with it: nothing says what the next
 * bytes on it would answer. How a context is made is redis_connect.c's business, when events reach
 * its socket redis_loop.c's, what replies hold redis_reply.c's, what errors mean
 * redis_trouble.c's. */
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

/* A connection that says within this part of a command's time that it is a master's is waited for:
 * enough of that time must be left for another one. */
#define GREETING_PART 4

/* How often is looked whether a host name has an address by now. */
#define LOOKUP_MS 10

enum purpose {
    FOR_CALL,
    FOR_GREETING, /* AUTH or SELECT: no use of the connection without them */
    FOR_ROLE,     /* the same, and the reply must name a master */
};

/* A command in flight. hiredis calls back for each exactly once, with NULL when the connection is
 * gone; until then it must not be freed. */
struct command {
    struct redis_link *link;
    struct redis_call *call; /* NULL: nobody waits, or nobody does any more */
    uint64_t lost_ms;        /* the connection's deadline */
    enum purpose purpose;
    char name[COMMAND_NAME_MAX]; /* for the log */
    struct command *next;
};

enum link_state { LINK_NEW, LINK_UP, LINK_DOWN };

struct redis_link {
    uv_loop_t *loop;
    struct redis_link_options options;
    struct redis_target target;
    char *name;                 /* for the log; owned */
    redisAsyncContext *context; /* NULL: not connected, nor about to be */
    bool is_ready;              /* checked, and found to be a master's */
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

static uint64_t timeout_ms(const struct redis_link *link)
{
    return (uint64_t)link->options.settings->store_timeout_ms;
}

static void tell_change(struct redis_link *link)
{
    if (link->options.owner.changed) {
        link->options.owner.changed(link->options.owner.self);
    }
}

static void log_loss(struct redis_link *link, enum redis_trouble trouble, const char *why)
{
    /* Somebody has to mend a certificate, and learns why from this line alone. */
    bool is_news = link->state != LINK_DOWN || (trouble == TROUBLE_TLS && link->end != trouble);
    if (is_news && link->options.what) {
        log_warn("redis lost", LOG_TEXT("node", link->name), LOG_TEXT("error", why));
    }
    link->state = LINK_DOWN;
}

/* The context is gone or about to be. why NULL: for what it answered, which is logged already. */
static void note_loss(struct redis_link *link, enum redis_trouble trouble, const char *why)
{
    uint64_t now_ms = uv_now(link->loop);
    uint64_t good_ms = link->answered_ms ? now_ms - link->answered_ms : 0;
    redis_pause_note_loss(&link->pause, now_ms, good_ms,
                          timeout_ms(link) / link->options.pause_part);
    link->context = NULL;
    link->is_ready = false;
    link->answered_ms = 0;
    redis_target_renew(&link->target, link->loop);
    if (why) {
        log_loss(link, trouble, why);
    }
    link->end = trouble;
    tell_change(link);
}

static void note_answer(struct redis_link *link)
{
    if (!link->answered_ms) {
        link->answered_ms = uv_now(link->loop);
    }
    if (link->state != LINK_UP && link->options.what) {
        log_info("redis connected", LOG_TEXT("node", link->name));
    }
    link->state = LINK_UP;
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

static void end_call(struct redis_call *call, enum redis_trouble trouble)
{
    if (!call) {
        return;
    }
    struct redis_wait *wait = call->wait;
    call->trouble = trouble;
    wait->unanswered--;
    if (wait->unanswered > 0) {
        return;
    }
    if (wait->fiber) {
        fiber_wake(wait->fiber);
    } else {
        wait->done(wait);
    }
}

static enum redis_trouble silence_of(const redisAsyncContext *context)
{
    return context->c.flags & REDIS_CONNECTED ? TROUBLE_SLOW : TROUBLE_UNREACHABLE;
}

/* When something is due: a fiber's deadline, or the connection's. Fibers need not be in the order
 * of their deadlines. */
static uint64_t next_due_ms(const struct redis_link *link)
{
    uint64_t due_ms = link->head->lost_ms;
    for (const struct command *command = link->head; command; command = command->next) {
        uint64_t deadline_ms = command->call ? command->call->wait->deadline_ms : command->lost_ms;
        due_ms = deadline_ms < due_ms ? deadline_ms : due_ms;
    }
    return due_ms;
}

/* Whose fibers have waited long enough: the replies, should they come, are nobody's. */
static void abandon_late(struct redis_link *link, uint64_t now_ms)
{
    for (struct command *command = link->head; command; command = command->next) {
        struct redis_call *call = command->call;
        if (call && call->wait->deadline_ms <= now_ms) {
            command->call = NULL;
            end_call(call, silence_of(link->context));
        }
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
    uint64_t due_ms = command->lost_ms;
    if (command->call && command->call->wait->deadline_ms < due_ms) {
        due_ms = command->call->wait->deadline_ms;
    }
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

/* A node of a Cluster sends commands elsewhere as a matter of course, and one that lacks a slot
 * serves the others. */
static bool is_cluster_matter(const struct redis_link *link, enum redis_trouble trouble)
{
    return link->options.owner.redirected && link->options.settings->redis.kind == REDIS_CLUSTER &&
           (trouble == TROUBLE_MOVED || trouble == TROUBLE_ASK || trouble == TROUBLE_TRYAGAIN ||
            trouble == TROUBLE_CLUSTERDOWN);
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
    if (is_cluster_matter(link, trouble)) {
        link->options.owner.redirected(link->options.owner.self, command->call,
                                       link->target.place.host, error);
        return trouble;
    }
    bool is_quiet = command->call && command->call->wait->is_quiet;
    if (!is_quiet && trouble != TROUBLE_NOSCRIPT) {
        redis_trouble_log(trouble, link->name, command->name, error);
    }
    if (command->purpose != FOR_CALL || redis_trouble_ends_connection(trouble)) {
        drop_context(link, trouble, NULL);
    }
    return trouble;
}

/* ROLE: "master", "slave" or "sentinel", and more. */
static void check_role(struct redis_link *link, const struct redis_value *role)
{
    if (role->type == REDIS_IS_ARRAY && role->item_count > 0 &&
        strcmp(buf_str(&role->items[0].text), "master") == 0) {
        link->is_ready = true;
        tell_change(link);
    } else {
        drop_context(link, TROUBLE_READONLY, "is no master");
    }
}

static enum redis_trouble take_reply(struct command *command, const redisReply *reply)
{
    struct redis_value own = {0};
    struct redis_value *out = command->call ? command->call->out : NULL;
    if (!redis_reply_copy(reply, out ? out : &own)) {
        return judge(command, reply);
    }
    if (command->purpose == FOR_ROLE) {
        check_role(command->link, &own);
    }
    redis_value_clear(&own);
    if (command->link->context) {
        note_answer(command->link);
    }
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
    end_call(command->call, trouble);
    free(command);
    if (reply && !link->head && context->c.reader->pos < context->c.reader->len) {
        /* hiredis asserts that nobody answers unasked. */
        drop_context(link, TROUBLE_GARBLED, "more answers than commands");
    }
}

/* call NULL: nobody waits. */
static bool queue_command(struct redis_link *link, const struct redis_arg *args, size_t count,
                          struct redis_call *call, enum purpose purpose)
{
    const char *texts[REDIS_ARGS_MAX];
    size_t lens[REDIS_ARGS_MAX];
    assert(count > 0 && count <= REDIS_ARGS_MAX);
    for (size_t i = 0; i < count; i++) {
        texts[i] = args[i].bytes;
        lens[i] = args[i].len;
    }
    struct command *command = xcalloc(1, sizeof(*command));
    bool is_check = link->options.is_checked && purpose != FOR_CALL;
    command->link = link;
    command->call = call;
    command->purpose = purpose;
    command->lost_ms =
        uv_now(link->loop) + (is_check ? timeout_ms(link) / GREETING_PART : timeout_ms(link));
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

static void say_who(struct redis_link *link, const struct redis_url *url)
{
    if (url->password && !link->options.is_anonymous) {
        struct redis_arg auth[3] = {REDIS_TEXT("AUTH")};
        size_t count = 1;
        if (url->user) {
            auth[count++] = REDIS_TEXT(url->user);
        }
        auth[count++] = REDIS_TEXT(url->password);
        queue_command(link, auth, count, NULL, FOR_GREETING);
    }
    if (url->database && !link->options.is_bare) {
        struct buf number = {0};
        buf_addf(&number, "%d", url->database);
        struct redis_arg select[] = {REDIS_TEXT("SELECT"), REDIS_BUF(&number)};
        queue_command(link, select, 2, NULL, FOR_GREETING);
        buf_clear(&number);
    }
}

/* First on a new connection, ahead of the command that made it. */
static void greet(struct redis_link *link)
{
    say_who(link, &link->options.settings->redis);
    if (link->options.is_checked) {
        const struct redis_arg role[] = {REDIS_TEXT("ROLE")};
        queue_command(link, role, 1, NULL, FOR_ROLE);
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

bool redis_link_is_looked_up(const struct redis_link *link)
{
    return !redis_target_is_known(&link->target) && redis_target_is_looked_up(&link->target);
}

uint64_t redis_link_begin(struct redis_link *link)
{
    uint64_t now_ms = uv_now(link->loop);
    if (link->context) {
        return 0;
    }
    if (now_ms < link->pause.until_ms) {
        return link->pause.until_ms;
    }
    if (redis_link_is_looked_up(link)) {
        return now_ms + LOOKUP_MS;
    }
    return begin_connection(link) ? 0 : link->pause.until_ms;
}

bool redis_link_is_ready(const struct redis_link *link)
{
    return link->is_ready;
}

bool redis_link_send(struct redis_link *link, struct redis_call *call)
{
    call->trouble = TROUBLE_NONE;
    if (redis_link_begin(link) != 0 ||
        !queue_command(link, call->args, call->count, call->wait ? call : NULL, FOR_CALL)) {
        call->trouble = link->end;
        return false;
    }
    if (call->wait) {
        call->wait->unanswered++;
    }
    return true;
}

void redis_link_close(struct redis_link *link)
{
    redisAsyncContext *context = link->context;
    link->context = NULL;
    link->is_ready = false;
    link->answered_ms = 0;
    if (context) {
        redisAsyncFree(context);
    }
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

struct redis_link *redis_link_new(uv_loop_t *loop, const struct redis_link_options *options)
{
    struct redis_link *link = xcalloc(1, sizeof(*link));
    struct buf name = {0};
    link->loop = loop;
    link->options = *options;
    link->options.place = NULL;
    link->tail = &link->head;
    link->end = TROUBLE_UNREACHABLE;
    redis_target_init(&link->target, &options->settings->redis, options->place, options->tls, loop);
    redis_target_name(&link->target, &name);
    link->name = buf_take(&name);
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
    redis_link_close(link);
    redis_target_clear(&link->target);
    free(link->name);
    uv_close((uv_handle_t *)&link->timer, on_timer_closed);
}
