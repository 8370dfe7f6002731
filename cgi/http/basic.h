/* Who a client says it is, by HTTP Basic (RFC 7617), form-encoded within (RFC 6749 2.3.1). */
#ifndef HTTP_BASIC_H
#define HTTP_BASIC_H

#include "base/err.h"

/* Longest Authorization header that is looked at. */
#define BASIC_MAX 2048

struct basic {
    char *name;   /* owned, decoded; may be "" */
    char *secret; /* owned, decoded; may be "" */
};

/* Read an Authorization header. ERR_FORMAT: NULL, another scheme, too long, no base64 (either
 * alphabet, padded or not), no colon in it, a bad %-escape or a control character. Nothing to clear
 * then. */
enum err basic_parse(const char *header, struct basic *out);
void basic_clear(struct basic *basic);

#endif
