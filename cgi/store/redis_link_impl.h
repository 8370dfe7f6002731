/* What redis_link.c, the life of a connection, and redis_flight.c, the commands on it, share.
 * Nobody else includes it. */
#ifndef STORE_REDIS_LINK_IMPL_H
#define STORE_REDIS_LINK_IMPL_H

#include "store/redis_connect.h"
#include "store/redis_link.h"
#include "store/redis_pause.h"

#define COMMAND_NAME_MAX 16

enum purpose {
    FOR_CALL,
    FOR_GREETING, /* AUTH or SELECT: no use of the connection without them */
    FOR_ROLE,     /* the same, and the reply must name a master */
};

/* A command in flight. hiredis calls back for each exactly once, with NULL when the connection is
 * gone; until then it must not be freed. */
struct command {
    struct redis_link *link;
    struct redis_call *call; /* NULL: nobody waits, or nobody does any more */
    uint64_t lost_ms;        /* the connection's deadline */
    enum purpose purpose;
    char name[COMMAND_NAME_MAX]; /* for the log */
    struct command *next;
};

enum link_state { LINK_NEW, LINK_UP, LINK_DOWN };

struct redis_link {
    uv_loop_t *loop;
    struct redis_link_options options;
    struct redis_target target;
    char *name;                 /* for the log; owned */
    redisAsyncContext *context; /* NULL: not connected, nor about to be */
    bool is_ready;              /* checked, and found to be a master's */
    enum link_state state;      /* as the log tells it */
    uint64_t answered_ms;       /* since when this context answers; 0: it did not yet */
    struct redis_pause pause;   /* before the next attempt */
    size_t pausing;             /* fibers that wait for it */
    enum redis_trouble end;     /* how the last context ended */
    enum redis_trouble leaving; /* why this one ends with the last reply in flight; or NONE */
    struct command *head;       /* in flight, oldest first */
    struct command **tail;
    uv_timer_t timer; /* runs while commands are in flight, until due_ms */
    uint64_t due_ms;
};

/* STORE_TIMEOUT_MS. */
uint64_t redis_link_timeout_ms(const struct redis_link *link);

/* The link's connection has become of use, or is of none any more: tell its owner. */
void redis_link_tell_change(struct redis_link *link);

/* The connection has answered. */
void redis_link_note_answer(struct redis_link *link);

/* Leave the connection, if there is one. All commands in flight fail before a fiber runs again. why
 * NULL: for what it answered, which is logged already. */
void redis_link_drop(struct redis_link *link, enum redis_trouble trouble, const char *why);

/* What ailed a context that hiredis has given up. */
enum redis_trouble redis_link_end_of(const redisAsyncContext *context);

/* Queue a command on the link's connection. call NULL: nobody waits. */
bool redis_flight_add(struct redis_link *link, const struct redis_arg *args, size_t count,
                      struct redis_call *call, enum purpose purpose);

#endif
