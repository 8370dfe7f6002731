/* The address behind the host name in REDIS_URL. hiredis would look names up itself, blocking the
 * loop for as long as that takes: with a name server that is away, seconds at each attempt. */
#ifndef STORE_REDIS_ADDRESS_H
#define STORE_REDIS_ADDRESS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <uv.h>

#include "base/buf.h"

#define REDIS_HOST_MAX 256

/* A host, by name or address (IPv6 without brackets), and a port. */
struct redis_place {
    char host[REDIS_HOST_MAX];
    int port;
};

/* host must be shorter than REDIS_HOST_MAX. */
struct redis_place redis_place(const char *host, int port);
bool redis_place_equal(const struct redis_place *a, const struct redis_place *b);
/* Append "host:port", an IPv6 address in brackets. */
void redis_place_name(const struct redis_place *place, struct buf *out);

struct redis_address {
    const char *host;            /* borrowed */
    char text[INET6_ADDRSTRLEN]; /* "" while unknown */
    struct redis_lookup *lookup; /* under way, or NULL */
};

/* Looks host up, blocking, once: for the start of a process. */
void redis_address_init(struct redis_address *address, const char *host);

/* The same without blocking: text is there at once for an address, later for a name. */
void redis_address_begin(struct redis_address *address, const char *host, uv_loop_t *loop);

/* Look the host up again, off the loop; text changes when the answer is there. Does nothing for an
 * address that is no name, and while a look-up is under way. */
void redis_address_renew(struct redis_address *address, uv_loop_t *loop);

/* Forget a look-up under way. */
void redis_address_clear(struct redis_address *address);

#endif
