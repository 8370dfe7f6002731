/* Whether Spotify refuses renewals in such numbers that the fault must be its own: it has done so
 * for whole user bases, falsely (contract A.8). Meanwhile no session is ended. */
#ifndef FLOWS_REFUSALS_H
#define FLOWS_REFUSALS_H

#include "flows/service.h"

/* Below so many sessions with a renewal in the last ten minutes, over all workers, nothing can be
 * said. */
#define REFUSALS_SESSIONS_MIN 20

/* Ask Redis, but in masses once a second: *is_mass when of at least REFUSALS_SESSIONS_MIN sessions
 * more than half were refused. One that was renewed since counts, too: it shows that its refusal
 * was a false one. Logs a change. ERR_STORE: unknown. */
enum err refusals_look(struct service *service, bool *is_mass);

#endif
