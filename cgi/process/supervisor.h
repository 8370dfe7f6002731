/* The parent of the workers: keeps them running, and hands over to new ones on SIGHUP. */
#ifndef PROCESS_SUPERVISOR_H
#define PROCESS_SUPERVISOR_H

#include "base/settings.h"

/* Take over *settings (owned from here on), open the listening socket and supervise until SIGTERM
 * or SIGINT. SIGHUP reads the settings again: new workers take over and the old ones drain; a
 * broken configuration is refused with log lines and the old one goes on. Returns the exit code. */
int supervisor_run(struct settings *settings);

#endif
