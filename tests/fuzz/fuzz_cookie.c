/* Cookie headers: the input is one header, or several with line feeds between them. A good cookie
 * stands in it as it is, under its own name. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "http/cookie.h"

#define HEADERS_MAX 8

static void check(bool holds)
{
    if (!holds) {
        abort();
    }
}

static void check_get(const struct request *request, const char *all, bool is_secure)
{
    static const char *const names[COOKIE__MAX] = {
        [COOKIE_LOGIN] = "__Host-spotify-login=",
        [COOKIE_SESSION] = "__Host-spotify-session=",
    };
    const struct settings settings = {.secure = is_secure};
    for (enum cookie which = 0; which < COOKIE__MAX; which++) {
        const char *name = names[which] + (is_secure ? 0 : strlen("__Host-"));
        struct secret secret;
        enum cookie_state state = cookie_get(request, &settings, which, &secret);
        check(state == COOKIE_IS_ABSENT || strstr(all, name));
        if (state == COOKIE_IS_GOOD) {
            char value[SECRET_TEXT_LEN + 1];
            struct buf pair = {0};
            secret_format(&secret, value);
            buf_addf(&pair, "%s%s", name, value);
            check(strstr(all, buf_str(&pair)) != NULL);
            buf_clear(&pair);
        }
    }
}

static void check_find(const char *header)
{
    const char *cursor = header;
    const char *value;
    size_t len;
    while ((len = cookie_find(&cursor, "a", &value)) != (size_t)-1) {
        check(value >= header + 2 && value + len <= cursor);
        check(memcmp(value - 2, "a=", 2) == 0 && !memchr(value, ';', len));
    }
    check(*cursor == '\0');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool is_ready;
    if (!is_ready) {
        seal_init();
        is_ready = true;
    }
    char *text = xcalloc(1, size + 1);
    memcpy(text, data, size);
    struct buf variables[HEADERS_MAX] = {0};
    const char *list[HEADERS_MAX + 1] = {NULL};
    char *rest = text;
    for (size_t i = 0; i < HEADERS_MAX && rest; i++) {
        const char *header = strsep(&rest, "\n");
        check_find(header);
        buf_addf(&variables[i], "HTTP_COOKIE=%s", header);
        list[i] = buf_str(&variables[i]);
    }
    char *all = xcalloc(1, size + 1);
    memcpy(all, data, size);
    const struct request request = {.variables = list};
    check_get(&request, all, true);
    check_get(&request, all, false);
    for (size_t i = 0; i < HEADERS_MAX; i++) {
        buf_clear(&variables[i]);
    }
    free(all);
    free(text);
    return 0;
}
