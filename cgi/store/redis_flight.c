/* The commands in flight on one connection. They queue in hiredis, replies come back in their
 * order. There are two deadlines to watch: the fiber's, which counts from when it came and may have
 * waited for the connection or been elsewhere since, and the connection's, which counts from when
 * the command was sent. A command that passes the second takes the connection with it: nothing says
 * what the next bytes on it would answer. What replies hold is redis_reply.c's business, what
 * errors mean redis_trouble.c's. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "store/redis_link_impl.h"
#include "store/redis_loop.h"
#include "store/redis_reply.h"

/* A connection that says within this part of a command's time that it is a master's is waited for:
 * enough of that time must be left for another one. */
#define GREETING_PART 4
#define GREETING_MIN_MS 20

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
        redis_link_drop(link, silence_of(link->context), "no answer in time");
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

/* One command's refusal says nothing about those behind it: the server may have become one that
 * does them meanwhile. Who sends refused commands again has to hear of each by its own reply. */
static void leave(struct redis_link *link, enum redis_trouble trouble)
{
    if (link->is_ready && link->head) {
        link->leaving = trouble;
        link->is_ready = false;
    } else if (!link->leaving || !link->head) {
        redis_link_drop(link, trouble, NULL);
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
        leave(link, trouble);
    }
    return trouble;
}

/* ROLE: "master", "slave" or "sentinel", and more. */
static void check_role(struct redis_link *link, const struct redis_value *role)
{
    if (role->type == REDIS_IS_ARRAY && role->item_count > 0 &&
        strcmp(buf_str(&role->items[0].text), "master") == 0) {
        link->is_ready = true;
        redis_link_tell_change(link);
    } else {
        redis_link_drop(link, TROUBLE_READONLY, "is no master");
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
        redis_link_note_answer(command->link);
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
        trouble = link->context == context ? redis_link_end_of(context) : link->end;
    }
    end_call(command->call, trouble);
    free(command);
    if (reply && !link->head && context->c.reader->pos < context->c.reader->len) {
        /* hiredis asserts that nobody answers unasked. */
        redis_link_drop(link, TROUBLE_GARBLED, "more answers than commands");
    } else if (reply && !link->head && link->leaving) {
        redis_link_drop(link, link->leaving, NULL);
    }
}

/* How long the connection may owe an answer. */
static uint64_t patience_ms(const struct redis_link *link, enum purpose purpose)
{
    uint64_t timeout_ms = redis_link_timeout_ms(link);
    uint64_t part_ms = timeout_ms / GREETING_PART;
    if (purpose == FOR_CALL || !link->options.is_checked) {
        return timeout_ms;
    }
    return part_ms > GREETING_MIN_MS ? part_ms : GREETING_MIN_MS;
}

bool redis_flight_add(struct redis_link *link, const struct redis_arg *args, size_t count,
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
    command->link = link;
    command->call = call;
    command->purpose = purpose;
    command->lost_ms = uv_now(link->loop) + patience_ms(link, purpose);
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
