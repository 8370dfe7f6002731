/* What Spotify answers, parsed: pure functions over foreign bytes. */
#ifndef SPOTIFY_ANSWER_H
#define SPOTIFY_ANSWER_H

#include <stddef.h>

#include "base/err.h"
#include "base/model.h"

/* A 200 of the token endpoint (RFC 6749 5.1). access_token must be a non-empty string of visible
 * ASCII (RFC 6750 2.1) up to TOKEN_MAX, token_type "Bearer" in any case. refresh_token and scope:
 * see struct tokens; of the wrong type, over its limit or with characters outside RFC 6749's is
 * ERR_FORMAT. expires_in is never ERR_FORMAT: a whole number (also 3600.0) or its digits as text,
 * at most a year, which is what more becomes; missing: 3600; anything else, also 0 or less, gives
 * 0, which says that nothing usable was said. A null counts as missing. On ERR_FORMAT there is
 * nothing to clear, and *problem is a static text that says what is wrong, without any part of the
 * body. */
enum err answer_parse_tokens(const char *body, size_t len, struct tokens *out,
                             const char **problem);

/* A 4xx of the token endpoint (RFC 6749 5.2): ERR_REFUSED for a 400 or 401 with JSON error
 * "invalid_grant"; ERR_MISCONFIGURED for a 400 or 401 with any other string error; ERR_UPSTREAM for
 * all else. *word is static and safe to log: the error where it is one of RFC 6749 5.2's, else
 * "other". */
enum err answer_parse_error(int status, const char *body, size_t len, const char **word);

/* A 200 of /v1/me. Members that are missing, not strings, empty, over PROFILE_TEXT_MAX or with
 * control characters (they may end up in a header) are NULL; image_url is the first https (or
 * loopback http) URL of images. ERR_FORMAT when it is no object. */
enum err answer_parse_profile(const char *body, size_t len, struct profile *out);

/* "120" or an HTTP date (RFC 9110 10.2.3) as seconds from now, a date of the past as 0; -1 when it
 * is neither or NULL. Never more than INT32_MAX. */
int64_t retry_after_parse(const char *text, int64_t now_unix_s);

#endif
