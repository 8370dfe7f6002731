/* The route table: one entry for each path, with its methods, rules and parameters. A new route is
 * a line there, a handler in handlers/, and a label in base/metrics.h. */
#ifndef FRONT_ROUTES_H
#define FRONT_ROUTES_H

#include "base/metrics.h"
#include "handlers/handlers.h"

enum {
    ROUTE_PAGE = 1,       /* answers a person: errors are HTML unless Accept prefers JSON */
    ROUTE_CORS = 2,       /* listed origins may read the answers, preflights are answered */
    ROUTE_CROSS_SITE = 4, /* X-Requested-With and the origin are demanded */
    ROUTE_LOGIN = 8,      /* a person's own navigation, or a frontend that asks for JSON (L1) */
    ROUTE_FORM = 16,      /* parameters in the form alone: an address ends up in logs */
    ROUTE_VERIFY = 32,    /* asked by nginx (auth_request) about a request that it has in hand */
    ROUTE_SWAP = 64,      /* there with SWAP_REDIRECT_URIS only */
    ROUTE_DEVICE = 128,   /* there with DEVICE_LOGIN only */
};

struct param_rule {
    const char *name;
    size_t len_max;
    enum err (*check)(const struct settings *settings, const char *value);
};

struct route {
    const char *path;
    int flags;
    handler_fn *get; /* also HEAD; NULL: not allowed */
    handler_fn *post;
    struct param_rule params[REQUEST_PARAMS_MAX]; /* of the query, and of the form of a POST */
};

/* The entry of that path; NULL when there is none, or when the settings do not switch it on. */
const struct route *routes_find(const struct settings *settings, const char *path);

/* Its label in the metrics; NULL: an unknown path's. */
enum metric_route routes_metric(const struct route *route);

#endif
