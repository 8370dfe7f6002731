/* The guard against open redirects against a small model of a browser: what is accepted must lead
 * to an origin of ours, also as the Location that is made of it, and also after any number of
 * decodings by something in between. The model follows WHATWG URL 4.4 for special schemes, and
 * calls all others foreign. */
#include <arpa/inet.h>
#include <ctype.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http/return_to.h"

static struct origin own = {"https://auth.example.org"};
static struct origin listed[] = {{"https://app.example.net:8443"}, {"http://127.0.0.1:3000"}};
static const struct origin_list allowed = {listed, 2};

static void check(bool holds)
{
    if (!holds) {
        abort();
    }
}

/* Percent-decode once; what is no escape stays. */
static void decode_once(const struct buf *text, struct buf *out)
{
    for (size_t i = 0; i < text->len; i++) {
        unsigned int byte = 0;
        const char *p = text->data + i;
        if (*p == '%' && isxdigit((unsigned char)p[1]) && isxdigit((unsigned char)p[2]) &&
            sscanf(p + 1, "%2x", &byte) == 1) {
            buf_addc(out, (char)byte);
            i += 2;
        } else {
            buf_addc(out, *p);
        }
    }
}

/* Without tabs and line ends, and without controls and spaces around it; with '/' for backslash. */
static void strip(const struct buf *text, struct buf *out)
{
    size_t start = 0;
    size_t end = text->len;
    while (start < end && (unsigned char)text->data[start] <= 0x20) {
        start++;
    }
    while (end > start && (unsigned char)text->data[end - 1] <= 0x20) {
        end--;
    }
    for (size_t i = start; i < end; i++) {
        char c = text->data[i];
        if (c != '\t' && c != '\r' && c != '\n') {
            buf_addc(out, c == '\\' ? '/' : c);
        }
    }
}

/* Read "user@host:port" up to len; write "scheme://host[:port]". */
static void read_authority(const char *scheme, const char *text, size_t len, struct buf *out)
{
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '@') {
            text += i + 1;
            len -= i + 1;
            i = (size_t)-1;
        }
    }
    struct buf raw = {0};
    struct buf host = {0};
    buf_add(&raw, text, len);
    decode_once(&raw, &host);
    for (size_t i = 0; i < host.len; i++) {
        host.data[i] = (char)tolower((unsigned char)host.data[i]);
    }
    char *colon = host.len > 0 ? strrchr(host.data, ':') : NULL;
    long port = strcmp(scheme, "https") == 0 ? 443 : 80;
    bool is_default = true;
    if (colon && !strchr(colon, ']')) {
        *colon = '\0';
        is_default = colon[1] == '\0' || strtol(colon + 1, NULL, 10) == port;
        port = colon[1] ? strtol(colon + 1, NULL, 10) : port;
    }
    struct in_addr address;
    const char *name = buf_str(&host);
    if (isdigit((unsigned char)*name) && inet_aton(name, &address)) {
        name = inet_ntoa(address);
    }
    buf_addf(out, "%s://%s", scheme, name);
    if (!is_default) {
        buf_addf(out, ":%ld", port);
    }
    buf_clear(&raw);
    buf_clear(&host);
}

/* The origin that a browser on a page of our own ends at; "foreign" for schemes but http and https.
 */
static void resolve(const struct buf *location, struct buf *out)
{
    struct buf text = {0};
    strip(location, &text);
    const char *p = buf_str(&text);
    const char *scheme = "https"; /* the page's */
    bool is_relative = true;
    size_t scheme_len = isalpha((unsigned char)*p) ? 1 : 0;
    while (scheme_len > 0 && p[scheme_len] &&
           (isalnum((unsigned char)p[scheme_len]) || strchr("+-.", p[scheme_len]))) {
        scheme_len++;
    }
    if (scheme_len > 0 && p[scheme_len] == ':') {
        if (scheme_len == 5 && strncasecmp(p, "https", 5) == 0) {
            p += 6;
            is_relative = strncmp(p, "//", 2) != 0;
        } else if (scheme_len == 4 && strncasecmp(p, "http", 4) == 0) {
            scheme = "http";
            p += 5;
            is_relative = false;
        } else {
            buf_adds(out, "foreign");
            buf_clear(&text);
            return;
        }
    }
    if (is_relative && strncmp(p, "//", 2) != 0) {
        buf_adds(out, own.text);
    } else {
        p += strspn(p, "/");
        read_authority(scheme, p, strcspn(p, "/?#"), out);
    }
    buf_clear(&text);
}

static void check_stays(const struct buf *location)
{
    struct buf origin = {0};
    resolve(location, &origin);
    bool stays = strcmp(buf_str(&origin), own.text) == 0;
    for (size_t i = 0; i < allowed.count; i++) {
        stays = stays || strcmp(buf_str(&origin), allowed.items[i].text) == 0;
    }
    check(stays);
    buf_clear(&origin);
}

static void check_location(const char *return_to, const char *error)
{
    struct buf location = {0};
    return_to_format(&location, return_to, error);
    for (size_t i = 0; i < location.len; i++) {
        check(location.data[i] > 0x20 && location.data[i] < 0x7f && location.data[i] != '\\');
    }
    check_stays(&location);
    buf_clear(&location);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf text = {0};
    buf_add(&text, data, size);
    if (memchr(data, '\0', size) || !return_to_is_ours(buf_str(&text), &own, &allowed)) {
        buf_clear(&text);
        return 0;
    }
    check_location(text.data, NULL);
    check_location(text.data, "access_denied");
    check_stays(&text);
    for (size_t len = 0; len != text.len;) {
        struct buf decoded = {0};
        len = text.len;
        decode_once(&text, &decoded);
        check_stays(&decoded);
        buf_clear(&text);
        text = decoded;
    }
    buf_clear(&text);
    return 0;
}
