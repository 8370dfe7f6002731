/* Plain CGI (RFC 3875): the one request that the environment and standard input describe. */
#ifndef FRONT_CGI_H
#define FRONT_CGI_H

#include "flows/service.h"

/* Serve it and write the answer to standard output. Only inside a fiber. Returns the exit code: 0,
 * or 1 when the answer could not be written. */
int cgi_serve(struct service *service);

#endif
