/* Where a login may end: the check against open redirects (RFC 9700 4.11). */
#ifndef HTTP_RETURN_TO_H
#define HTTP_RETURN_TO_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/origin.h"

/* True when return_to (at most RETURN_TO_MAX bytes) is a path on the own origin, or an absolute URL
 * whose origin is own or in allowed, by the rule of API.md 3. Pure. */
bool return_to_is_ours(const char *return_to, const struct origin *own,
                       const struct origin_list *allowed);

/* Append return_to as a Location: non-ASCII bytes percent-encoded, and, with error not NULL, the
 * query parameter error=ERROR put before any fragment. */
void return_to_format(struct buf *out, const char *return_to, const char *error);

#endif
