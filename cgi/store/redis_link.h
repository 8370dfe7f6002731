/* One pipelined connection to one Redis, made when the first command comes and made anew, after a
 * pause where need be, when one comes after its loss. Which command goes over which link, and what
 * is done about one that fails, is redis.c's and redis_fleet.c's business. */
#ifndef STORE_REDIS_LINK_H
#define STORE_REDIS_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/fiber.h"
#include "base/settings.h"
#include "store/redis_address.h"
#include "store/redis_command.h"
#include "store/redis_trouble.h"

struct redis_link;
struct redis_tls;

/* Who waits for commands: a fiber, on whose stack this lives, or else done(). */
struct redis_wait {
    struct fiber *fiber;
    void (*done)(struct redis_wait *wait); /* without a fiber: nothing is unanswered any more */
    uint64_t deadline_ms;                  /* by the loop's clock */
    size_t unanswered;
    bool is_quiet; /* error replies are not logged */
};

/* One command and what became of it. */
struct redis_call {
    const struct redis_arg *args; /* borrowed while it is sent */
    size_t count;
    struct redis_wait *wait;    /* NULL: nobody waits, and this is of no use after sending */
    struct redis_value *out;    /* filled from a good reply; NULL: nobody looks */
    enum redis_trouble trouble; /* why it failed; set before wait's fiber is woken */
    /* redis_fleet.c's: */
    int slot;       /* of its key; -1: none */
    int node;       /* the one it is for, whoever has the slot; -1: that one */
    bool is_asking; /* to a node that does not quite have the slot yet */
    bool is_open;   /* still to be sent */
};

/* What a link tells about. */
struct redis_link_owner {
    void *self;
    /* The link has become ready, or was lost. */
    void (*changed)(void *self);
    /* The node with that host sends a command elsewhere: "MOVED 1 host:port" or "ASK …". call NULL:
     * nobody waits for it. */
    void (*redirected)(void *self, struct redis_call *call, const char *host, const char *error);
};

struct redis_link_options {
    const struct settings *settings; /* borrowed */
    const struct redis_place *place; /* copied. NULL: where REDIS_URL leads; looks that up, blocking
                                      */
    struct redis_tls *tls;           /* borrowed; NULL: none */
    bool is_anonymous;               /* no password is given */
    bool is_bare;                    /* no database is chosen */
    bool is_checked;                 /* nothing is sent before it has said that it is a master */
    unsigned pause_part;             /* no pause is longer than this part of STORE_TIMEOUT_MS */
    struct redis_link_owner owner;   /* all zero: nobody */
};

/* Owned by the caller. */
struct redis_link *redis_link_new(uv_loop_t *loop, const struct redis_link_options *options);

/* Commands in flight fail before any fiber runs again. */
void redis_link_free(struct redis_link *link);

/* Connect, unless there is a connection. Returns 0, or when to call again, by the loop's clock. */
uint64_t redis_link_begin(struct redis_link *link);

/* True while there is no address yet for its host's name. */
bool redis_link_is_looked_up(const struct redis_link *link);

/* Whether commands can be sent over a checked link. */
bool redis_link_is_ready(const struct redis_link *link);

/* Whether nothing is in flight. */
bool redis_link_is_idle(const struct redis_link *link);

/* Wait until the next attempt to connect may be made, when there is no connection. */
void redis_link_await(struct redis_link *link);

/* Send a command; connects first where need be. False: there is no connection, and call->trouble
 * says why. True: call->wait counts it as unanswered until its reply, its deadline or the
 * connection's end; until then call must stay. */
bool redis_link_send(struct redis_link *link, struct redis_call *call);

/* Let go of the connection, which was good. The commands in flight fail. */
void redis_link_close(struct redis_link *link);

/* How the last connection, or the last attempt to make one, ended. */
enum redis_trouble redis_link_trouble(const struct redis_link *link);

#endif
