/* Scopes: space-separated lists of scope tokens (RFC 6749 3.3). */
#ifndef BASE_SCOPE_H
#define BASE_SCOPE_H

#include <stdbool.h>

/* True when text holds only scope tokens and single spaces between them; "" is fine. */
bool scope_is_wellformed(const char *text);

/* True when every token of wanted is among the tokens of granted. Order does not matter. */
bool scope_includes(const char *granted, const char *wanted);

#endif
