/* Starts, restarts and ends the workers of one generation. When a generation comes and goes is the
 * supervisor's business, what a worker does is worker.c's. */
#include "process/generation.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "process/worker.h"

/* A worker that has lived this long has opened all it needs, or would have ended. */
#define READY_MS 200
/* A worker that dies is replaced at once. When its replacement dies young, too, the next one waits,
 * longer each time, until one has lived long enough. */
#define YOUNG_MS 1000
#define SETTLED_MS 10000
#define BACKOFF_FIRST_MS 100
#define BACKOFF_MAX_MS 5000
/* Beyond DRAIN_TIMEOUT_S, for a worker's own way out. */
#define KILL_AFTER_DRAIN_MS 1000

struct generation *generation_new(struct settings *settings)
{
    struct generation *generation = xcalloc(1, sizeof(*generation));

    generation->settings = *settings;
    memset(settings, 0, sizeof(*settings));
    generation->count = (size_t)generation->settings.workers;
    generation->slots = xcalloc(generation->count, sizeof(*generation->slots));
    return generation;
}

void generation_free(struct generation *generation)
{
    settings_clear(&generation->settings);
    free(generation->slots);
    free(generation);
}

/* In the child: become a worker. The parent's signals are still blocked, so none is lost. */
static _Noreturn void become_worker(const struct settings *settings, int listen_fd, pid_t parent)
{
    sigset_t none;
    int code;

    /* Nobody would restart or end a worker whose parent is gone. */
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) {
        _exit(1);
    }
    /* A terminal sends these to the whole process group; what they mean is decided by the parent.
     */
    signal(SIGINT, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGTERM, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    code = worker_run(settings, listen_fd);
    fflush(NULL);
    _exit(code);
}

static void start_worker(const struct generation *generation, struct slot *slot, int listen_fd)
{
    pid_t parent = getpid();
    int metrics = metrics_take_slot();
    pid_t pid = fork();

    if (pid == 0) {
        metrics_use_slot(metrics);
        become_worker(&generation->settings, listen_fd, parent);
    }
    slot->started_ms = clock_mono_ms();
    if (pid < 0) {
        const char *reason = strerror(errno);

        log_error("worker not started", LOG_TEXT("reason", reason));
        metrics_free_slot(metrics);
        slot->start_ms = slot->started_ms + BACKOFF_MAX_MS;
        return;
    }
    slot->pid = pid;
    slot->metrics = metrics;
    log_info("worker started", LOG_NUMBER("worker", pid));
}

/* Milliseconds until all workers are up, if none ends before; GENERATION_IDLE_MS while one is not
 * running. */
static uint64_t ready_in(const struct generation *generation, uint64_t now)
{
    uint64_t wait_ms = 0;

    for (size_t i = 0; i < generation->count; i++) {
        uint64_t up_ms = generation->slots[i].started_ms + READY_MS;

        if (generation->slots[i].pid == 0) {
            return GENERATION_IDLE_MS;
        }
        if (up_ms > now && up_ms - now > wait_ms) {
            wait_ms = up_ms - now;
        }
    }
    return wait_ms;
}

/* Start the workers that are due. Returns the milliseconds until the next one is. */
static uint64_t start_due(struct generation *generation, int listen_fd, uint64_t now)
{
    uint64_t wait_ms = GENERATION_IDLE_MS;

    for (size_t i = 0; i < generation->count; i++) {
        struct slot *slot = &generation->slots[i];

        if (slot->pid == 0 && slot->start_ms <= now) {
            start_worker(generation, slot, listen_fd);
        }
        if (slot->pid == 0 && slot->start_ms - now < wait_ms) {
            wait_ms = slot->start_ms - now;
        }
    }
    return wait_ms;
}

static void kill_rest(struct generation *generation)
{
    generation->kill_ms = 0;
    for (size_t i = 0; i < generation->count; i++) {
        if (generation->slots[i].pid != 0) {
            log_warn("worker killed", LOG_NUMBER("worker", generation->slots[i].pid));
            kill(generation->slots[i].pid, SIGKILL);
        }
    }
}

uint64_t generation_run(struct generation *generation, int listen_fd)
{
    uint64_t now = clock_mono_ms(), wait_ms, ready_ms;

    if (generation->retired) {
        if (generation->kill_ms > now) {
            return generation->kill_ms - now;
        }
        if (generation->kill_ms != 0) {
            kill_rest(generation);
        }
        return GENERATION_IDLE_MS;
    }
    wait_ms = start_due(generation, listen_fd, now);
    if (generation->ready) {
        return wait_ms;
    }
    ready_ms = ready_in(generation, now);
    generation->ready = ready_ms == 0;
    return ready_ms > 0 && ready_ms < wait_ms ? ready_ms : wait_ms;
}

static void log_end(pid_t pid, int status, uint64_t lived_ms, bool expected)
{
    bool killed = WIFSIGNALED(status);

    log_line(
        expected ? LOG_INFO : LOG_ERROR, "worker ended", LOG_NUMBER("worker", pid),
        LOG_NUMBER(killed ? "signal" : "status", killed ? WTERMSIG(status) : WEXITSTATUS(status)),
        LOG_NUMBER("lived_ms", lived_ms));
}

/* Decide when the worker that was here comes back. */
static void plan_restart(struct slot *slot, uint64_t now, uint64_t lived_ms)
{
    if (lived_ms >= SETTLED_MS) {
        slot->backoff_ms = 0;
    }
    slot->start_ms = now + slot->backoff_ms;
    if (slot->backoff_ms == 0) {
        slot->backoff_ms = BACKOFF_FIRST_MS;
    } else if (lived_ms < YOUNG_MS) {
        slot->backoff_ms *= 2;
    }
    if (slot->backoff_ms > BACKOFF_MAX_MS) {
        slot->backoff_ms = BACKOFF_MAX_MS;
    }
}

bool generation_take_end(struct generation *generation, pid_t pid, int status)
{
    uint64_t now = clock_mono_ms();

    for (size_t i = 0; i < generation->count; i++) {
        struct slot *slot = &generation->slots[i];

        if (slot->pid != pid) {
            continue;
        }
        log_end(pid, status, now - slot->started_ms, generation->retired);
        slot->pid = 0;
        metrics_free_slot(slot->metrics);
        metrics_count(METRIC_WORKER_ENDS,
                      generation->retired ? METRIC_WORKER_DRAINED : METRIC_WORKER_DIED);
        plan_restart(slot, now, now - slot->started_ms);
        return true;
    }
    return false;
}

void generation_retire(struct generation *generation)
{
    if (generation->retired) {
        return;
    }
    generation->retired = true;
    generation->kill_ms = clock_mono_ms() + (uint64_t)generation->settings.drain_timeout_s * 1000 +
                          KILL_AFTER_DRAIN_MS;
    for (size_t i = 0; i < generation->count; i++) {
        if (generation->slots[i].pid != 0) {
            kill(generation->slots[i].pid, SIGTERM);
        }
    }
}

bool generation_has_ended(const struct generation *generation)
{
    for (size_t i = 0; i < generation->count; i++) {
        if (generation->slots[i].pid != 0) {
            return false;
        }
    }
    return generation->retired;
}
