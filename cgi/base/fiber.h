/* Fibers: a handler reads like blocking code, and every wait parks its fiber and lets the loop go
 * on. One thread, one loop; a fiber runs until it parks or returns. */
#ifndef BASE_FIBER_H
#define BASE_FIBER_H

#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct fiber;

/* Call once for each process before any other: woken fibers run from this loop, never from inside
 * the call that wakes them. */
void fiber_init(uv_loop_t *loop);

/* Run function(argument) in a fiber of its own, from the loop. */
void fiber_spawn(void (*function)(void *), void *argument);

/* The fiber that is running; NULL outside of any. */
struct fiber *fiber_self(void);

/* Wait until somebody calls fiber_wake on this fiber. Only inside a fiber. */
void fiber_park(void);

/* The same, for ms milliseconds at most. The fiber goes on after the loop has delivered what had
 * arrived by then, also when this process stood still meanwhile. */
void fiber_park_for(uint64_t ms);

/* Let a parked fiber go on, soon. Once for each park. */
void fiber_wake(struct fiber *fiber);

/* Wait for ms milliseconds. Only inside a fiber. */
void fiber_sleep(uint64_t ms);

/* A pointer of the fiber's own, NULL at its start: the request's log context. Outside of fibers get
 * gives NULL and set does nothing. */
void *fiber_get_local(void);
void fiber_set_local(void *local);

/* Fibers begun and not yet ended. */
size_t fiber_count(void);

#endif
