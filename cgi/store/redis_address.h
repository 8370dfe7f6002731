/* The address behind the host name in REDIS_URL. hiredis would look names up itself, blocking the
 * loop for as long as that takes: with a name server that is away, seconds at each attempt. */
#ifndef STORE_REDIS_ADDRESS_H
#define STORE_REDIS_ADDRESS_H

#include <netinet/in.h>
#include <uv.h>

struct redis_address {
    const char *host;            /* borrowed */
    char text[INET6_ADDRSTRLEN]; /* "" while unknown */
    struct redis_lookup *lookup; /* under way, or NULL */
};

/* Looks host up, blocking, once: for the start of a process. */
void redis_address_init(struct redis_address *address, const char *host);

/* Look the host up again, off the loop; text changes when the answer is there. Does nothing for an
 * address that is no name, and while a look-up is under way. */
void redis_address_renew(struct redis_address *address, uv_loop_t *loop);

/* Forget a look-up under way. */
void redis_address_clear(struct redis_address *address);

#endif
