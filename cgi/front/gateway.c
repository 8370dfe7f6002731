/* Turns CGI variables into a request and a status into its line, for front (FastCGI) and cgi. What
 * a route makes of the request, and whether it exists, is route.c's to say. */
#include "front/gateway.h"

#include <stdio.h>
#include <string.h>

#include "base/seal.h"

_Static_assert(SECRET_TEXT_LEN <= REQUEST_ID_MAX, "an id of our own fits");

static const struct reason {
    int status;
    const char *text;
} reasons[] = {
    {200, "OK"},
    {204, "No Content"},
    {302, "Found"},
    {303, "See Other"},
    {304, "Not Modified"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {406, "Not Acceptable"},
    {409, "Conflict"},
    {410, "Gone"},
    {413, "Content Too Large"},
    {415, "Unsupported Media Type"},
    {429, "Too Many Requests"},
    {500, "Internal Server Error"},
    {502, "Bad Gateway"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
};

static const char *reason_of(int status)
{
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++) {
        if (reasons[i].status == status) {
            return reasons[i].text;
        }
    }
    return "Unknown";
}

/* The web server's id ties our log lines to its own. It may come from a client's header, so only
 * what is harmless in a log line is taken over. */
static void read_id(const struct request *request, char out[static REQUEST_ID_MAX + 1])
{
    static const char allowed[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
    const char *given = request_variable(request, "REQUEST_ID");
    size_t len = given != NULL ? strlen(given) : 0;
    if (len >= 1 && len <= REQUEST_ID_MAX && strspn(given, allowed) == len) {
        memcpy(out, given, len + 1);
        return;
    }
    struct secret random;
    secret_new(&random);
    secret_format(&random, out);
}

/* PATH_INFO is what follows the script's own name. A web server that maps paths straight to us sets
 * none, or an empty one: then SCRIPT_NAME is the path. */
static const char *read_route(const struct request *request)
{
    const char *path = request_variable(request, "PATH_INFO");
    if (path == NULL || *path == '\0') {
        path = request_variable(request, "SCRIPT_NAME");
    }
    return path != NULL ? path : "";
}

enum err gateway_read(const char *const *variables, struct request *out)
{
    *out = (struct request){.variables = variables, .body = ""};
    read_id(out, out->id);
    const char *method = request_variable(out, "REQUEST_METHOD");
    if (method == NULL || *method == '\0') {
        return ERR_INVALID_REQUEST;
    }
    out->method = method_parse(method);
    out->route = read_route(out);
    out->query = request_variable(out, "QUERY_STRING");
    if (out->query == NULL) {
        out->query = "";
    }
    return OK;
}

enum err gateway_content_length(const struct request *request, size_t *out)
{
    const char *text = request_variable(request, "CONTENT_LENGTH");
    if (request_variable_repeated(request, "CONTENT_LENGTH")) {
        return ERR_INVALID_REQUEST;
    }
    size_t length = 0;
    for (const char *p = text != NULL ? text : ""; *p != '\0'; p++) {
        if (*p < '0' || *p > '9') {
            return ERR_INVALID_REQUEST;
        }
        if (length <= GATEWAY_BODY_MAX) {
            length = length * 10 + (size_t)(*p - '0');
        }
    }
    if (length > GATEWAY_BODY_MAX) {
        return ERR_TOO_LARGE;
    }
    *out = length;
    return OK;
}

size_t gateway_format_status(int status, char out[static GATEWAY_STATUS_MAX])
{
    return (size_t)snprintf(out, GATEWAY_STATUS_MAX, "Status: %d %s\r\n", status,
                            reason_of(status));
}
