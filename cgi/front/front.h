/* FastCGI in, request and reply out, on libfcgi without its stalls: the front accepts by itself,
 * looks at what has arrived (MSG_PEEK) and lets libfcgi at it only when one whole request is there
 * (framing.h). Idle connections cost neither fiber nor thread; a request costs one fiber. */
#ifndef FRONT_FRONT_H
#define FRONT_FRONT_H

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

#include "flows/service.h"

struct front;

/* Serve the listening socket (borrowed, non-blocking; shared with other workers) on loop. Call
 * front_init_library once in the process before. */
void front_init_library(void);
struct front *front_new(uv_loop_t *loop, int listen_fd, struct service *service);

/* Accept no more. Connections that are open are served on. */
void front_stop_accepting(struct front *front);

/* Whether any connection is open. */
bool front_has_connections(const struct front *front);

/* From now on each connection is closed after its answer. For after front_stop_accepting. */
void front_hand_back(struct front *front);

/* Close the connections on which no request has arrived. For the end, after front_hand_back. */
void front_close_idle(struct front *front);

/* Requests that a fiber is working on. */
size_t front_in_hand(const struct front *front);

/* Close every connection; front is gone when the loop has run once more. A fiber that still works
 * on a request keeps its own connection, and does without front. */
void front_free(struct front *front);

#endif
