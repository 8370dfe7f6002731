/* The events of one hiredis connection. A command only marks that there is something to write: the
 * write happens in the loop's next prepare phase, once for all commands of the round. The socket is
 * polled for writable only while it connects, and while it does not take all there is. What the
 * replies mean is redis_link.c's business. */
#include "store/redis_loop.h"

#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/buf.h"
#include "store/redis_tls.h"

struct link {
    redisAsyncContext *context; /* NULL once hiredis has let go of it */
    void (*gone)(redisAsyncContext *context);
    uv_poll_t poll;
    uv_prepare_t prepare; /* active while a write is marked */
    int events;           /* what poll listens to */
    bool is_writing;      /* inside redisAsyncHandleWrite */
    int open_handles;
};

static void on_poll(uv_poll_t *poll, int status, int events);

static void listen_to(struct link *link, int events)
{
    if (events == link->events) {
        return;
    }
    link->events = events;
    if (events) {
        uv_poll_start(&link->poll, events, on_poll);
    } else {
        uv_poll_stop(&link->poll);
    }
}

static void write_out(struct link *link)
{
    link->is_writing = true;
    redis_tls_forget_errors();
    redisAsyncHandleWrite(link->context);
    link->is_writing = false;
}

static void on_prepare(uv_prepare_t *prepare)
{
    struct link *link = prepare->data;
    uv_prepare_stop(prepare);
    if (link->context) {
        write_out(link);
    }
}

void redis_loop_read(redisAsyncContext *context)
{
    redis_tls_forget_errors();
    redisAsyncHandleRead(context);
}

/* The loop has stopped polling and says only that something is wrong. hiredis finds out what when
 * it uses the socket; if it does not, the connection is of no use all the same. */
static void find_error(struct link *link)
{
    link->events = 0;
    if (link->context->c.flags & REDIS_CONNECTED) {
        redis_loop_read(link->context);
    } else {
        write_out(link);
    }
    if (link->context) {
        redisAsyncFree(link->context);
    }
}

/* hiredis asserts that nobody answers unasked; of what does, nothing can be expected. */
static bool is_unasked(const redisAsyncContext *context)
{
    char byte;
    if (!(context->c.flags & REDIS_CONNECTED) || context->replies.head) {
        return false;
    }
    return redis_tls_is_on(context) ? redis_tls_has_answer(context)
                                    : recv(context->c.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct link *link = poll->data;
    if (link->context && status < 0) {
        find_error(link);
        return;
    }
    if (link->context && (events & UV_READABLE)) {
        if (is_unasked(link->context)) {
            redisAsyncFree(link->context);
        } else {
            redis_loop_read(link->context);
        }
    }
    if (link->context && (events & UV_WRITABLE)) {
        write_out(link);
    }
}

static void add_read(void *data)
{
    struct link *link = data;
    listen_to(link, link->events | UV_READABLE);
}

static void delete_read(void *data)
{
    struct link *link = data;
    listen_to(link, link->events & ~UV_READABLE);
}

static void add_write(void *data)
{
    struct link *link = data;
    bool is_connected = link->context->c.flags & REDIS_CONNECTED;
    if (link->events & UV_WRITABLE) {
        return;
    }
    if (!is_connected || link->is_writing) {
        listen_to(link, link->events | UV_WRITABLE);
    } else {
        uv_prepare_start(&link->prepare, on_prepare);
    }
}

static void delete_write(void *data)
{
    struct link *link = data;
    listen_to(link, link->events & ~UV_WRITABLE);
}

static void on_close(uv_handle_t *handle)
{
    struct link *link = handle->data;
    link->open_handles--;
    if (link->open_handles == 0) {
        free(link);
    }
}

static void let_go(void *data)
{
    struct link *link = data;
    redisAsyncContext *context = link->context;
    link->context = NULL;
    uv_close((uv_handle_t *)&link->poll, on_close);
    uv_close((uv_handle_t *)&link->prepare, on_close);
    link->gone(context);
}

int redis_loop_attach(uv_loop_t *loop, redisAsyncContext *context,
                      void (*gone)(redisAsyncContext *context))
{
    struct link *link = xcalloc(1, sizeof(*link));
    int error = uv_poll_init(loop, &link->poll, context->c.fd);
    if (error) {
        free(link);
        return error;
    }
    uv_prepare_init(loop, &link->prepare);
    uv_unref((uv_handle_t *)&link->poll);
    uv_unref((uv_handle_t *)&link->prepare);
    link->poll.data = link;
    link->prepare.data = link;
    link->open_handles = 2;
    link->context = context;
    link->gone = gone;

    context->ev.data = link;
    context->ev.addRead = add_read;
    context->ev.delRead = delete_read;
    context->ev.addWrite = add_write;
    context->ev.delWrite = delete_write;
    context->ev.cleanup = let_go;
    return 0;
}
