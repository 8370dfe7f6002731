/* From a request to its handler: everything that can be refused without knowing the session is
 * refused here, in this order: path, method, cross-site rule, parameters. What each route takes is
 * said in routes.c. Errors of any depth are answered here, too. */
#include "front/route.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/fiber.h"
#include "base/log.h"
#include "base/metrics.h"
#include "front/routes.h"
#include "http/problem.h"
#include "http/query.h"

#define FORM_TYPE "application/x-www-form-urlencoded"

static const char *allowed_methods(const struct route *route)
{
    bool options = route->flags & ROUTE_CORS;
    if (!route->get && !route->post) {
        return "OPTIONS";
    }
    if (route->get && route->post) {
        return "GET, HEAD, POST";
    }
    if (route->get) {
        return options ? "GET, HEAD, OPTIONS" : "GET, HEAD";
    }
    return options ? "POST, OPTIONS" : "POST";
}

static handler_fn *find_handler(const struct route *route, enum method method)
{
    switch (method) {
    case METHOD_GET:
    case METHOD_HEAD:
        return route->get;
    case METHOD_POST:
        return route->post;
    default:
        return NULL;
    }
}

/* ---- who may call: Fetch metadata, Origin, CORS ---- */

enum caller { CALLER_UNKNOWN, CALLER_OWN, CALLER_LISTED, CALLER_FOREIGN };

/* Whose page sends this, by the Origin header (RFC 6454 7), which browsers write in the one
 * canonical way. UNKNOWN: none was sent. */
static enum caller find_caller(const struct settings *settings, const struct request *request)
{
    const char *text = request_variable(request, "HTTP_ORIGIN");
    if (!text) {
        return CALLER_UNKNOWN;
    }
    if (request_variable_repeated(request, "HTTP_ORIGIN")) {
        return CALLER_FOREIGN;
    }
    if (strcmp(text, settings->origin.text) == 0) {
        return CALLER_OWN;
    }
    for (size_t i = 0; i < settings->allowed_origins.count; i++) {
        if (strcmp(text, settings->allowed_origins.items[i].text) == 0) {
            return CALLER_LISTED;
        }
    }
    return CALLER_FOREIGN; /* "null" among them */
}

/* What a browser tells decides; a program that is none tells nothing. */
static bool is_trusted(const struct request *request, enum caller caller)
{
    const char *site = request_variable(request, "HTTP_SEC_FETCH_SITE");
    if (caller == CALLER_OWN || caller == CALLER_LISTED) {
        return true;
    }
    return site ? strcmp(site, "same-origin") == 0 : caller == CALLER_UNKNOWN;
}

static bool is_allowed_to_call(const struct request *request, enum caller caller)
{
    return request_variable(request, "HTTP_X_REQUESTED_WITH") && is_trusted(request, caller);
}

/* L1, RFC 9700 4.16: a login is begun by a person's navigation in a window of its own; a script may
 * only ask for the URL, as JSON, and only one of the own or a listed origin. */
static bool may_begin_login(const struct request *request, enum caller caller)
{
    static const char *const framed[] = {"iframe", "frame", "fencedframe", "embed", "object"};
    const char *dest = request_variable(request, "HTTP_SEC_FETCH_DEST");
    const char *mode = request_variable(request, "HTTP_SEC_FETCH_MODE");
    for (size_t i = 0; dest && i < sizeof(framed) / sizeof(framed[0]); i++) {
        if (strcmp(dest, framed[i]) == 0) {
            return false;
        }
    }
    if (!mode || strcmp(mode, "navigate") == 0) {
        return true;
    }
    return request_prefers_json(request) && is_trusted(request, caller);
}

static void add_cors_headers(const struct request *request, enum caller caller, struct reply *reply)
{
    reply_add_header(reply, "Vary", "Origin");
    if (caller == CALLER_LISTED) {
        reply_add_header(reply, "Access-Control-Allow-Origin",
                         request_variable(request, "HTTP_ORIGIN"));
        reply_add_header(reply, "Access-Control-Allow-Credentials", "true");
        reply_add_header(reply, "Access-Control-Expose-Headers", "Retry-After, X-Request-Id");
    }
}

/* What may be done with a path; of the Web API, nginx lets through a part of these. */
static const char *preflight_methods(const struct route *route)
{
    if (!route->get && !route->post) {
        return "GET, HEAD, POST, PUT, DELETE";
    }
    return route->get ? "GET, HEAD" : "POST";
}

static enum err answer_preflight(const struct route *route, enum caller caller, struct reply *reply)
{
    if (caller != CALLER_LISTED) {
        return ERR_FORBIDDEN;
    }
    reply_add_header(reply, "Access-Control-Allow-Methods", preflight_methods(route));
    reply_add_header(reply, "Access-Control-Allow-Headers", "X-Requested-With, Content-Type");
    reply_add_header(reply, "Access-Control-Max-Age", "600");
    reply->status = 204;
    return OK;
}

/* ---- parameters ---- */

static bool is_form(const struct request *request)
{
    const char *type = request_variable(request, "CONTENT_TYPE");
    size_t len = strlen(FORM_TYPE);
    return type && strncasecmp(type, FORM_TYPE, len) == 0 &&
           (type[len] == '\0' || type[len] == ';' || type[len] == ' ');
}

/* A POST takes its parameters from the form or the query, but none from both; a ROUTE_FORM from the
 * form (RFC 6749 2.3.1, 3.2). */
static enum err check_params(const struct settings *settings, const struct route *route,
                             const struct query *query, const struct query *form,
                             struct request *request, struct reply *reply)
{
    bool form_only = route->flags & ROUTE_FORM && request->method == METHOD_POST;
    for (size_t i = 0; i < REQUEST_PARAMS_MAX && route->params[i].name; i++) {
        const struct param_rule *rule = &route->params[i];
        const char *value = query_get(query, rule->name);
        const char *in_form = query_get(form, rule->name);
        if (value && form_only) {
            return reply_blame(reply, rule->name, "belongs into the form, not into the address");
        }
        if (value && in_form) {
            return reply_blame(reply, rule->name, "stands in the address and in the form");
        }
        value = value ? value : in_form;
        request->params[i] = (struct param){rule->name, value};
        if (!value) {
            continue;
        }
        enum err err = rule->check(settings, value);
        if (err == OK && strlen(value) > rule->len_max) {
            return reply_blame(reply, rule->name, "is too long");
        }
        if (err == ERR_INVALID_REQUEST ||
            err == ERR_INVALID_GRANT) { /* of others the text says it */
            (void)reply_blame(reply, rule->name, "is not as it should be");
        }
        if (err != OK) {
            return err;
        }
    }
    return OK;
}

/* Parse into *out; a parameter of the route's that does not is named in the error. */
static enum err parse_params(const struct route *route, const char *text, size_t len,
                             struct query *out, struct reply *reply)
{
    enum err err = query_parse(text, len, out);
    for (size_t i = 0; err != OK && i < REQUEST_PARAMS_MAX && route->params[i].name; i++) {
        if (strcmp(route->params[i].name, out->culprit) == 0) {
            return reply_blame(reply, route->params[i].name, "is repeated, or badly encoded");
        }
    }
    return err;
}

/* The cross-site rule of /verify: nginx says which one, since it knows what it protects. */
static enum err check_verified_caller(const struct request *request, enum caller caller)
{
    const char *rule = request_param(request, "caller");
    if (!rule) {
        return OK;
    }
    bool is_good = strcmp(rule, "script") == 0 ? is_allowed_to_call(request, caller)
                                               : is_trusted(request, caller);
    return is_good ? OK : ERR_FORBIDDEN;
}

static enum err call_handler(struct service *service, const struct route *route, enum caller caller,
                             struct request *request, struct reply *reply)
{
    struct query query = {0};
    struct query form = {0};
    bool is_post = request->method == METHOD_POST;
    if (is_post && request->body_len > 0 && !is_form(request)) {
        return ERR_MEDIA_TYPE;
    }
    enum err err = parse_params(route, request->query, strlen(request->query), &query, reply);
    if (err == OK && is_post) {
        err = parse_params(route, request->body, request->body_len, &form, reply);
    }
    if (err == OK) {
        err = check_params(service->settings, route, &query, &form, request, reply);
    }
    if (err == OK && route->flags & ROUTE_VERIFY) {
        err = check_verified_caller(request, caller);
    }
    if (err == OK) {
        err = find_handler(route, request->method)(service, request, reply);
    }
    query_clear(&query);
    query_clear(&form);
    return err;
}

/* ---- one request ---- */

static enum err serve(struct service *service, const struct route *route, struct request *request,
                      struct reply *reply)
{
    if (!route) {
        return ERR_NOT_FOUND;
    }
    enum caller caller = CALLER_UNKNOWN;
    if (route->flags & ROUTE_CORS) {
        caller = find_caller(service->settings, request);
        add_cors_headers(request, caller, reply);
        if (request->method == METHOD_OPTIONS) {
            return answer_preflight(route, caller, reply);
        }
    }
    if (!find_handler(route, request->method)) {
        reply_add_header(reply, "Allow", allowed_methods(route));
        return ERR_METHOD;
    }
    if (route->flags & ROUTE_CROSS_SITE && !is_allowed_to_call(request, caller)) {
        return ERR_FORBIDDEN;
    }
    if (route->flags & ROUTE_LOGIN && !may_begin_login(request, caller)) {
        return ERR_FORBIDDEN;
    }
    return call_handler(service, route, caller, request, reply);
}

/* A POST that no page of ours sends is a program's. */
static bool wants_html(const struct route *route, const struct request *request, enum err err)
{
    return route && route->flags & ROUTE_PAGE && err != ERR_METHOD &&
           !request_prefers_json(request) &&
           (request->method != METHOD_POST || request_param(request, "action"));
}

static void add_common_headers(const struct settings *settings, const struct request *request,
                               struct reply *reply)
{
    reply_add_header(reply, "Cache-Control", "no-store");
    reply_add_header(reply, "X-Content-Type-Options", "nosniff");
    reply_add_header(reply, "Referrer-Policy", "no-referrer");
    reply_add_header(reply, "X-Request-Id", request->id);
    if (settings->secure) { /* RFC 6797 7.2: over https only */
        reply_add_header(reply, "Strict-Transport-Security", "max-age=31536000");
    }
}

void route_finish(const struct settings *settings, const struct request *request,
                  struct reply *reply)
{
    add_common_headers(settings, request, reply);
    if (request->method == METHOD_HEAD) {
        buf_reset(&reply->body);
    } else if (reply->status != 204) {
        char length[24];
        snprintf(length, sizeof(length), "%zu", reply->body.len);
        reply_add_header(reply, "Content-Length", length);
    }
}

void route_serve(struct service *service, struct request *request, struct reply *reply)
{
    uint64_t begun_us = clock_mono_us();
    struct log_context context = {.request_id = request->id};
    fiber_set_local(&context);
    metrics_add(METRIC_REQUESTS_IN_HAND, 0, 1);

    const struct route *route = routes_find(service->settings, request->route);
    enum err err = serve(service, route, request, reply);
    if (err != OK) {
        problem_reply(reply, service->settings, err, wants_html(route, request, err));
        if (route && route->flags & ROUTE_VERIFY) {
            problem_for_auth_request(reply, err);
        }
    }
    route_finish(service->settings, request, reply);
    uint64_t us = clock_mono_us() - begun_us;
    metrics_count_request(routes_metric(route), reply->status, us);
    metrics_add(METRIC_REQUESTS_IN_HAND, 0, -1);
    log_line(reply->status >= 500 || err_status(err) >= 500 ? LOG_WARN : LOG_INFO, "request",
             LOG_TEXT("method", method_name(request->method)),
             LOG_TEXT("route", route ? route->path : "unknown"),
             LOG_NUMBER("status", reply->status), LOG_NUMBER("us", us),
             LOG_NUMBER("redis_us", context.store_us),
             LOG_NUMBER("spotify_us", context.upstream_us));
    fiber_set_local(NULL);
}
