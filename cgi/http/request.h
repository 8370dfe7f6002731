/* A request as a handler sees it: the CGI variables (RFC 3875) of FastCGI or plain CGI. Everything
 * in it is borrowed until the handler returns. */
#ifndef HTTP_REQUEST_H
#define HTTP_REQUEST_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

enum method { METHOD_GET, METHOD_HEAD, METHOD_POST, METHOD_OPTIONS, METHOD_OTHER, METHOD__MAX };

#define REQUEST_PARAMS_MAX 8
#define REQUEST_ID_MAX 64

/* A parameter that the route table declares. Validated before the handler runs. */
struct param {
    const char *name;  /* NULL: unused slot */
    const char *value; /* decoded; NULL: absent or empty (RFC 6749 3.1) */
};

struct request {
    enum method method;
    const char *route; /* PATH_INFO, or SCRIPT_NAME where there is none: "/authorize" */
    const char *query; /* raw, "" when there is none */
    const char *body;
    size_t body_len;
    char id[REQUEST_ID_MAX + 1];  /* REQUEST_ID, or one of our own */
    const char *const *variables; /* "NAME=value", NULL at the end; a name may be repeated */
    struct param params[REQUEST_PARAMS_MAX];
};

/* The first CGI variable of that name ("HTTP_ORIGIN"), NULL when there is none. */
const char *request_variable(const struct request *request, const char *name);

/* The n-th (from 0) variable of that name: nginx before 1.23 passes repeated headers as separate
 * variables of one name. NULL past the last. */
const char *request_variable_at(const struct request *request, const char *name, size_t n);

/* True when a variable of that name is there more than once. */
bool request_variable_repeated(const struct request *request, const char *name);

/* The validated value of a declared parameter, NULL when absent or empty. */
const char *request_param(const struct request *request, const char *name);

enum method method_parse(const char *text);
const char *method_name(enum method method);

/* True when the Accept header (RFC 9110 12.5.1) gives application/json a higher weight than
 * text/html. */
bool request_prefers_json(const struct request *request);

/* True for a prefetch or prerender (Sec-Purpose, or Purpose/X-Moz of older browsers): it must have
 * no effect. */
bool request_is_prefetch(const struct request *request);

#endif
