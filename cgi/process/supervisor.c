/* The parent of the workers. It serves nothing and holds no loop: it waits for signals, keeps as
 * many workers running as the settings ask for, and brings generations of them in and out. A
 * generation is the workers of one reading of the settings; a reload adds one, and only when all of
 * its workers are up are the older ones told to drain. What a worker does is worker.c's business.
 */
#include "process/supervisor.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/version.h"
#include "process/configure.h"
#include "process/generation.h"
#include "process/listen.h"

struct supervisor {
    struct generation *newest;     /* owned; NULL when all have ended */
    struct listen_address address; /* owned; of the start, whatever a reload says */
    int listen_fd;
    sigset_t signals; /* those that are waited for */
    bool ending;
};

static void raise_limits(void)
{
    struct rlimit files;

    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

static void log_reload_refused(const char *reason)
{
    log_error("reload refused", LOG_TEXT("reason", reason));
}

static bool has_older_active(const struct generation *generation)
{
    for (const struct generation *at = generation->older; at != NULL; at = at->older) {
        if (!at->retired) {
            return true;
        }
    }
    return false;
}

/* A worker that ends speaks against new settings as long as the old ones are still served. */
static void take_end(struct generation *generation, pid_t pid, int status)
{
    if (!generation_take_end(generation, pid, status)) {
        return;
    }
    if (!generation->ready && !generation->retired && has_older_active(generation)) {
        log_reload_refused("a worker with the new settings ended; the old ones go on");
        generation_retire(generation);
    }
}

static void reap(const struct supervisor *supervisor)
{
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        for (struct generation *at = supervisor->newest; at != NULL; at = at->older) {
            take_end(at, pid, status);
        }
    }
}

/* Take *settings over. */
static void add_generation(struct supervisor *supervisor, struct settings *settings)
{
    struct generation *generation = generation_new(settings);

    generation->older = supervisor->newest;
    supervisor->newest = generation;
}

static bool same_text(const char *a, const char *b)
{
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

static bool same_address(const struct listen_address *a, const struct listen_address *b)
{
    return same_text(a->socket_path, b->socket_path) && same_text(a->host, b->host) &&
           same_text(a->port, b->port);
}

static void reload(struct supervisor *supervisor)
{
    struct settings settings;

    if (supervisor->ending) {
        return;
    }
    if (configure_load_logged(&settings) > 0) {
        log_reload_refused("bad settings; the old ones go on");
        settings_clear(&settings);
        return;
    }
    if (!same_address(&settings.listen, &supervisor->address)) {
        log_warn("LISTEN has changed, which takes a restart");
    }
    log_info("reload", LOG_NUMBER("workers", settings.workers));
    add_generation(supervisor, &settings);
}

static void end(struct supervisor *supervisor)
{
    if (supervisor->ending) {
        return;
    }
    supervisor->ending = true;
    log_info("service ending");
    listen_refuse(&supervisor->address, supervisor->listen_fd);
    close(supervisor->listen_fd);
    for (struct generation *at = supervisor->newest; at != NULL; at = at->older) {
        generation_retire(at);
    }
}

/* The first moment at which all workers of a generation are up: those before it may go. */
static void hand_over(struct generation *generation)
{
    log_set_level((enum log_level)generation->settings.log_level);
    for (struct generation *at = generation->older; at != NULL; at = at->older) {
        generation_retire(at);
    }
}

/* Do what is due and forget generations that have ended. Returns the milliseconds until something
 * is due again, unless a signal comes first. */
static uint64_t run_due(struct supervisor *supervisor)
{
    struct generation **link = &supervisor->newest;
    uint64_t wait_ms = GENERATION_IDLE_MS;

    while (*link != NULL) {
        struct generation *generation = *link;
        bool was_ready = generation->ready;
        uint64_t due_ms = generation_run(generation, supervisor->listen_fd);

        if (due_ms < wait_ms) {
            wait_ms = due_ms;
        }
        if (generation->ready && !was_ready) {
            hand_over(generation);
        }
        if (generation_has_ended(generation)) {
            *link = generation->older;
            generation_free(generation);
        } else {
            link = &generation->older;
        }
    }
    return wait_ms;
}

static void wait_for_signal(struct supervisor *supervisor, uint64_t wait_ms)
{
    struct timespec timeout = {.tv_sec = (time_t)(wait_ms / 1000),
                               .tv_nsec = (long)(wait_ms % 1000) * 1000000};

    switch (sigtimedwait(&supervisor->signals, NULL, &timeout)) {
    case SIGTERM:
    case SIGINT:
        end(supervisor);
        break;
    case SIGHUP:
        reload(supervisor);
        break;
    default: /* a child, or the time has come */
        break;
    }
    reap(supervisor);
}

static void block_signals(struct supervisor *supervisor)
{
    /* Whoever started us may have had it ignored, and then ends of workers would go unnoticed. */
    signal(SIGCHLD, SIG_DFL);
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&supervisor->signals);
    sigaddset(&supervisor->signals, SIGCHLD);
    sigaddset(&supervisor->signals, SIGTERM);
    sigaddset(&supervisor->signals, SIGINT);
    sigaddset(&supervisor->signals, SIGHUP);
    sigprocmask(SIG_BLOCK, &supervisor->signals, NULL);
}

static void log_start(const struct supervisor *supervisor, int64_t workers)
{
    const struct listen_address *address = &supervisor->address;
    const char *version = SPOTIFY_AUTH_VERSION;
    struct buf where = {0};

    if (listen_inherited()) {
        buf_adds(&where, "descriptor 0");
    } else if (address->socket_path != NULL) {
        buf_addf(&where, "unix:%s", address->socket_path);
    } else {
        buf_addf(&where, "tcp:%s:%s", address->host, address->port);
    }
    log_info("service started", LOG_TEXT("version", version), LOG_TEXT("listen", where.data),
             LOG_NUMBER("workers", workers));
    buf_clear(&where);
}

int supervisor_run(struct settings *settings)
{
    struct supervisor supervisor = {
        .address = {.socket_path = xstrdup(settings->listen.socket_path),
                    .host = xstrdup(settings->listen.host),
                    .port = xstrdup(settings->listen.port)},
    };
    int code = 1;

    log_set_level((enum log_level)settings->log_level);
    raise_limits();
    metrics_share();
    block_signals(&supervisor);
    supervisor.listen_fd = listen_open(&supervisor.address);
    if (supervisor.listen_fd < 0) {
        settings_clear(settings);
        goto out;
    }
    log_start(&supervisor, settings->workers);
    add_generation(&supervisor, settings);
    for (;;) {
        uint64_t wait_ms = run_due(&supervisor);

        if (supervisor.newest == NULL) {
            break;
        }
        wait_for_signal(&supervisor, wait_ms);
    }
    listen_remove(&supervisor.address);
    log_info("service ended");
    code = 0;
out:
    free(supervisor.address.socket_path);
    free(supervisor.address.host);
    free(supervisor.address.port);
    return code;
}
