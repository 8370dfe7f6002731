/* One FastCGI request and its reply, through libfcgi. */
#ifndef FRONT_EXCHANGE_H
#define FRONT_EXCHANGE_H

#include <stdbool.h>

#include "base/buf.h"
#include "flows/service.h"

/* Call once in the process, before any other thread: libfcgi reads its settings then. */
void exchange_init_library(void);

/* Serve the one whole request (framing.h) that waits unread on fd, or that was already read into
 * held; held is cleared. Only inside a fiber; fd is non-blocking. True: fd is open, and ready for
 * the next request. False: fd has been closed. */
bool exchange_serve(struct service *service, int fd, struct buf *held);

#endif
