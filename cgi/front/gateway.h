/* The Common Gateway Interface (RFC 3875) as FastCGI and plain CGI share it: variables in, a reply
 * as text out. */
#ifndef FRONT_GATEWAY_H
#define FRONT_GATEWAY_H

#include <stddef.h>

#include "base/err.h"
#include "http/request.h"

#define GATEWAY_BODY_MAX 65536
#define GATEWAY_STATUS_MAX 64

/* Fill *out from variables ("NAME=value", NULL at the end; borrowed as long as *out is used): all
 * but the body and the declared parameters. ERR_INVALID_REQUEST when REQUEST_METHOD is missing. */
enum err gateway_read(const char *const *variables, struct request *out);

/* CONTENT_LENGTH (RFC 3875 4.1.2); absent or empty is 0. ERR_INVALID_REQUEST when it is not a
 * number or is there twice, ERR_TOO_LARGE above GATEWAY_BODY_MAX. */
enum err gateway_content_length(const struct request *request, size_t *out);

/* "Status: 200 OK\r\n" (RFC 3875 6.3.3) into out; returns its length. */
size_t gateway_format_status(int status, char out[static GATEWAY_STATUS_MAX]);

#endif
