/* A tiny HTTP/1.1 server on loopback whose every answer a test writes by hand: one thread accepts,
 * one serves each connection. It notes what it was asked. */
#ifndef UNIT_SCRIPTED_SERVER_H
#define UNIT_SCRIPTED_SERVER_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define SERVER_REQUEST_MAX 16384

struct scripted_server {
    /* Answer the request for path on socket; false closes the connection. */
    bool (*answer)(int socket, const char *path);
    int listener;
    int port;
    pthread_mutex_t lock; /* for what follows */
    int connections;
    int requests;
    char last_request[SERVER_REQUEST_MAX];
};

static struct scripted_server server;

static void server_send(int socket, const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t sent = send(socket, bytes, len, MSG_NOSIGNAL);
        if (sent <= 0)
            return;
        bytes += sent;
        len -= (size_t)sent;
    }
}

static void server_send_text(int socket, const char *text)
{
    server_send(socket, text, strlen(text));
}

/* A whole answer with that status line's end, extra header lines and body. */
static void server_send_answer(int socket, const char *status, const char *headers,
                               const char *body)
{
    char head[1024];
    snprintf(head, sizeof head, "HTTP/1.1 %s\r\n%sContent-Length: %zu\r\n\r\n", status, headers,
             strlen(body));
    server_send_text(socket, head);
    server_send_text(socket, body);
}

/* Read one request with its body; false when the client has gone. */
static bool server_read_request(int socket, char *request)
{
    size_t len = 0;
    for (;;) {
        const char *end;
        const char *length;
        ssize_t got = recv(socket, request + len, SERVER_REQUEST_MAX - 1 - len, 0);
        if (got <= 0)
            return false;
        len += (size_t)got;
        request[len] = '\0';
        end = strstr(request, "\r\n\r\n");
        length = strcasestr(request, "Content-Length:");
        if (end &&
            len >= (size_t)(end + 4 - request) + (length ? strtoul(length + 15, NULL, 10) : 0))
            return true;
    }
}

static void *server_serve(void *argument)
{
    int socket = (int)(intptr_t)argument;
    char request[SERVER_REQUEST_MAX];
    bool go_on = true;

    while (go_on && server_read_request(socket, request)) {
        char path[256] = "";
        pthread_mutex_lock(&server.lock);
        server.requests++;
        memcpy(server.last_request, request, sizeof request);
        pthread_mutex_unlock(&server.lock);
        sscanf(request, "%*s %255s", path);
        go_on = server.answer(socket, path);
    }
    close(socket);
    return NULL;
}

static void *server_accept(void *argument)
{
    (void)argument;
    for (;;) {
        pthread_t thread;
        int socket = accept(server.listener, NULL, NULL);
        if (socket < 0)
            return NULL;
        setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        pthread_mutex_lock(&server.lock);
        server.connections++;
        pthread_mutex_unlock(&server.lock);
        if (pthread_create(&thread, NULL, server_serve, (void *)(intptr_t)socket) == 0)
            pthread_detach(thread);
        else
            close(socket);
    }
}

/* Runs until the test program ends. */
static void server_start(bool (*answer)(int socket, const char *path))
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t address_len = sizeof address;
    pthread_t thread;

    pthread_mutex_init(&server.lock, NULL);
    server.answer = answer;
    server.listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(server.listener, (struct sockaddr *)&address, sizeof address) != 0 ||
        listen(server.listener, 512) != 0 ||
        getsockname(server.listener, (struct sockaddr *)&address, &address_len) != 0 ||
        pthread_create(&thread, NULL, server_accept, NULL) != 0) {
        perror("scripted server");
        abort();
    }
    pthread_detach(thread);
    server.port = ntohs(address.sin_port);
}

static void server_forget(void)
{
    pthread_mutex_lock(&server.lock);
    server.connections = 0;
    server.requests = 0;
    server.last_request[0] = '\0';
    pthread_mutex_unlock(&server.lock);
}

static int server_count_requests(void)
{
    int count;
    pthread_mutex_lock(&server.lock);
    count = server.requests;
    pthread_mutex_unlock(&server.lock);
    return count;
}

#endif
