/* Lets a libuv loop drive one hiredis connection. hiredis' own adapter ignores errors that the loop
 * reports, so that a refused connection goes unnoticed, and asks for a writable socket at each
 * command; this one does neither. */
#ifndef STORE_REDIS_LOOP_H
#define STORE_REDIS_LOOP_H

#include <hiredis/async.h>
#include <uv.h>

/* Attach a fresh context to loop. gone(context) is called once, when hiredis is about to free it
 * for whatever reason, with context->c.err and errstr still there. Returns 0, or libuv's error:
 * then nothing was attached. Keeps no loop alive. */
int redis_loop_attach(uv_loop_t *loop, redisAsyncContext *context,
                      void (*gone)(redisAsyncContext *context));

/* Let hiredis read what has arrived. */
void redis_loop_read(redisAsyncContext *context);

#endif
