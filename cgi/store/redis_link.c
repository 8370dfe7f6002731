/* The life of one connection: made, greeted, found to be a master's, lost, made anew. The commands
 * on it are redis_flight.c's business, how a context is made redis_connect.c's, when events reach
 * its socket redis_loop.c's. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "store/redis_link_impl.h"
#include "store/redis_loop.h"
#include "store/redis_tls.h"

/* How often is looked whether a host name has an address by now. */
#define LOOKUP_MS 10

uint64_t redis_link_timeout_ms(const struct redis_link *link)
{
    return (uint64_t)link->options.settings->store_timeout_ms;
}

void redis_link_tell_change(struct redis_link *link)
{
    if (link->options.owner.changed) {
        link->options.owner.changed(link->options.owner.self);
    }
}

static void log_loss(struct redis_link *link, enum redis_trouble trouble, const char *why)
{
    /* Somebody has to mend a certificate, and learns why from this line alone. */
    bool is_news = link->state != LINK_DOWN || (trouble == TROUBLE_TLS && link->end != trouble);
    if (is_news) {
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
                          redis_link_timeout_ms(link) / link->options.pause_part);
    link->context = NULL;
    link->is_ready = false;
    link->leaving = TROUBLE_NONE;
    link->answered_ms = 0;
    redis_target_renew(&link->target, link->loop);
    if (why) {
        log_loss(link, trouble, why);
    }
    link->end = trouble;
    redis_link_tell_change(link);
}

void redis_link_note_answer(struct redis_link *link)
{
    if (!link->answered_ms) {
        link->answered_ms = uv_now(link->loop);
    }
    if (link->state != LINK_UP) {
        log_info("redis connected", LOG_TEXT("node", link->name));
    }
    link->state = LINK_UP;
}

/* Inside a callback hiredis frees the context after it, else at once; either way before a fiber
 * runs again. All commands in flight get their NULL reply then. */
void redis_link_drop(struct redis_link *link, enum redis_trouble trouble, const char *why)
{
    redisAsyncContext *context = link->context;
    if (context) {
        note_loss(link, trouble, why);
        redisAsyncFree(context);
    }
}

enum redis_trouble redis_link_end_of(const redisAsyncContext *context)
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
    note_loss(link, redis_link_end_of(context), why);
}

static void on_gone(redisAsyncContext *context)
{
    struct redis_link *link = context->data;
    if (link->context == context) {
        note_end(link, context);
    }
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
        redis_flight_add(link, auth, count, NULL, FOR_GREETING);
    }
    if (url->database && !link->options.is_bare) {
        struct buf number = {0};
        buf_addf(&number, "%d", url->database);
        struct redis_arg select[] = {REDIS_TEXT("SELECT"), REDIS_BUF(&number)};
        redis_flight_add(link, select, 2, NULL, FOR_GREETING);
        buf_clear(&number);
    }
}

/* First on a new connection, ahead of the command that made it. */
static void greet(struct redis_link *link)
{
    say_who(link, &link->options.settings->redis);
    if (link->options.is_checked) {
        const struct redis_arg role[] = {REDIS_TEXT("ROLE")};
        redis_flight_add(link, role, 1, NULL, FOR_ROLE);
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

bool redis_link_is_idle(const struct redis_link *link)
{
    return link->head == NULL;
}

bool redis_link_send(struct redis_link *link, struct redis_call *call)
{
    call->trouble = TROUBLE_NONE;
    if (redis_link_begin(link) != 0 ||
        !redis_flight_add(link, call->args, call->count, call->wait ? call : NULL, FOR_CALL)) {
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
    link->leaving = TROUBLE_NONE;
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
