/* Names are looked up in libuv's threads. A failed look-up keeps the address known so far. */
#include "store/redis_address.h"

#include <assert.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>

struct redis_lookup {
    uv_getaddrinfo_t request;
    struct redis_address *address; /* NULL: nobody is interested any more */
};

static const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};

struct redis_place redis_place(const char *host, int port)
{
    struct redis_place place = {.port = port};
    size_t len = strlen(host);
    assert(len < REDIS_HOST_MAX);
    memcpy(place.host, host, len);
    return place;
}

bool redis_place_equal(const struct redis_place *a, const struct redis_place *b)
{
    return a->port == b->port && strcmp(a->host, b->host) == 0;
}

void redis_place_name(const struct redis_place *place, struct buf *out)
{
    buf_addf(out, strchr(place->host, ':') ? "[%s]:%d" : "%s:%d", place->host, place->port);
}

static bool is_numeric(const char *host)
{
    struct in6_addr ignored;
    return uv_inet_pton(AF_INET, host, &ignored) == 0 ||
           uv_inet_pton(AF_INET6, host, &ignored) == 0;
}

/* An IPv4 address where there is one: what listens on localhost often does so on that alone. */
static void take_answer(struct redis_address *address, const struct addrinfo *answer)
{
    const struct addrinfo *chosen = answer;
    for (const struct addrinfo *info = answer; info; info = info->ai_next) {
        if (info->ai_family == AF_INET) {
            chosen = info;
            break;
        }
    }
    if (chosen) {
        getnameinfo(chosen->ai_addr, chosen->ai_addrlen, address->text, sizeof(address->text), NULL,
                    0, NI_NUMERICHOST);
    }
}

void redis_address_init(struct redis_address *address, const char *host)
{
    struct addrinfo *answer = NULL;
    *address = (struct redis_address){.host = host};
    if (getaddrinfo(host, NULL, &hints, &answer) == 0) {
        take_answer(address, answer);
        freeaddrinfo(answer);
    }
}

static void on_answer(uv_getaddrinfo_t *request, int status, struct addrinfo *answer)
{
    struct redis_lookup *lookup = request->data;
    if (lookup->address) {
        lookup->address->lookup = NULL;
        if (status == 0) {
            take_answer(lookup->address, answer);
        }
    }
    uv_freeaddrinfo(answer);
    free(lookup);
}

void redis_address_renew(struct redis_address *address, uv_loop_t *loop)
{
    if (!address->host || address->lookup || is_numeric(address->host)) {
        return;
    }
    struct redis_lookup *lookup = xcalloc(1, sizeof(*lookup));
    lookup->address = address;
    lookup->request.data = lookup;
    if (uv_getaddrinfo(loop, &lookup->request, on_answer, address->host, NULL, &hints)) {
        free(lookup);
        return;
    }
    address->lookup = lookup;
}

void redis_address_begin(struct redis_address *address, const char *host, uv_loop_t *loop)
{
    *address = (struct redis_address){.host = host};
    if (is_numeric(host)) {
        memcpy(address->text, host, strlen(host) + 1);
    } else {
        redis_address_renew(address, loop);
    }
}

void redis_address_clear(struct redis_address *address)
{
    if (address->lookup) {
        address->lookup->address = NULL;
        uv_cancel((uv_req_t *)&address->lookup->request);
        address->lookup = NULL;
    }
}
