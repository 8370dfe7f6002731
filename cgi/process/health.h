/* --health: ask /readyz over FastCGI, as a container's health check does. */
#ifndef PROCESS_HEALTH_H
#define PROCESS_HEALTH_H

#include "base/settings.h"

/* Print the answer's body on stdout, what went wrong on stderr. Waits at most 3 s. Returns 0 when
 * the answer was 200, else 1. */
int health_check(const struct listen_address *address);

#endif
