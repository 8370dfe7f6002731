/* Is one whole FastCGI request here? (FastCGI 1.0 section 3, 5, 6.2.) A pure function over bytes,
 * so that libfcgi, which reads in a blocking way, only ever sees requests that need no waiting. */
#ifndef FRONT_FRAMING_H
#define FRONT_FRAMING_H

#include <stddef.h>

#define FRAMING_PARAMS_MAX 65536
#define FRAMING_STDIN_MAX 65536
/* Enough for both streams at their limits in records of a sensible size, with padding. */
#define FRAMING_REQUEST_MAX 262144

enum framing {
    FRAMING_WHOLE,   /* exactly one request, and nothing after it */
    FRAMING_PARTIAL, /* the beginning of one: *needed is the least number of bytes to look again at
                      */
    FRAMING_BROKEN   /* close the connection */
};

/* bytes[0..len): what has arrived. Whole is: BEGIN_REQUEST (version 1, responder), PARAMS records
 * to the empty one, STDIN records to the empty one, all of one request id that is not 0; and the
 * PARAMS stream is well-formed name-value pairs (3.4), without NUL. Any other record, a second
 * BEGIN_REQUEST, bytes after the end, or a stream past its limit is broken. */
enum framing framing_scan(const unsigned char *bytes, size_t len, size_t *needed);

#endif
