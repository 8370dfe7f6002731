/* Nodes and Sentinels whose every answer a test writes by hand, on loopback ports of their own. All
 * are served by one fiber, beside the fiber of the test. */
#ifndef TESTS_FAKE_REDIS_H
#define TESTS_FAKE_REDIS_H

#include "fiber_body.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/buf.h"
#include "store/redis.h"

#define FAKES_MAX 4
#define FAKE_CONNECTIONS_MAX 32
#define FAKE_ARGS_MAX 16

struct fake_connection {
    int fd; /* -1: free */
    char bytes[8192];
    size_t len;
};

struct fake {
    /* The reply to a command, as it goes over the wire, NULL for none; "" closes the connection. */
    const char *(*answer)(struct fake *fake, size_t count, char **args);
    int fd; /* -1: nobody listens */
    int port;
    bool is_deaf; /* takes connections and reads nothing */
    struct fake_connection connections[FAKE_CONNECTIONS_MAX];
    struct buf seen; /* "NAME first-argument;" each */
};

static struct fake fakes[FAKES_MAX];
static bool fakes_end;

/* A reply that is put together by printf, good until the fourth one after it. */
static const char *fake_text(const char *format, ...) __attribute__((format(printf, 1, 2)));
static const char *fake_text(const char *format, ...)
{
    static char texts[4][1024];
    static int next;
    char *text = texts[next++ % 4];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof(texts[0]), format, list);
    va_end(list);
    return text;
}

static void fake_listen(struct fake *fake)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                  .sin_port = htons((uint16_t)fake->port)};
    socklen_t len = sizeof(address);
    fake->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    setsockopt(fake->fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    CHECK(bind(fake->fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    CHECK(getsockname(fake->fd, (struct sockaddr *)&address, &len) == 0);
    CHECK(listen(fake->fd, 64) == 0);
    fake->port = ntohs(address.sin_port);
}

static void fake_hang_up(struct fake *fake)
{
    for (size_t i = 0; i < FAKE_CONNECTIONS_MAX; i++) {
        if (fake->connections[i].fd >= 0) {
            close(fake->connections[i].fd);
            fake->connections[i].fd = -1;
        }
    }
}

/* As if its process had ended: further attempts to connect are refused. */
static void fake_kill(struct fake *fake)
{
    fake_hang_up(fake);
    if (fake->fd >= 0) {
        close(fake->fd);
        fake->fd = -1;
    }
}

/* How often text is in what it was asked. */
static int fake_count(const struct fake *fake, const char *text)
{
    int count = 0;
    for (const char *at = buf_str(&fake->seen); (at = strstr(at, text)); at++) {
        count++;
    }
    return count;
}

/* One whole command off the connection's bytes. Returns its length, 0 while it is not all there. */
static size_t fake_parse(struct fake_connection *connection, size_t *count, char **args)
{
    char *at = connection->bytes;
    char *end = connection->bytes + connection->len;
    *end = '\0';
    if (connection->len < 4 || !strstr(at, "\r\n")) {
        return 0;
    }
    *count = strtoul(at + 1, NULL, 10);
    CHECK(*at == '*' && *count <= FAKE_ARGS_MAX);
    at = strstr(at, "\r\n") + 2;
    for (size_t i = 0; i < *count; i++) {
        size_t len = at < end ? strtoul(at + 1, NULL, 10) : 0;
        char *text = at < end ? strstr(at, "\r\n") : NULL;
        if (!text || text + 2 + len + 2 > end) {
            return 0;
        }
        args[i] = text + 2;
        at = args[i] + len + 2;
    }
    for (size_t i = 0; i < *count; i++) {
        *strstr(args[i], "\r\n") = '\0'; /* the tests' arguments have none inside */
    }
    return (size_t)(at - connection->bytes);
}

static void fake_answer(struct fake *fake, struct fake_connection *connection)
{
    char *args[FAKE_ARGS_MAX];
    size_t count, len;
    while (connection->fd >= 0 && (len = fake_parse(connection, &count, args)) > 0) {
        buf_addf(&fake->seen, "%s %s;", args[0], count > 1 ? args[1] : "");
        const char *reply = fake->answer(fake, count, args);
        memmove(connection->bytes, connection->bytes + len, connection->len - len);
        connection->len -= len;
        if (reply && reply[0]) {
            CHECK(send(connection->fd, reply, strlen(reply), MSG_NOSIGNAL) > 0);
        } else if (reply) {
            close(connection->fd);
            connection->fd = -1;
        }
    }
}

static void fake_read(struct fake *fake, struct fake_connection *connection)
{
    ssize_t got = recv(connection->fd, connection->bytes + connection->len,
                       sizeof(connection->bytes) - 1 - connection->len, MSG_DONTWAIT);
    if (got == 0) {
        close(connection->fd);
        connection->fd = -1;
    } else if (got > 0) {
        connection->len += (size_t)got;
        fake_answer(fake, connection);
    }
}

static void fake_accept(struct fake *fake)
{
    for (size_t i = 0; i < FAKE_CONNECTIONS_MAX; i++) {
        if (fake->connections[i].fd < 0 && fake->fd >= 0) {
            fake->connections[i].fd = accept(fake->fd, NULL, NULL);
            fake->connections[i].len = 0;
        }
    }
}

static void fakes_serve(void *argument)
{
    (void)argument;
    while (!fakes_end) {
        for (struct fake *fake = fakes; fake < fakes + FAKES_MAX; fake++) {
            fake_accept(fake);
            for (size_t i = 0; i < FAKE_CONNECTIONS_MAX && !fake->is_deaf; i++) {
                if (fake->connections[i].fd >= 0) {
                    fake_read(fake, &fake->connections[i]);
                }
            }
        }
        fiber_sleep(1);
    }
    for (struct fake *fake = fakes; fake < fakes + FAKES_MAX; fake++) {
        fake_kill(fake);
        buf_clear(&fake->seen);
    }
}

/* All answer with answer at first. */
static void fakes_start(const char *(*answer)(struct fake *fake, size_t count, char **args))
{
    fakes_end = false;
    for (struct fake *fake = fakes; fake < fakes + FAKES_MAX; fake++) {
        *fake = (struct fake){.answer = answer};
        for (size_t i = 0; i < FAKE_CONNECTIONS_MAX; i++) {
            fake->connections[i].fd = -1;
        }
        fake_listen(fake);
    }
    fiber_spawn(fakes_serve, NULL);
}

/* Something that happens beside the test's fiber, which ends with over(). */
static void after(uv_timer_t *timer, uint64_t ms, uv_timer_cb then)
{
    uv_timer_init(uv_default_loop(), timer);
    uv_timer_start(timer, then, ms, 0);
}

static void over(uv_timer_t *timer)
{
    uv_close((uv_handle_t *)timer, NULL);
    fiber_sleep(1);
}

#endif
