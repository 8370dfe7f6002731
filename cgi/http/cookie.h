/* The two cookies (RFC 6265bis): the login cookie binds a browser while it logs in, the session
 * cookie is the session. Both hold 256 random bits. */
#ifndef HTTP_COOKIE_H
#define HTTP_COOKIE_H

#include "base/seal.h"
#include "base/settings.h"
#include "http/reply.h"
#include "http/request.h"

/* Find the value of the cookie called name in one Cookie header. Returns its length and sets *value
 * into header, borrowed; (size_t)-1 when there is no further one. Start with *cursor = header; call
 * again for the next of the same name. */
size_t cookie_find(const char **cursor, const char *name, const char **value);

enum cookie { COOKIE_LOGIN, COOKIE_SESSION, COOKIE__MAX };

/* ABSENT: no such cookie. MALFORMED: there is one, but none of ours. GOOD: *out is the first
 * well-formed one, over all Cookie headers. */
enum cookie_state { COOKIE_IS_ABSENT, COOKIE_IS_MALFORMED, COOKIE_IS_GOOD };
enum cookie_state cookie_get(const struct request *request, const struct settings *settings,
                             enum cookie which, struct secret *out);

/* Set-Cookie with the attributes of API.md 3 for that cookie. The session cookie's Max-Age is
 * SESSION_MAX_AGE. */
void cookie_set(struct reply *reply, const struct settings *settings, enum cookie which,
                const struct secret *value);

/* Set-Cookie that makes the browser forget it: the same attributes, Max-Age=0. */
void cookie_clear(struct reply *reply, const struct settings *settings, enum cookie which);

#endif
