/* The health check: one FastCGI request (FastCGI 1.0 section 3 to 6) over a socket of its own,
 * within a deadline. It says what /readyz says; what that means is status.c's business. */
#include "process/health.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"

#define DEADLINE_MS 3000
#define ANSWER_MAX ((size_t)262144)

enum { VERSION = 1, BEGIN_REQUEST = 1, END_REQUEST = 3, PARAMS = 4, STDIN = 5, STDOUT = 6 };
enum { HEADER_LEN = 8, RESPONDER = 1, REQUEST_ID = 1 };

static const char *const PARAMETERS[][2] = {
    {"REQUEST_METHOD", "GET"},  {"SCRIPT_NAME", "/auth"},        {"PATH_INFO", "/readyz"},
    {"QUERY_STRING", ""},       {"SERVER_PROTOCOL", "HTTP/1.1"}, {"GATEWAY_INTERFACE", "CGI/1.1"},
    {"REQUEST_URI", "/readyz"}, {"REMOTE_ADDR", "127.0.0.1"},    {"CONTENT_LENGTH", ""},
    {"REQUEST_ID", "health"},
};

/* Wait until fd is ready for events or the deadline has passed. */
static bool wait_for(int fd, short events, uint64_t deadline_ms)
{
    struct pollfd wanted = {.fd = fd, .events = events};
    uint64_t now = clock_mono_ms();

    if (now < deadline_ms && poll(&wanted, 1, (int)(deadline_ms - now)) > 0) {
        return true;
    }
    errno = ETIMEDOUT;
    return false;
}

/* Close fd. Returns -1, and errno is as it was. */
static int give_up(int fd)
{
    int error = errno;

    close(fd);
    errno = error;
    return -1;
}

/* Takes fd, which may be -1. */
static int connect_to(int fd, const struct sockaddr *name, socklen_t len, uint64_t deadline_ms)
{
    int error = 0;
    socklen_t error_len = sizeof(error);

    if (fd < 0 || connect(fd, name, len) == 0) {
        return fd;
    }
    if (errno == EINPROGRESS && wait_for(fd, POLLOUT, deadline_ms) &&
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &error_len) == 0) {
        if (error == 0) {
            return fd;
        }
        errno = error;
    }
    return give_up(fd);
}

static int open_socket(int family)
{
    return socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

static int connect_unix(const char *path, uint64_t deadline_ms)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof(name.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(name.sun_path, path, strlen(path));
    return connect_to(open_socket(AF_UNIX), (const struct sockaddr *)&name, sizeof(name),
                      deadline_ms);
}

/* A socket bound to the address, at any port; -1 when the address is not this machine's. */
static int open_at(const struct addrinfo *address)
{
    struct sockaddr_storage own = {0};
    int fd = open_socket(address->ai_family);

    memcpy(&own, address->ai_addr, address->ai_addrlen);
    if (address->ai_family == AF_INET6) {
        ((struct sockaddr_in6 *)&own)->sin6_port = 0;
    } else {
        ((struct sockaddr_in *)&own)->sin_port = 0;
    }
    if (fd < 0 || bind(fd, (const struct sockaddr *)&own, address->ai_addrlen) == 0) {
        return fd;
    }
    return give_up(fd);
}

/* The host may be a name that many machines listen at, each at its own address (compose.yaml):
 * what another one answers says nothing of this one. */
static int connect_tcp(const char *host, const char *port, uint64_t deadline_ms)
{
    struct addrinfo hints = {.ai_flags = AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    int fd = -1, error = 0;

    if (getaddrinfo(host, port, &hints, &found) != 0) {
        errno = EADDRNOTAVAIL;
        return -1;
    }
    for (struct addrinfo *at = found; at != NULL && fd < 0; at = at->ai_next) {
        int own = open_at(at);

        fd = connect_to(own, at->ai_addr, at->ai_addrlen, deadline_ms);
        /* What this machine's own address said tells more than that another one is not its own. */
        error = own >= 0 || error == 0 ? errno : error;
    }
    freeaddrinfo(found);
    errno = error;
    return fd;
}

static void add_record(struct buf *out, int type, const void *content, size_t len)
{
    const unsigned char header[HEADER_LEN] = {
        VERSION, (unsigned char)type, 0, REQUEST_ID, (unsigned char)(len >> 8), (unsigned char)len,
    };

    buf_add(out, header, sizeof(header));
    buf_add(out, content, len);
}

static void add_request(struct buf *out)
{
    const unsigned char begin[8] = {0, RESPONDER}; /* flags 0: the connection ends with it */
    struct buf parameters = {0};

    for (size_t i = 0; i < sizeof(PARAMETERS) / sizeof(PARAMETERS[0]); i++) {
        buf_addc(&parameters, (char)strlen(PARAMETERS[i][0]));
        buf_addc(&parameters, (char)strlen(PARAMETERS[i][1]));
        buf_adds(&parameters, PARAMETERS[i][0]);
        buf_adds(&parameters, PARAMETERS[i][1]);
    }
    add_record(out, BEGIN_REQUEST, begin, sizeof(begin));
    add_record(out, PARAMS, parameters.data, parameters.len);
    add_record(out, PARAMS, "", 0);
    add_record(out, STDIN, "", 0);
    buf_clear(&parameters);
}

static bool send_all(int fd, const struct buf *bytes, uint64_t deadline_ms)
{
    size_t sent = 0;

    while (sent < bytes->len) {
        ssize_t count = send(fd, bytes->data + sent, bytes->len - sent, MSG_NOSIGNAL);

        if (count > 0) {
            sent += (size_t)count;
        } else if (count == 0 || errno != EAGAIN || !wait_for(fd, POLLOUT, deadline_ms)) {
            return false;
        }
    }
    return true;
}

/* Read until the other side closes. */
static bool receive_all(int fd, struct buf *out, uint64_t deadline_ms)
{
    char part[4096];

    while (out->len <= ANSWER_MAX) {
        ssize_t count = recv(fd, part, sizeof(part), 0);

        if (count == 0) {
            return true;
        }
        if (count > 0) {
            buf_add(out, part, (size_t)count);
        } else if (errno != EAGAIN || !wait_for(fd, POLLIN, deadline_ms)) {
            return false;
        }
    }
    errno = EMSGSIZE;
    return false;
}

/* Join the STDOUT records of an answer. False when it has no end record, or is something else. */
static bool join_records(const struct buf *answer, struct buf *out)
{
    const unsigned char *bytes = (const unsigned char *)answer->data;
    size_t at = 0;

    while (answer->len - at >= HEADER_LEN) {
        const unsigned char *header = bytes + at;
        size_t len = (size_t)header[4] << 8 | header[5];
        size_t whole = HEADER_LEN + len + header[6];

        if (header[0] != VERSION || answer->len - at < whole) {
            return false;
        }
        if (header[1] == END_REQUEST) {
            return true;
        }
        if (header[1] == STDOUT) {
            buf_add(out, header + HEADER_LEN, len);
        }
        at += whole;
    }
    return false;
}

/* Print the body of a CGI answer (RFC 3875 6). Returns its status, 0 when it is none. */
static int print_answer(char *answer)
{
    char *end = strstr(answer, "\r\n\r\n"), *line;
    int status = 200; /* RFC 3875 6.3.3: when no Status is given */

    if (end == NULL) {
        return 0;
    }
    printf("%s\n", end + 4);
    *end = '\0';
    while ((line = strsep(&answer, "\n")) != NULL) {
        if (strncasecmp(line, "Status:", 7) == 0) {
            status = (int)strtol(line + 7, NULL, 10);
        }
    }
    return status;
}

/* Who looks after a container that is not healthy shall see which setting that goes back to. */
static void complain(const struct listen_address *address, const char *what, const char *cause)
{
    if (address->socket_path != NULL) {
        fprintf(stderr, "LISTEN: %s unix:%s", what, address->socket_path);
    } else {
        fprintf(stderr, "LISTEN: %s tcp:%s:%s", what, address->host, address->port);
    }
    fprintf(stderr, " (%s); write where the service listens\n", cause);
}

static bool ask(const struct listen_address *address, int fd, struct buf *out, uint64_t deadline_ms)
{
    struct buf request = {0}, answer = {0};
    bool done = false;

    add_request(&request);
    if (!send_all(fd, &request, deadline_ms) || !receive_all(fd, &answer, deadline_ms)) {
        complain(address, "no answer from", strerror(errno));
    } else if (!join_records(&answer, out) || out->len == 0) {
        complain(address, "no answer from", "it is none of FastCGI");
    } else {
        done = true;
    }
    buf_clear(&request);
    buf_clear(&answer);
    return done;
}

int health_check(const struct listen_address *address)
{
    uint64_t deadline_ms = clock_mono_ms() + DEADLINE_MS;
    struct buf answer = {0};
    int status = 0;
    int fd = address->socket_path != NULL ? connect_unix(address->socket_path, deadline_ms)
                                          : connect_tcp(address->host, address->port, deadline_ms);

    if (fd < 0) {
        complain(address, "cannot connect to", strerror(errno));
        return 1;
    }
    if (ask(address, fd, &answer, deadline_ms)) {
        status = print_answer(answer.data);
    }
    buf_clear(&answer);
    close(fd);
    return status == 200 ? 0 : 1;
}
