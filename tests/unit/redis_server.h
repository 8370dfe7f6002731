/* What the tests against a Redis share: a Redis of their own on a unix socket in a directory of
 * its own. */
#ifndef TESTS_REDIS_SERVER_H
#define TESTS_REDIS_SERVER_H

#include "fiber_body.h"

#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static char server_dir[64];
static char server_socket[96];
static pid_t server_pid;

static bool server_answers(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, server_socket);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool connected = connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
    close(fd);
    return connected;
}

static void server_start(const char *password)
{
    unlink(server_socket);
    server_pid = fork();
    assert_true(server_pid >= 0);
    if (server_pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int null = open("/dev/null", O_RDWR);
        dup2(null, 1);
        dup2(null, 2);
        execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", server_socket,
               "--save", "", "--appendonly", "no", "--dir", server_dir, "--requirepass", password,
               (char *)NULL);
        _exit(127);
    }
    for (int i = 0; i < 500 && !server_answers(); i++) {
        usleep(10000);
    }
    assert_true(server_answers());
}

static void server_kill(void)
{
    kill(server_pid, SIGKILL);
    waitpid(server_pid, NULL, 0);
    server_pid = 0;
}

static void server_make_dir(void)
{
    strcpy(server_dir, "/tmp/test-redis-XXXXXX");
    assert_non_null(mkdtemp(server_dir));
    snprintf(server_socket, sizeof(server_socket), "%s/redis.sock", server_dir);
}

static int server_remove_entry(const char *path, const struct stat *status, int type,
                               struct FTW *where)
{
    (void)status;
    (void)type;
    (void)where;
    return remove(path);
}

/* With what a test has had Redis write there. */
static void server_remove_dir(void)
{
    nftw(server_dir, server_remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

#endif
