/* Error answers: flat JSON for programs (RFC 6749 5.2), a small page for people. */
#ifndef HTTP_PROBLEM_H
#define HTTP_PROBLEM_H

#include <stdbool.h>

#include "base/err.h"
#include "base/settings.h"
#include "http/reply.h"

/* Fill reply with the answer for err: status, error and error_description from the table in err.c,
 * Retry-After on 503, login_url where a login helps, and for ERR_ABSENT the session cookie cleared.
 * As an HTML page when html is true. Of the headers already in reply, Set-Cookie, Location and
 * those that this function sets itself are dropped; others stay. */
void problem_reply(struct reply *reply, const struct settings *settings, enum err err, bool html);

/* The same for nginx's auth_request, which knows 401, 403 and nothing else, and drops the body: an
 * outage becomes 403, the error word goes into X-Auth-Error and the whole body into X-Auth-Body.
 * Call it after problem_reply. */
void problem_for_auth_request(struct reply *reply, enum err err);

#endif
