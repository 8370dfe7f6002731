/* The settings, checked by all floors. */
#ifndef PROCESS_CONFIGURE_H
#define PROCESS_CONFIGURE_H

#include <stdio.h>

#include "base/settings.h"

/* settings_load, and the checks that need more than the base floor knows: RETURN_TO must be ours,
 * and the store must be able to do what it is asked for. Same result, same lines in problems. */
int configure_load(struct settings *out, FILE *problems);

/* The same, with each problem as a log line of level error. */
int configure_load_logged(struct settings *out);

#endif
