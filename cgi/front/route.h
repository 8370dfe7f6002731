/* The route table: which path has which methods, parameters and cross-site rule, and the handler
 * that sees only what was validated. */
#ifndef FRONT_ROUTE_H
#define FRONT_ROUTE_H

#include "flows/service.h"
#include "http/reply.h"
#include "http/request.h"

/* Answer one request: always fills reply (status, headers, body; no body for HEAD), never fails,
 * writes the request's log line. Sets request->params. Only inside a fiber. */
void route_serve(struct service *service, struct request *request, struct reply *reply);

/* The last of it, for a request that is refused before it can be routed: the headers that every
 * answer has, the length, no body for HEAD. */
void route_finish(const struct settings *settings, const struct request *request,
                  struct reply *reply);

#endif
