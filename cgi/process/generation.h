/* The workers of one reading of the settings: a reload begins a new generation and retires the
 * older ones. */
#ifndef PROCESS_GENERATION_H
#define PROCESS_GENERATION_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/settings.h"

/* The longest that generation_run answers. */
#define GENERATION_IDLE_MS 60000

/* The place of one worker; its process comes and goes. */
struct slot {
    pid_t pid;           /* 0: not running */
    int metrics;         /* while running: the slot it counts in */
    uint64_t started_ms; /* while running */
    uint64_t start_ms;   /* while not running: when to start it */
    uint64_t backoff_ms; /* how long the next one waits */
};

struct generation {
    struct generation *older; /* owned by the supervisor */
    struct settings settings;
    struct slot *slots; /* owned */
    size_t count;
    bool ready;       /* all of its workers were up at once */
    bool retired;     /* told to drain: nothing is started any more */
    uint64_t kill_ms; /* when retired: who is left then is killed; 0 afterwards */
};

/* A generation of settings->workers, none of them started. Takes *settings over. */
struct generation *generation_new(struct settings *settings);
void generation_free(struct generation *generation);

/* Do what is due: start workers that serve listen_fd, notice that all are up (ready), kill who did
 * not drain. Returns the milliseconds until something is due again. */
uint64_t generation_run(struct generation *generation, int listen_fd);

/* Take note that pid has ended. False when it is none of this generation's. */
bool generation_take_end(struct generation *generation, pid_t pid, int status);

/* Tell the workers to drain; they are killed when they are late. A second call changes nothing. */
void generation_retire(struct generation *generation);

/* True when it is retired and all of its workers have ended. */
bool generation_has_ended(const struct generation *generation);

#endif
