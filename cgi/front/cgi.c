/* Plain CGI: the environment and standard input are the request, standard output takes the reply.
 * It knows no more of HTTP than gateway.c, and serves through the same routes as FastCGI. */
#include "front/cgi.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "front/gateway.h"
#include "front/route.h"
#include "http/problem.h"

/* Read length bytes, and no more: RFC 3875 4.2 promises no end of file after them.
 * ERR_INVALID_REQUEST when there are fewer. */
static enum err read_body(size_t length, struct buf *out)
{
    static char chunk[4096];
    while (out->len < length) {
        size_t left = length - out->len;
        ssize_t got = read(STDIN_FILENO, chunk, left < sizeof chunk ? left : sizeof chunk);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return ERR_INVALID_REQUEST;
        }
        buf_add(out, chunk, (size_t)got);
    }
    explicit_bzero(chunk, sizeof chunk);
    return OK;
}

static enum err read_request(struct request *request, struct buf *body)
{
    size_t length;
    enum err err = gateway_read((const char *const *)environ, request);
    if (err == OK) {
        err = gateway_content_length(request, &length);
    }
    if (err == OK) {
        err = read_body(length, body);
    }
    if (err == OK) {
        request->body = buf_str(body);
        request->body_len = body->len;
    }
    return err;
}

static int write_reply(const struct reply *reply)
{
    char status[GATEWAY_STATUS_MAX];
    gateway_format_status(reply->status, status);
    fputs(status, stdout);
    fputs(buf_str(&reply->headers), stdout);
    fputs("\r\n", stdout);
    fwrite(buf_str(&reply->body), 1, reply->body.len, stdout);
    return fflush(stdout) == 0 && !ferror(stdout) ? 0 : 1;
}

int cgi_serve(struct service *service)
{
    struct request request;
    struct reply reply = {0};
    struct buf body = {0};
    enum err err = read_request(&request, &body);
    if (err == OK) {
        route_serve(service, &request, &reply);
    } else {
        problem_reply(&reply, service->settings, err, false);
        route_finish(service->settings, &request, &reply);
    }
    int code = write_reply(&reply);
    reply_clear(&reply);
    buf_clear(&body);
    return code;
}
