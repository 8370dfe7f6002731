/* Origins and URLs. libcurl's URL API takes URLs apart; what this file adds is distrust: an origin
 * is only made of an authority so plain that libcurl and every browser (WHATWG URL 4.4) must read
 * it alike. Which origins are ours is the settings' business, which paths are is return_to's. */
#include "base/origin.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <curl/curl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/buf.h"

/* Host, port and the brackets of an IPv6 address. Without '%', '@', backslash and bytes beyond
 * ASCII, there is nothing to decode, to skip or to map. */
#define AUTHORITY_CHARACTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:[]"

#define HTTP_PORT 80
#define HTTPS_PORT 443

/* The part as a string of ours; NULL when the URL has none. *bad when it has one that cannot be
 * given. */
static char *take_part(CURLU *handle, CURLUPart part, unsigned int flags, bool *bad)
{
    char *text = NULL;
    switch (curl_url_get(handle, part, &text, flags)) {
    case CURLUE_OK:
        break;
    case CURLUE_NO_SCHEME:
    case CURLUE_NO_USER:
    case CURLUE_NO_PASSWORD:
    case CURLUE_NO_HOST:
    case CURLUE_NO_PORT:
        return NULL;
    default:
        *bad = true;
        return NULL;
    }
    char *copy = xstrdup(text);
    curl_free(text);
    return copy;
}

static char *lower(char *text)
{
    for (char *p = text; p && *p; p++) {
        *p = (char)tolower((unsigned char)*p);
    }
    return text;
}

/* libcurl, like browsers, takes one or three slashes for two, and the path then for the host. */
static bool has_authority(const char *text)
{
    const char *colon = text + strcspn(text, ":/?#");
    return strncmp(colon, "://", 3) == 0 && colon[3] != '\0' && !strchr("/\\?#", colon[3]);
}

enum err url_parse(const char *text, struct url *out)
{
    memset(out, 0, sizeof(*out));
    CURLU *handle = curl_url();
    if (!handle) {
        abort();
    }
    const unsigned int flags = CURLU_NON_SUPPORT_SCHEME | CURLU_PATH_AS_IS;
    bool bad =
        !has_authority(text) || curl_url_set(handle, CURLUPART_URL, text, flags) != CURLUE_OK;
    if (!bad) {
        out->scheme = lower(take_part(handle, CURLUPART_SCHEME, 0, &bad));
        out->user = take_part(handle, CURLUPART_USER, CURLU_URLDECODE, &bad);
        out->password = take_part(handle, CURLUPART_PASSWORD, CURLU_URLDECODE, &bad);
        out->host = lower(take_part(handle, CURLUPART_HOST, 0, &bad));
        out->path = take_part(handle, CURLUPART_PATH, 0, &bad);
        char *port = take_part(handle, CURLUPART_PORT, CURLU_DEFAULT_PORT, &bad);
        out->port = port ? (int)strtol(port, NULL, 10) : 0;
        free(port);
        /* Before version 8.8 libcurl does not tell an empty query or fragment from none. */
        size_t before_fragment = strcspn(text, "#");
        out->has_fragment = text[before_fragment] != '\0';
        out->has_query = memchr(text, '?', before_fragment) != NULL;
    }
    curl_url_cleanup(handle);
    if (bad || !out->scheme || !out->host || !out->path) {
        url_clear(out);
        return ERR_FORMAT;
    }
    return OK;
}

void url_clear(struct url *url)
{
    free(url->scheme);
    free(url->user);
    xfree_secret(url->password);
    free(url->host);
    free(url->path);
    memset(url, 0, sizeof(*url));
}

/* Where the authority of an http(s) URL ends, if it is plain; NULL else. */
static const char *skip_plain_authority(const char *url)
{
    const char *authority;
    if (strncasecmp(url, "https://", 8) == 0) {
        authority = url + 8;
    } else if (strncasecmp(url, "http://", 7) == 0) {
        authority = url + 7;
    } else {
        return NULL;
    }
    const char *end = authority + strspn(authority, AUTHORITY_CHARACTERS);
    return end > authority && (*end == '\0' || strchr("/?#", *end)) ? end : NULL;
}

enum err origin_of_url(const char *url, struct origin *out)
{
    struct url parts;
    if (!skip_plain_authority(url) || url_parse(url, &parts) != OK) {
        return ERR_FORMAT;
    }
    enum err err = ERR_FORMAT;
    if (*parts.host && parts.port > 0 && !parts.user && !parts.password) {
        struct buf text = {0};
        buf_addf(&text, "%s://%s", parts.scheme, parts.host);
        if (parts.port != (strcmp(parts.scheme, "https") == 0 ? HTTPS_PORT : HTTP_PORT)) {
            buf_addf(&text, ":%d", parts.port);
        }
        out->text = buf_take(&text);
        err = OK;
    }
    url_clear(&parts);
    return err;
}

enum err origin_parse(const char *text, struct origin *out)
{
    const char *end = skip_plain_authority(text);
    if (!end || (strcmp(end, "") != 0 && strcmp(end, "/") != 0)) {
        return ERR_FORMAT;
    }
    return origin_of_url(text, out);
}

void origin_clear(struct origin *origin)
{
    free(origin->text);
    origin->text = NULL;
}

bool origin_equal(const struct origin *a, const struct origin *b)
{
    return strcmp(a->text, b->text) == 0;
}

bool origin_in(const struct origin *origin, const struct origin_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        if (origin_equal(origin, &list->items[i])) {
            return true;
        }
    }
    return false;
}

void origin_list_clear(struct origin_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        origin_clear(&list->items[i]);
    }
    free(list->items);
    list->items = NULL;
    list->count = 0;
}

bool origin_is_loopback(const struct origin *origin)
{
    struct url parts;
    if (url_parse(origin->text, &parts) != OK) {
        return false;
    }
    bool is = strcmp(parts.scheme, "http") == 0 && host_is_loopback(parts.host);
    url_clear(&parts);
    return is;
}

bool host_is_loopback(const char *host)
{
    struct in_addr address;
    if (inet_pton(AF_INET, host, &address) == 1) {
        return ntohl(address.s_addr) >> 24 == IN_LOOPBACKNET;
    }
    return strcmp(host, "[::1]") == 0;
}
