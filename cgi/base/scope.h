/* Scopes: space-separated lists of scope tokens (RFC 6749 3.3). */
#ifndef BASE_SCOPE_H
#define BASE_SCOPE_H

#include <stdbool.h>

#include "base/buf.h"

/* True when text holds only scope tokens and single spaces between them; "" is fine. */
bool scope_is_wellformed(const char *text);

/* True when every token of wanted is among the tokens of granted. Order does not matter. */
bool scope_includes(const char *granted, const char *wanted);

/* Append to out each token of from that is in only and not in but (NULL: any; none), and that out
 * does not have yet; out holds a scope list and nothing else. */
void scope_add(struct buf *out, const char *from, const char *only, const char *but);

#endif
