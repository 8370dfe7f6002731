/* What one worker owns and every handler sees. */
#ifndef FLOWS_SERVICE_H
#define FLOWS_SERVICE_H

#include <stdbool.h>

#include "base/settings.h"
#include "spotify/accounts.h"
#include "store/store.h"

struct renewals;
struct app_tokens;

struct service {
    const struct settings *settings; /* borrowed */
    struct store *store;             /* the rest is owned by the worker */
    struct accounts accounts;
    struct renewals *renewals;
    struct app_tokens *app_tokens;
    bool draining;             /* SIGTERM came: readiness is false */
    bool refusals_mass;        /* as this worker last heard (flows/refusals.h) */
    int64_t refusals_looked_s; /* when that was, by the wall clock */
};

#endif
