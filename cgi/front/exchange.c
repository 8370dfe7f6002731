/* Lets libfcgi read one request and write its reply, on a connection that front.c has accepted and
 * looked at. libfcgi (2.4.2 to 2.4.7) blocks where it reads, accepts and closes, so here
 *   - it is given the descriptor, and -1 as its listening socket: it never accepts;
 *   - it only gets whole requests: its reads find what they want;
 *   - the descriptor is non-blocking: a peer that does not read makes a write fail, and loses the
 *     connection;
 *   - it never closes: FCGX_Free without close, and FCGX_Detach, so that where it does close (a
 *     request it does not take) it does not first wait for the peer to do so.
 * Routes and replies are route.c's. */
#include "front/exchange.h"

#include <fcgiapp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "front/gateway.h"
#include "front/route.h"

void exchange_init_library(void)
{
    setenv("LIBFCGI_OS_CLOSE_POLL_TIMEOUT", "0", 1);
    if (FCGX_Init() != 0) {
        abort();
    }
    /* A peer that is gone is an error of its write, not a signal. */
    signal(SIGPIPE, SIG_IGN);
}

static void log_closed(const char *reason)
{
    log_debug("connection closed", LOG_TEXT("reason", reason));
}

/* A descriptor to read held from: what has been taken out of the socket cannot be put back, and
 * libfcgi reads only from descriptors. */
static int held_open(const struct buf *held)
{
    int fd = memfd_create("request", MFD_CLOEXEC);
    if (fd < 0) {
        log_error("memfd_create failed");
        return -1;
    }
    size_t done = 0;
    while (done < held->len) {
        ssize_t wrote = write(fd, held->data + done, held->len - done);
        if (wrote <= 0) {
            log_error("memfd write failed");
            close(fd);
            return -1;
        }
        done += (size_t)wrote;
    }
    lseek(fd, 0, SEEK_SET);
    return fd;
}

/* Read STDIN to its end, also where CONTENT_LENGTH promises less: a record left unread would be
 * taken for the beginning of the next request. */
static bool read_body(FCGX_Stream *in, struct buf *out)
{
    /* Not on the fiber's stack; nothing parks between its filling and its copy. */
    static char chunk[16384];
    int got;
    do {
        got = FCGX_GetStr(chunk, sizeof chunk, in);
        if (got > 0) {
            buf_add(out, chunk, (size_t)got);
        }
    } while (got == sizeof chunk);
    explicit_bzero(chunk, out->len < sizeof chunk ? out->len : sizeof chunk);
    return FCGX_GetError(in) == 0;
}

/* FastCGI 1.0 6.2: an application gives up when it got another number of bytes than CONTENT_LENGTH
 * says. The body of a request that was cut must not have any effect. */
static bool read_request(FCGX_Request *fcgi, struct request *request, struct buf *body)
{
    size_t length;
    if (!read_body(fcgi->in, body) ||
        gateway_read((const char *const *)fcgi->envp, request) != OK ||
        gateway_content_length(request, &length) != OK || length != body->len) {
        log_closed("request without a method, or cut");
        return false;
    }
    request->body = buf_str(body);
    request->body_len = body->len;
    return true;
}

static void put(FCGX_Stream *out, const char *bytes, size_t len)
{
    if (len > 0) {
        FCGX_PutStr(bytes, (int)len, out);
    }
}

/* False when the peer did not take all of it: the connection is of no more use then. */
static bool write_reply(FCGX_Request *fcgi, const struct reply *reply)
{
    char status[GATEWAY_STATUS_MAX];
    size_t len = gateway_format_status(reply->status, status);
    put(fcgi->out, status, len);
    put(fcgi->out, reply->headers.data, reply->headers.len);
    put(fcgi->out, "\r\n", 2);
    put(fcgi->out, reply->body.data, reply->body.len);
    if (FCGX_GetError(fcgi->out) != 0) {
        log_closed("peer does not read");
        return false;
    }
    /* The last stream to be closed carries END_REQUEST. */
    return FCGX_FClose(fcgi->err) == 0 && FCGX_FClose(fcgi->out) == 0;
}

/* From the request that libfcgi has begun to read, to its reply. */
static bool serve(struct service *service, FCGX_Request *fcgi, int fd, struct buf *held)
{
    char headers[1024];
    char text[1024];
    struct reply reply = {.headers = BUF_ROOM(headers), .body = BUF_ROOM(text)};
    struct request request;
    struct buf body = {0};
    bool good = read_request(fcgi, &request, &body);
    if (held->len > 0) {
        close(fcgi->ipcFd);
        fcgi->ipcFd = fd;
        buf_clear(held);
    }
    if (good) {
        route_serve(service, &request, &reply);
        good = write_reply(fcgi, &reply);
    }
    reply_clear(&reply);
    buf_clear(&body);
    return good;
}

bool exchange_serve(struct service *service, int fd, struct buf *held)
{
    FCGX_Request fcgi;
    FCGX_InitRequest(&fcgi, -1, 0);
    fcgi.ipcFd = held->len > 0 ? held_open(held) : fd;
    fcgi.keepConnection = 1;
    FCGX_Detach(&fcgi);
    if (fcgi.ipcFd < 0 || FCGX_Accept_r(&fcgi) != 0) {
        /* libfcgi has closed what it read from. */
        if (held->len > 0) {
            close(fd);
        }
        buf_clear(held);
        return false;
    }
    bool keep = serve(service, &fcgi, fd, held) && fcgi.keepConnection;
    FCGX_Free(&fcgi, 0);
    if (!keep) {
        close(fd);
    }
    return keep;
}
