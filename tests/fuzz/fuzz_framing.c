/* framing_scan over any bytes. Of what it calls whole, a second and plainer reading must agree, and
 * the real libfcgi must read the same variables and body from a socket without ever waiting. */
#include <errno.h>
#include <fcgiapp.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "front/framing.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int truth)
{
    if (!truth) {
        abort();
    }
}

/* The content of all records of one type, one after another. */
static void join(const uint8_t *data, size_t size, int type, struct buf *out)
{
    for (size_t at = 0; at < size;) {
        size_t len = (size_t)data[at + 4] * 256 + data[at + 5];
        if (data[at + 1] == type) {
            buf_add(out, data + at + 8, len);
        }
        at += 8 + len + data[at + 6];
    }
}

static size_t take_length(const struct buf *params, size_t *at)
{
    const uint8_t *bytes = (const uint8_t *)params->data + *at;
    check(*at < params->len);
    if (bytes[0] < 128) {
        *at += 1;
        return bytes[0];
    }
    *at += 4;
    check(*at <= params->len);
    return (bytes[0] - 128u) * 16777216u + bytes[1] * 65536u + bytes[2] * 256u + bytes[3];
}

/* Every pair of the stream stands in envp as NAME=value, in its place. */
static void check_pairs(const struct buf *params, char **envp)
{
    size_t at = 0;
    while (at < params->len) {
        size_t name_len = take_length(params, &at);
        size_t value_len = take_length(params, &at);
        check(name_len + value_len <= params->len - at);
        const char *variable = *envp++;
        check(variable != NULL && strlen(variable) == name_len + 1 + value_len);
        check(strchr(variable, '=') == variable + name_len);
        check(memcmp(variable, params->data + at, name_len) == 0);
        check(memcmp(variable + name_len + 1, params->data + at + name_len, value_len) == 0);
        at += name_len + value_len;
    }
    check(*envp == NULL);
}

static void check_libfcgi(const uint8_t *data, size_t size)
{
    struct buf params = {0};
    struct buf body = {0};
    static char got[FRAMING_STDIN_MAX + 1];
    int pair[2];
    check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == 0);
    check(write(pair[0], data, size) == (ssize_t)size);
    FCGX_Request request;
    FCGX_InitRequest(&request, -1, 0);
    request.ipcFd = pair[1];
    request.keepConnection = 1;
    check(FCGX_Accept_r(&request) == 0);
    join(data, size, 4, &params);
    join(data, size, 5, &body);
    check_pairs(&params, request.envp + 1); /* the first is FCGI_ROLE */
    check((size_t)FCGX_GetStr(got, sizeof got, request.in) == body.len);
    check(body.len == 0 || memcmp(got, body.data, body.len) == 0);
    check(FCGX_GetError(request.in) == 0);
    /* Nothing is left that would be taken for the beginning of the next request. */
    check(recv(pair[1], got, 1, 0) == -1 && errno == EAGAIN);
    FCGX_Free(&request, 0);
    close(pair[0]);
    close(pair[1]);
    buf_clear(&params);
    buf_clear(&body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int begun;
    if (!begun) {
        check(FCGX_Init() == 0);
        begun = 1;
    }
    size_t needed = 0;
    enum framing whole = framing_scan(data, size, &needed);
    check(whole != FRAMING_PARTIAL || needed > size);
    /* What a beginning was taken for holds for all that follows: partial stays open to anything,
     * broken is for good, and looking before needed would have shown nothing. */
    for (size_t len = 0; len < size; len += 1 + size / 64) {
        size_t more = 0;
        enum framing part = framing_scan(data, len, &more);
        check(part != FRAMING_WHOLE || whole == FRAMING_BROKEN);
        check(part != FRAMING_BROKEN || whole == FRAMING_BROKEN);
        check(part != FRAMING_PARTIAL || whole != FRAMING_WHOLE || more <= size);
    }
    if (whole == FRAMING_WHOLE && size < 65536) {
        check_libfcgi(data, size);
    }
    return 0;
}
