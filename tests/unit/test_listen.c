/* The listening socket: mode, stale and live predecessors, whose socket is removed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "process/listen.h"

static char directory[32];
static char path[64];
static struct listen_address address = {.socket_path = path};

static int set_up(void **state)
{
    (void)state;
    strcpy(directory, "/tmp/test_listen.XXXXXX");
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof(path), "%s/s", directory);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(directory);
}

static int connect_to_path(void)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    strcpy(name.sun_path, path);
    if (connect(fd, (struct sockaddr *)&name, sizeof(name)) == 0) {
        return fd;
    }
    close(fd);
    return -1;
}

static bool exists(void)
{
    struct stat status;

    return lstat(path, &status) == 0;
}

static void test_unix_socket(void **state)
{
    mode_t mask = umask(0);
    struct stat status;
    int fd = listen_open(&address);
    int client;

    (void)state;
    assert_int_equal(umask(mask), 0);
    assert_true(fd > 0);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0660);
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    client = connect_to_path();
    assert_true(client >= 0);
    close(client);
    close(fd);
    listen_remove(&address);
    assert_false(exists());
}

static void test_stale_socket_is_replaced(void **state)
{
    int fd = listen_open(&address);

    (void)state;
    close(fd);
    assert_true(exists());
    assert_int_equal(connect_to_path(), -1);
    fd = listen_open(&address);
    assert_true(fd > 0);
    close(connect_to_path());
    close(fd);
}

static void test_live_socket_stays(void **state)
{
    int fd = listen_open(&address);
    int client;

    (void)state;
    assert_int_equal(listen_open(&address), -1);
    client = connect_to_path();
    assert_true(client >= 0);
    close(client);
    close(fd);
}

static void test_what_is_no_socket_stays(void **state)
{
    int file = open(path, O_CREAT | O_WRONLY, 0600);

    (void)state;
    assert_true(file >= 0);
    close(file);
    assert_int_equal(listen_open(&address), -1);
    assert_true(exists());
}

static void test_socket_of_somebody_else_is_not_removed(void **state)
{
    char moved[80];
    int fd = listen_open(&address);
    int file;

    (void)state;
    snprintf(moved, sizeof(moved), "%s.moved", path);
    assert_int_equal(rename(path, moved), 0);
    file = open(path, O_CREAT | O_WRONLY, 0600);
    listen_remove(&address);
    assert_true(exists());
    close(file);
    close(fd);
    unlink(moved);
}

static void test_refusing_keeps_who_is_in_the_queue(void **state)
{
    int fd = listen_open(&address);
    int early = connect_to_path();
    int accepted;
    char byte = 0;

    (void)state;
    assert_true(early >= 0);
    assert_int_equal(send(early, "x", 1, 0), 1);
    listen_refuse(&address, fd);
    assert_int_equal(connect_to_path(), -1);
    accepted = accept(fd, NULL, NULL);
    assert_true(accepted >= 0);
    assert_int_equal(recv(accepted, &byte, 1, 0), 1);
    assert_int_equal(send(accepted, "y", 1, 0), 1);
    assert_int_equal(recv(early, &byte, 1, 0), 1);
    close(early);
    close(accepted);
    close(fd);
}

static void test_directory_that_is_not_there(void **state)
{
    char nowhere[] = "/nonexistent/s";
    struct listen_address bad = {.socket_path = nowhere};

    (void)state;
    assert_int_equal(listen_open(&bad), -1);
}

static void test_tcp(void **state)
{
    char host[] = "127.0.0.1", port[] = "0", taken[8];
    struct listen_address tcp = {.host = host, .port = port};
    struct sockaddr_in name;
    socklen_t len = sizeof(name);
    int size = 0, fd = listen_open(&tcp);

    (void)state;
    assert_true(fd > 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&name, &len), 0);
    len = sizeof(size);
    assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, &len), 0);
    assert_true(size >= 256 * 1024);
    snprintf(taken, sizeof(taken), "%u", ntohs(name.sin_port));
    tcp.port = taken;
    assert_int_equal(listen_open(&tcp), -1);
    listen_remove(&tcp);
    close(fd);
}

static void test_descriptor_0(void **state)
{
    int kept = dup(0), fd = listen_open(&address);

    (void)state;
    assert_true(fd > 0);
    assert_false(listen_inherited());
    dup2(fd, 0);
    close(fd);
    assert_true(listen_inherited());
    assert_int_equal(listen_open(&(struct listen_address){.socket_path = NULL}), 0);
    assert_true(fcntl(0, F_GETFD) & FD_CLOEXEC);
    dup2(kept, 0);
    close(kept);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_unix_socket, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_stale_socket_is_replaced, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_live_socket_stays, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_no_socket_stays, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_socket_of_somebody_else_is_not_removed, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_refusing_keeps_who_is_in_the_queue, set_up, tear_down),
        cmocka_unit_test(test_directory_that_is_not_there),
        cmocka_unit_test(test_tcp),
        cmocka_unit_test_setup_teardown(test_descriptor_0, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
