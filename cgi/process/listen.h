/* The listening socket. */
#ifndef PROCESS_LISTEN_H
#define PROCESS_LISTEN_H

#include <stdbool.h>

#include "base/settings.h"

/* True when descriptor 0 is a listening socket (spawn-fcgi, supervisord, systemd). */
bool listen_inherited(void);

/* Descriptor 0 when that is a listening socket, else a new one on address: a unix socket of mode
 * 0660 (a stale one in its place is removed, a live one is an error), or TCP. Non-blocking,
 * close-on-exec. -1 with a log line on failure. */
int listen_open(const struct listen_address *address);

/* Let nobody connect any more, and those who have be accepted, as far as the system can: to a unix
 * socket that listen_open made. For the end of the whole service, whose processes share fd. */
void listen_refuse(const struct listen_address *address, int fd);

/* Remove the unix socket, if it is still the one that listen_open made. */
void listen_remove(const struct listen_address *address);

#endif
