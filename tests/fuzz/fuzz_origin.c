/* Origins and URLs: an origin is plain text in canonical form, which parses to itself and stays the
 * same with a path behind it. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/origin.h"

static void check(bool holds)
{
    if (!holds) {
        abort();
    }
}

static void check_origin(const struct origin *origin)
{
    check(strncmp(origin->text, "http://", 7) == 0 || strncmp(origin->text, "https://", 8) == 0);
    const char *host = strstr(origin->text, "://") + 3;
    check(*host && strspn(host, "abcdefghijklmnopqrstuvwxyz0123456789.-_:[]") == strlen(host));
    origin_is_loopback(origin);

    struct origin again;
    check(origin_parse(origin->text, &again) == OK);
    check(origin_equal(origin, &again));
    origin_clear(&again);

    struct buf url = {0};
    buf_addf(&url, "%s/a@b//c?d#e", origin->text);
    check(origin_of_url(buf_str(&url), &again) == OK);
    check(origin_equal(origin, &again));
    origin_clear(&again);
    buf_clear(&url);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = xcalloc(1, size + 1);
    memcpy(text, data, size);
    struct url url;
    if (url_parse(text, &url) == OK) {
        check(url.scheme && url.host && url.path);
        check(url.port >= 0 && url.port <= 65535);
        host_is_loopback(url.host);
        url_clear(&url);
    }
    struct origin origin;
    if (origin_of_url(text, &origin) == OK) {
        check_origin(&origin);
        origin_clear(&origin);
    }
    if (origin_parse(text, &origin) == OK) {
        check_origin(&origin);
        origin_clear(&origin);
    }
    free(text);
    return 0;
}
