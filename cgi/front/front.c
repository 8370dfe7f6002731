/* Owns the connections: accepts them, waits until a whole request has arrived on one, and gives
 * that request a fiber. What happens to a request is exchange.c's; what a whole request is,
 * framing.c's.
 *
 * Everything waits in one epoll instance of the front's own, which the loop watches as one
 * descriptor. Connections are watched edge-triggered, and added once: a half-sent request, or input
 * while a request is in hand, then costs one look and no system call to stop and start watching.
 *
 * Mostly a request arrives in one piece. It is looked at (MSG_PEEK) and left in the socket for
 * libfcgi. Of a request in pieces each piece is taken out of the socket into conn.held, since a
 * socket that is not read soon takes no more: 300 single bytes fill a unix socket. */
#include "front/front.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fiber.h"
#include "base/log.h"
#include "front/exchange.h"
#include "front/framing.h"

enum {
    DEADLINE_MS = 10000, /* from a request's first byte to its last */
    PAUSE_MS = 100,      /* without accepting, when descriptors or memory have run out */
    LOG_EVERY_MS = 1000, /* about that */
    SEND_BUFFER = 256 * 1024,
    EVENTS_MAX = 64
};

enum conn_state {
    CONN_IDLE,    /* nothing has arrived: held is empty */
    CONN_HALF,    /* held and needed say how much has; deadline is set */
    CONN_IN_HAND, /* a fiber serves the request and owns fd; missed is set when input came */
    CONN_STATE__MAX
};

struct conn {
    struct front *front; /* borrowed; NULL: gone, the fiber clears up */
    int fd;
    enum conn_state state;
    struct buf held;
    size_t needed;        /* held is worth another look from this many bytes on */
    uint64_t deadline_ms; /* in the loop's time */
    bool missed;
    bool ended;             /* the peer sends no more; it may still be reading */
    TAILQ_ENTRY(conn) link; /* in front->conns[state] */
};

TAILQ_HEAD(conn_list, conn);

struct front {
    uv_loop_t *loop;
    struct service *service;
    int listen_fd; /* borrowed */
    int epoll_fd;
    uv_poll_t poll;
    uv_timer_t deadline; /* for the first of conns[CONN_HALF]; they stand in the order of time */
    uv_timer_t pause;
    int handles_open;
    bool stopped;      /* accepts no more */
    bool handing_back; /* closes each connection after its answer */
    uint64_t logged_ms;
    size_t in_hand;
    struct conn_list conns[CONN_STATE__MAX];
};

/* What has arrived, while it is looked at. One more than the longest request, to see it is longer.
 */
static unsigned char arrived[FRAMING_REQUEST_MAX + 1];

static void conn_serve(void *argument);

static void conn_move(struct conn *conn, enum conn_state state)
{
    struct front *front = conn->front;
    TAILQ_REMOVE(&front->conns[conn->state], conn, link);
    conn->state = state;
    TAILQ_INSERT_TAIL(&front->conns[state], conn, link);
}

/* Closing also takes the descriptor out of the epoll instance. */
static void conn_clear(struct conn *conn, const char *reason)
{
    if (conn->fd >= 0) {
        log_debug("connection closed", LOG_TEXT("reason", reason));
        close(conn->fd);
    }
    buf_clear(&conn->held);
    free(conn);
}

static void conn_free(struct conn *conn, const char *reason)
{
    TAILQ_REMOVE(&conn->front->conns[conn->state], conn, link);
    conn_clear(conn, reason);
}

static void deadline_passed(uv_timer_t *timer)
{
    struct front *front = timer->data;
    uint64_t now = uv_now(front->loop);
    struct conn *conn = TAILQ_FIRST(&front->conns[CONN_HALF]);
    while (conn != NULL && conn->deadline_ms <= now) {
        struct conn *next = TAILQ_NEXT(conn, link);
        conn_free(conn, "request not complete in time");
        conn = next;
    }
    if (conn != NULL) {
        uv_timer_start(timer, deadline_passed, conn->deadline_ms - now, 0);
    }
}

/* The first bytes of a request are here and the rest is not. */
static void conn_begin_half(struct conn *conn)
{
    struct front *front = conn->front;
    conn_move(conn, CONN_HALF);
    conn->deadline_ms = uv_now(front->loop) + DEADLINE_MS;
    if (!uv_is_active((uv_handle_t *)&front->deadline)) {
        uv_timer_start(&front->deadline, deadline_passed, DEADLINE_MS, 0);
    }
}

static void conn_begin_request(struct conn *conn)
{
    conn_move(conn, CONN_IN_HAND);
    conn->missed = false;
    conn->front->in_hand++;
    fiber_spawn(conn_serve, conn);
}

/* Receive into arrived. When nothing came, gone tells whether anything still may. */
static ssize_t conn_receive(struct conn *conn, int flags, bool *gone)
{
    ssize_t got = recv(conn->fd, arrived, sizeof arrived, flags);
    *gone = got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR);
    return got;
}

/* Take what has arrived to what is held, to the socket's end: only then will there be an edge for
 * what comes later. */
static void conn_look_again(struct conn *conn)
{
    bool gone = false;
    ssize_t got;
    while ((got = conn_receive(conn, 0, &gone)) > 0) {
        buf_add(&conn->held, arrived, (size_t)got);
        if (conn->held.len > FRAMING_REQUEST_MAX) {
            break;
        }
    }
    enum framing framing = FRAMING_PARTIAL;
    if (conn->held.len >= conn->needed) {
        framing = framing_scan((unsigned char *)conn->held.data, conn->held.len, &conn->needed);
    }
    conn->ended |= gone;
    if (framing == FRAMING_WHOLE) {
        conn_begin_request(conn);
    } else if (framing == FRAMING_BROKEN) {
        conn_free(conn, "not one well-formed request");
    } else if (gone) {
        conn_free(conn, "peer has gone within a request");
    }
}

static void conn_look(struct conn *conn)
{
    bool gone;
    ssize_t got = conn_receive(conn, MSG_PEEK, &gone);
    if (gone) {
        conn_free(conn, "peer has gone");
        return;
    }
    if (got < 0) {
        return;
    }
    switch (framing_scan(arrived, (size_t)got, &conn->needed)) {
    case FRAMING_WHOLE:
        conn_begin_request(conn);
        break;
    case FRAMING_PARTIAL:
        conn_begin_half(conn);
        conn_look_again(conn);
        break;
    default:
        conn_free(conn, "not one well-formed request");
    }
}

/* Close it, unless a request has come since the last look: the web server would not repeat a POST.
 * From before that look on, it cannot send one to a unix socket, and knows that it did not. */
static void conn_close_idle(struct conn *conn)
{
    bool gone;
    shutdown(conn->fd, SHUT_RD);
    if (conn_receive(conn, MSG_PEEK, &gone) > 0) {
        conn_look(conn);
    } else {
        conn_free(conn, "draining");
    }
}

/* The fiber of one request. */
static void conn_serve(void *argument)
{
    struct conn *conn = argument;
    bool open = true;
    if (conn->front != NULL) {
        open = exchange_serve(conn->front->service, conn->fd, &conn->held);
    }
    struct front *front = conn->front;
    if (!open) {
        conn->fd = -1;
    }
    if (front == NULL) {
        conn_clear(conn, "front has gone");
        return;
    }
    front->in_hand--;
    conn_move(conn, CONN_IDLE);
    if (!open) {
        conn_free(conn, "closed by the exchange");
        return;
    }
    if (front->handing_back) {
        /* A draining worker hands its connections back one by one, each after its answer: the best
         * time for the web server to notice. */
        conn_close_idle(conn);
        return;
    }
    if (conn->missed || conn->ended) {
        conn_look(conn);
    }
}

static void conn_event(struct conn *conn, uint32_t events)
{
    /* The end of input is told once, maybe together with the last request. */
    conn->ended |= (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    switch (conn->state) {
    case CONN_IDLE:
        conn_look(conn);
        break;
    case CONN_HALF:
        conn_look_again(conn);
        break;
    default:
        conn->missed = true;
    }
}

static bool watch(struct front *front, int fd, uint32_t events, void *whom)
{
    struct epoll_event event = {.events = events, .data.ptr = whom};
    return epoll_ctl(front->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

/* Replies must fit the socket's buffer, since nobody waits for room in it; and none must wait for
 * the acknowledgement of its own first part. A unix socket refuses the latter: it never waits. */
static void set_options(int fd)
{
    int size = SEND_BUFFER;
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static void conn_new(struct front *front, int fd)
{
    struct conn *conn = xcalloc(1, sizeof *conn);
    conn->front = front;
    conn->fd = fd;
    TAILQ_INSERT_TAIL(&front->conns[CONN_IDLE], conn, link);
    set_options(fd);
    if (!watch(front, fd, EPOLLIN | EPOLLRDHUP | EPOLLET, conn)) {
        conn_free(conn, "cannot be watched");
    }
}

static void listen_begin(struct front *front)
{
    if (!watch(front, front->listen_fd, EPOLLIN | EPOLLEXCLUSIVE, front)) {
        log_error("listening socket cannot be watched", LOG_NUMBER("errno", errno));
    }
}

static void listen_end(struct front *front)
{
    epoll_ctl(front->epoll_fd, EPOLL_CTL_DEL, front->listen_fd, NULL);
}

static void pause_passed(uv_timer_t *timer)
{
    listen_begin(timer->data);
}

/* Out of descriptors or memory: the connection stays in the queue, so that trying again at once
 * would only burn the processor. */
static void accept_failed(struct front *front, int error)
{
    uint64_t now = uv_now(front->loop);
    if (front->logged_ms == 0 || now - front->logged_ms >= LOG_EVERY_MS) {
        front->logged_ms = now;
        log_error("accept failed", LOG_NUMBER("errno", error));
    }
    listen_end(front);
    uv_timer_start(&front->pause, pause_passed, PAUSE_MS, 0);
}

/* One connection an event: workers that share the socket come to share the connections. */
static void listen_event(struct front *front)
{
    int fd = accept4(front->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        conn_new(front, fd);
    } else if (errno == EINVAL) { /* shut down: nobody comes any more */
        listen_end(front);
    } else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
        accept_failed(front, errno);
    }
}

/* Whoever has connected already would otherwise be cut off when the last worker closes the socket,
 * maybe with a request that is not sent twice. */
static void accept_rest(struct front *front)
{
    int fd;
    while ((fd = accept4(front->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        conn_new(front, fd);
    }
}

static void on_events(uv_poll_t *poll, int status, int events)
{
    struct front *front = poll->data;
    struct epoll_event ready[EVENTS_MAX];
    (void)status;
    (void)events;
    int count = epoll_wait(front->epoll_fd, ready, EVENTS_MAX, 0);
    for (int i = 0; i < count; i++) {
        if (ready[i].data.ptr == front) {
            listen_event(front);
        } else {
            /* Of each connection there is one event at most, and only its own frees it. */
            conn_event(ready[i].data.ptr, ready[i].events);
        }
    }
}

void front_init_library(void)
{
    exchange_init_library();
}

struct front *front_new(uv_loop_t *loop, int listen_fd, struct service *service)
{
    struct front *front = xcalloc(1, sizeof *front);
    front->loop = loop;
    front->service = service;
    front->listen_fd = listen_fd;
    for (int state = 0; state < CONN_STATE__MAX; state++) {
        TAILQ_INIT(&front->conns[state]);
    }
    front->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (front->epoll_fd < 0 || uv_poll_init(loop, &front->poll, front->epoll_fd) != 0) {
        abort();
    }
    uv_timer_init(loop, &front->deadline);
    uv_timer_init(loop, &front->pause);
    front->handles_open = 3;
    front->poll.data = front->deadline.data = front->pause.data = front;
    uv_poll_start(&front->poll, UV_READABLE, on_events);
    listen_begin(front);
    return front;
}

void front_stop_accepting(struct front *front)
{
    if (!front->stopped) {
        front->stopped = true;
        uv_timer_stop(&front->pause);
        listen_end(front);
        accept_rest(front);
    }
}

bool front_has_connections(const struct front *front)
{
    for (int state = 0; state < CONN_STATE__MAX; state++) {
        if (!TAILQ_EMPTY(&front->conns[state])) {
            return true;
        }
    }
    return false;
}

void front_hand_back(struct front *front)
{
    front->handing_back = true;
}

void front_close_idle(struct front *front)
{
    struct conn *conn = TAILQ_FIRST(&front->conns[CONN_IDLE]);
    while (conn != NULL) {
        struct conn *next = TAILQ_NEXT(conn, link);
        conn_close_idle(conn);
        conn = next;
    }
}

size_t front_in_hand(const struct front *front)
{
    return front->in_hand;
}

static void on_closed(uv_handle_t *handle)
{
    struct front *front = handle->data;
    if (--front->handles_open == 0) {
        close(front->epoll_fd);
        free(front);
    }
}

void front_free(struct front *front)
{
    front_stop_accepting(front);
    for (int state = 0; state < CONN_STATE__MAX; state++) {
        struct conn *conn = TAILQ_FIRST(&front->conns[state]);
        while (conn != NULL) {
            struct conn *next = TAILQ_NEXT(conn, link);
            if (state == CONN_IN_HAND) {
                conn->front = NULL;
            } else {
                conn_clear(conn, "front has gone");
            }
            conn = next;
        }
    }
    uv_close((uv_handle_t *)&front->poll, on_closed);
    uv_close((uv_handle_t *)&front->deadline, on_closed);
    uv_close((uv_handle_t *)&front->pause, on_closed);
}
