/* Origins (RFC 6454) and URLs, parsed with libcurl's URL API. */
#ifndef BASE_ORIGIN_H
#define BASE_ORIGIN_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

/* Canonical text "https://host[:port]": lower case, no default port. */
struct origin {
    char *text; /* owned */
};

struct origin_list {
    struct origin *items; /* owned */
    size_t count;
};

/* The parts of an absolute URL that callers ask about. All owned; freed with url_clear. */
struct url {
    char *scheme; /* lower case */
    char *user;   /* NULL: none. Decoded. */
    char *password;
    char *host; /* lower case; an IPv6 address keeps its brackets */
    int port;   /* the scheme's default where not given; 0 where it has none */
    char *path; /* "/" at least, raw */
    bool has_query;
    bool has_fragment;
};

/* Parse an absolute URL of any scheme, with two slashes and a host. ERR_FORMAT when libcurl refuses
 * it. */
enum err url_parse(const char *text, struct url *out);
void url_clear(struct url *url);

/* Parse an origin as it stands in a setting or an Origin header: http or https, no user, path
 * (but "" or "/"), query or fragment. ERR_FORMAT else. */
enum err origin_parse(const char *text, struct origin *out);

/* The origin of an http(s) URL without user or password. ERR_FORMAT else. */
enum err origin_of_url(const char *url, struct origin *out);
void origin_clear(struct origin *origin);

bool origin_equal(const struct origin *a, const struct origin *b);
bool origin_in(const struct origin *origin, const struct origin_list *list);
void origin_list_clear(struct origin_list *list);

/* True for "http" origins whose host is in 127.0.0.0/8 or is [::1]: RFC 8252 7.3's loopback. The
 * name localhost is not one. */
bool origin_is_loopback(const struct origin *origin);
bool host_is_loopback(const char *host);

#endif
