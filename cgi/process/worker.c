/* One worker: the loop, the connection to Redis, the calls to Spotify and the front, made in this
 * order and freed in the reverse. SIGTERM drains: no new connections, requests in hand are
 * finished, tokens that Redis has not taken yet are offered to it until the deadline. */
#include "process/worker.h"

#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fiber.h"
#include "base/log.h"
#include "flows/app_token.h"
#include "flows/renewal.h"
#include "flows/service.h"
#include "front/cgi.h"
#include "front/front.h"

/* How often a draining worker looks whether it is done. */
#define DRAIN_POLL_MS 10
/* How long a web server has at most to close its TCP connections to a draining worker. */
#define HAND_BACK_MS ((uint64_t)10000)

struct worker {
    uv_loop_t loop;
    struct service service;
    struct front *front; /* NULL in CGI mode */
    int listen_fd;
    uv_signal_t terminated;
    uv_timer_t drain;
    uint64_t drain_deadline_ms;
    uint64_t hand_back_ms; /* from then on a draining worker closes connections by itself */
    int exit_code;
};

static void init_worker(struct worker *worker, const struct settings *settings)
{
    /* Every request allocates and frees the streams of libfcgi, which are large enough to make
     * glibc sweep its bins of small chunks each time: without those bins there is nothing to sweep.
     */
    mallopt(M_MXFAST, 0);
    log_set_level((enum log_level)settings->log_level);
    seal_init();
    uv_loop_init(&worker->loop);
    fiber_init(&worker->loop);
    worker->service.settings = settings;
    worker->service.store = store_new(&worker->loop, settings);
    accounts_init(&worker->service.accounts, upstream_new(&worker->loop, settings), settings);
    worker->service.renewals = renewals_new(&worker->service);
    worker->service.app_tokens = app_tokens_new(&worker->service);
}

static void close_handle(uv_handle_t *handle, void *argument)
{
    (void)argument;
    if (!uv_is_closing(handle)) {
        uv_close(handle, NULL);
    }
}

static void clear_worker(struct worker *worker)
{
    if (worker->front) {
        front_free(worker->front);
    }
    app_tokens_free(worker->service.app_tokens);
    renewals_free(worker->service.renewals);
    upstream_free(worker->service.accounts.upstream);
    store_free(worker->service.store);
    uv_walk(&worker->loop, close_handle, NULL);
    uv_run(&worker->loop, UV_RUN_NOWAIT);
    uv_loop_close(&worker->loop);
}

/* Who closes a TCP connection while the other side sends on it makes that request fail, and a POST
 * is not sent again. So it is the web server that closes, which it does when its keepalive_time or
 * keepalive_timeout is over, and the worker only after a while. A unix socket can be closed without
 * that risk (conn_close_idle in front.c). */
static uint64_t patience_ms(int listen_fd, uint64_t drain_timeout_ms)
{
    struct sockaddr_storage name = {0};
    socklen_t len = sizeof(name);

    if (getsockname(listen_fd, (struct sockaddr *)&name, &len) == 0 && name.ss_family == AF_UNIX) {
        return 0;
    }
    return drain_timeout_ms / 2 < HAND_BACK_MS ? drain_timeout_ms / 2 : HAND_BACK_MS;
}

static void end_when_drained(uv_timer_t *timer)
{
    struct worker *worker = timer->data;
    if (clock_mono_ms() < worker->hand_back_ms && front_has_connections(worker->front)) {
        return;
    }
    front_hand_back(worker->front);
    const struct renewals *renewals = worker->service.renewals;
    size_t unsaved = renewals_unsaved(renewals);
    size_t waited_for = unsaved + renewals_probes(renewals);
    bool is_busy = app_tokens_busy(worker->service.app_tokens);
    bool is_late = clock_mono_ms() >= worker->drain_deadline_ms;
    if (front_in_hand(worker->front) + waited_for == 0) {
        front_close_idle(worker->front);
    }
    size_t in_hand = front_in_hand(worker->front);
    if ((in_hand + waited_for > 0 || is_busy) && !is_late) {
        return;
    }
    if (is_late) {
        log_warn("drain timeout", LOG_NUMBER("requests", in_hand), LOG_NUMBER("unsaved", unsaved));
    }
    uv_stop(&worker->loop);
}

static void begin_drain(uv_signal_t *handle, int number)
{
    struct worker *worker = handle->data;
    (void)number;
    if (worker->service.draining) {
        return;
    }
    worker->service.draining = true;
    uint64_t timeout_ms = (uint64_t)worker->service.settings->drain_timeout_s * 1000;
    uint64_t now = clock_mono_ms();
    worker->drain_deadline_ms = now + timeout_ms;
    worker->hand_back_ms = now + patience_ms(worker->listen_fd, timeout_ms);
    front_stop_accepting(worker->front);
    /* Once nobody holds it open any more, the web server is refused and asks another service. */
    close(worker->listen_fd);
    uv_timer_start(&worker->drain, end_when_drained, 0, DRAIN_POLL_MS);
}

/* At the start, so that it is in the log of a service whose /readyz nobody asks. */
static void look_at_redis(void *store)
{
    (void)store_get_risks(store);
}

int worker_run(const struct settings *settings, int listen_fd)
{
    struct worker worker = {0};
    sigset_t terminate;
    /* Until the loop takes it: libfcgi installs a handler of its own, which would swallow it. */
    sigemptyset(&terminate);
    sigaddset(&terminate, SIGTERM);
    sigprocmask(SIG_BLOCK, &terminate, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, SIG_IGN); /* Ctrl-C reaches the whole group; the supervisor says when to end */
    signal(SIGHUP, SIG_IGN);
    front_init_library();
    init_worker(&worker, settings);
    uv_signal_init(&worker.loop, &worker.terminated);
    worker.terminated.data = &worker;
    uv_signal_start(&worker.terminated, begin_drain, SIGTERM);
    uv_timer_init(&worker.loop, &worker.drain);
    worker.drain.data = &worker;
    worker.listen_fd = listen_fd;
    worker.front = front_new(&worker.loop, listen_fd, &worker.service);
    fiber_spawn(look_at_redis, worker.service.store);
    sigprocmask(SIG_UNBLOCK, &terminate, NULL);
    uv_run(&worker.loop, UV_RUN_DEFAULT);
    clear_worker(&worker);
    return 0;
}

/* The web server takes the end of our output for the end of the answer, and must not wait for it as
 * long as this process lives. */
static void end_output(void)
{
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    fflush(stdout);
    if (null >= 0) {
        dup2(null, STDOUT_FILENO);
        close(null);
    }
}

static void serve_cgi(void *argument)
{
    struct worker *worker = argument;
    worker->exit_code = cgi_serve(&worker->service);
    end_output();
    /* A renewed token that Redis does not have exists nowhere else, and a lease of a process that
     * has ended would hold up the others. */
    while (renewals_unsaved(worker->service.renewals) > 0 ||
           app_tokens_busy(worker->service.app_tokens)) {
        fiber_sleep(DRAIN_POLL_MS);
    }
    uv_stop(&worker->loop);
}

int worker_run_cgi(const struct settings *settings)
{
    struct worker worker = {0};
    signal(SIGPIPE, SIG_IGN);
    init_worker(&worker, settings);
    fiber_spawn(serve_cgi, &worker);
    uv_run(&worker.loop, UV_RUN_DEFAULT);
    clear_worker(&worker);
    return worker.exit_code;
}
