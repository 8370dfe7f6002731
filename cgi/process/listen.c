/* The listening socket: the one that was handed over as descriptor 0, or a new one. Who accepts on
 * it is the front's business. */
#include "process/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"

#define BACKLOG 4096
/* The front looks at a request with MSG_PEEK until the whole of it is there, so the whole of it
 * must fit into the kernel's buffer. */
#define RECEIVE_BUFFER (256 * 1024)

/* The unix socket that listen_open made, so that nobody else's is removed. */
static struct stat made;

bool listen_inherited(void)
{
    int listening = 0;
    socklen_t len = sizeof(listening);

    return getsockopt(0, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) == 0 && listening != 0;
}

static int fail_because(const char *step, const char *reason)
{
    log_error("cannot listen", LOG_TEXT("step", step), LOG_TEXT("reason", reason));
    return -1;
}

static int fail(int fd, const char *step)
{
    fail_because(step, strerror(errno));
    if (fd >= 0) {
        close(fd);
    }
    return -1;
}

static int start(int fd)
{
    int size = RECEIVE_BUFFER;

    /* A smaller buffer only lowers the largest request that is served. */
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    if (listen(fd, BACKLOG) != 0) {
        return fail(fd, "listen");
    }
    return fd;
}

/* Make way for a new socket: 0 when nothing is left at path, -1 when something there is in use. */
static int remove_stale(const char *path, const struct sockaddr_un *name)
{
    struct stat status;
    int fd, answered;

    if (lstat(path, &status) != 0) {
        return errno == ENOENT ? 0 : fail(-1, "look at the socket's path");
    }
    if (!S_ISSOCK(status.st_mode)) {
        errno = ENOTSOCK;
        return fail(-1, "use what is at the socket's path");
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return fail(-1, "socket");
    }
    answered = connect(fd, (const struct sockaddr *)name, sizeof(*name));
    /* Only a refusal says that nobody listens; a full backlog, for one, says EAGAIN. */
    if (answered == 0 || errno != ECONNREFUSED) {
        if (answered == 0) {
            errno = EADDRINUSE;
        }
        return fail(fd, "replace the socket that is there");
    }
    close(fd);
    return unlink(path) == 0 || errno == ENOENT ? 0 : fail(-1, "remove a stale socket");
}

static int open_unix(const char *path)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    mode_t mask;
    int fd, bound;

    if (strlen(path) >= sizeof(name.sun_path)) {
        errno = ENAMETOOLONG;
        return fail(-1, "bind");
    }
    memcpy(name.sun_path, path, strlen(path));
    if (remove_stale(path, &name) != 0) {
        return -1;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return fail(-1, "socket");
    }
    /* The mode must be right from the first moment, so chmod afterwards would be too late. */
    mask = umask(0117);
    bound = bind(fd, (const struct sockaddr *)&name, sizeof(name));
    umask(mask);
    if (bound != 0 || lstat(path, &made) != 0) {
        return fail(fd, "bind");
    }
    return start(fd);
}

static int bind_tcp(const struct addrinfo *address)
{
    int on = 1;
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        return -1;
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, address->ai_addr, address->ai_addrlen) == 0) {
        return fd;
    }
    on = errno;
    close(fd);
    errno = on;
    return -1;
}

static int open_tcp(const char *host, const char *port)
{
    struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    int fd = -1, error = getaddrinfo(host, port, &hints, &found);

    if (error != 0) {
        return fail_because("find the host", gai_strerror(error));
    }
    for (struct addrinfo *at = found; at != NULL && fd < 0; at = at->ai_next) {
        fd = bind_tcp(at);
    }
    error = errno;
    freeaddrinfo(found);
    errno = error;
    return fd < 0 ? fail(-1, "bind") : start(fd);
}

static int open_inherited(void)
{
    int size = RECEIVE_BUFFER;

    setsockopt(0, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    if (fcntl(0, F_SETFL, fcntl(0, F_GETFL) | O_NONBLOCK) != 0 ||
        fcntl(0, F_SETFD, FD_CLOEXEC) != 0) {
        return fail(-1, "prepare descriptor 0");
    }
    return 0;
}

int listen_open(const struct listen_address *address)
{
    if (listen_inherited()) {
        return open_inherited();
    }
    if (address->socket_path != NULL) {
        return open_unix(address->socket_path);
    }
    return open_tcp(address->host, address->port);
}

void listen_refuse(const struct listen_address *address, int fd)
{
    if (address->socket_path != NULL && made.st_ino != 0) {
        shutdown(fd, SHUT_RD);
    }
}

void listen_remove(const struct listen_address *address)
{
    struct stat now;

    if (address->socket_path != NULL && made.st_ino != 0 &&
        lstat(address->socket_path, &now) == 0 && now.st_dev == made.st_dev &&
        now.st_ino == made.st_ino) {
        unlink(address->socket_path);
    }
}
