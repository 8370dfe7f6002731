/* One worker process: a loop, and what it owns. */
#ifndef PROCESS_WORKER_H
#define PROCESS_WORKER_H

#include "base/settings.h"

/* Serve listen_fd until SIGTERM, then finish what is in hand (at most DRAIN_TIMEOUT_S). Returns the
 * exit code. */
int worker_run(const struct settings *settings, int listen_fd);

/* Serve the one request of the CGI environment. Returns the exit code. */
int worker_run_cgi(const struct settings *settings);

#endif
