/* Authorization headers: what parses holds no control character, and says the same when it is
 * written again. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/seal.h"
#include "http/basic.h"
#include "http/query.h"

static void check(bool holds)
{
    if (!holds) {
        abort();
    }
}

static void check_text(const char *text)
{
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        check(*p >= 0x20 && *p != 0x7f);
    }
}

/* "name:secret", form-encoded, as query_add writes a value behind its "=". */
static void add_encoded(struct buf *out, const char *text)
{
    struct buf pair = {0};
    query_add(&pair, "", text);
    buf_adds(out, buf_str(&pair) + 1);
    buf_clear(&pair);
}

static void check_again(const struct basic *basic)
{
    struct buf text = {0};
    struct buf header = {0};
    struct basic again;
    add_encoded(&text, basic->name);
    buf_addc(&text, ':');
    add_encoded(&text, basic->secret);
    buf_adds(&header, "Basic ");
    base64url_add(&header, text.data, text.len);
    if (header.len <= BASIC_MAX) {
        check(basic_parse(buf_str(&header), &again) == OK);
        check(strcmp(again.name, basic->name) == 0 && strcmp(again.secret, basic->secret) == 0);
        basic_clear(&again);
    }
    buf_clear(&header);
    buf_clear(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool is_ready;
    if (!is_ready) {
        seal_init();
        is_ready = true;
    }
    char *header = xstrndup((const char *)data, size);
    struct basic basic;
    if (basic_parse(header, &basic) == OK) {
        check_text(basic.name);
        check_text(basic.secret);
        check_again(&basic);
        basic_clear(&basic);
    }
    free(header);
    return 0;
}
