/* What the tests against a Redis share: a Redis of their own on a unix socket in a directory of
 * its own, and a way to run a test's body in a fiber. cmocka's assertions jump off the stack, which
 * a fiber must not, so a body uses CHECK, and run_body asserts on the main stack. */
#ifndef TESTS_REDIS_SERVER_H
#define TESTS_REDIS_SERVER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
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
#include <uv.h>

#include "base/clock.h"
#include "base/fiber.h"

static char server_dir[64];
static char server_socket[96];
static pid_t server_pid;
static int failed_checks;

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            print_error("%s:%d: %s\n", __FILE__, __LINE__, #condition);                            \
            failed_checks++;                                                                       \
        }                                                                                          \
    } while (0)

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

static void server_remove_dir(void)
{
    unlink(server_socket);
    rmdir(server_dir);
}

/* Run body in a fiber until nothing is under way any more. */
static void run_body(void (*body)(void *argument), void *argument)
{
    alarm(60);
    failed_checks = 0;
    fiber_spawn(body, argument);
    uv_run(uv_default_loop(), UV_RUN_DEFAULT);
    alarm(0);
    assert_int_equal(failed_checks, 0);
    assert_int_equal(fiber_count(), 0);
}

#endif
