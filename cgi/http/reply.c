/* The reply as handlers build it: header lines and body in two buffers. Headers that every answer
 * has are the route layer's, the bytes on the wire the front's. */
#include "http/reply.h"

#include <string.h>

#include "base/log.h"

static bool has_control(const char *text)
{
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p < 0x20 || *p == 0x7f) {
            return true;
        }
    }
    return false;
}

void reply_add_header(struct reply *reply, const char *name, const char *value)
{
    if (has_control(value)) {
        log_error("header left out: control character in its value", LOG_TEXT("header", name));
        return;
    }
    buf_adds(&reply->headers, name);
    buf_add(&reply->headers, ": ", 2);
    buf_adds(&reply->headers, value);
    buf_add(&reply->headers, "\r\n", 2);
}

void reply_redirect(struct reply *reply, int status, const char *location)
{
    reply->status = status;
    reply_add_header(reply, "Location", location);
}

enum err reply_blame(struct reply *reply, const char *param, const char *fault)
{
    reply->param = param;
    reply->fault = fault;
    return ERR_INVALID_REQUEST;
}

struct json_writer reply_open_json(struct reply *reply, int status)
{
    reply->status = status;
    reply_add_header(reply, "Content-Type", "application/json");
    struct json_writer writer;
    json_open(&writer, &reply->body);
    return writer;
}

void reply_reset(struct reply *reply)
{
    reply->status = 0;
    reply->retry_after_s = 0;
    reply->param = NULL;
    reply->fault = NULL;
    buf_reset(&reply->headers);
    buf_reset(&reply->body);
    buf_reset(&reply->login_scope);
}

void reply_clear(struct reply *reply)
{
    reply->status = 0;
    reply->retry_after_s = 0;
    reply->param = NULL;
    reply->fault = NULL;
    buf_clear(&reply->headers);
    buf_clear(&reply->body);
    buf_clear(&reply->login_scope);
}
