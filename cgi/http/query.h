/* application/x-www-form-urlencoded (WHATWG URL 5.1; RFC 6749 appendix B): query strings and forms.
 */
#ifndef HTTP_QUERY_H
#define HTTP_QUERY_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"

#define QUERY_PAIRS_MAX 64
#define QUERY_NAME_MAX 31 /* of a parameter that we know */

struct query_pair {
    char *name;  /* decoded, borrowed from the query */
    char *value; /* decoded, "" when there was no = */
};

struct query {
    size_t count;
    struct query_pair pairs[QUERY_PAIRS_MAX];
    char *text; /* owned: what the pairs point into */
    /* When it does not parse: the name that occurs twice or has a malformed value; "": not known,
     * or longer than a name of ours. */
    char culprit[QUERY_NAME_MAX + 1];
};

/* Parse len bytes of a query string or form. ERR_INVALID_REQUEST: a bad %-escape, a NUL or other
 * control character (escaped or not), a name that occurs twice, or more than QUERY_PAIRS_MAX pairs.
 * Nothing to clear then; out->culprit may say whose fault it is. */
enum err query_parse(const char *text, size_t len, struct query *out);
void query_clear(struct query *query);

/* The value of name, NULL when it is absent or empty (RFC 6749 3.1). Borrowed. */
const char *query_get(const struct query *query, const char *name);

/* Decode the len bytes of text to *out, which has room for as many and a NUL, and end it with that
 * NUL, behind which *out then stands. False for a bad %-escape or a control character. */
bool query_decode(const char *text, size_t len, char **out);

/* Append "name=value", percent-encoded but for unreserved characters (RFC 3986 2.3), with '&'
 * before it unless out is empty or ends in '?'. */
void query_add(struct buf *out, const char *name, const char *value);

#endif
