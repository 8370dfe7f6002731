/* Query strings and forms: whatever parses holds no control character and no name twice, and comes
 * out the same when it is encoded and parsed again. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct query query;
    if (query_parse((const char *)data, size, &query) != OK) {
        return 0;
    }
    struct buf text = {0};
    for (size_t i = 0; i < query.count; i++) {
        check_text(query.pairs[i].name);
        check_text(query.pairs[i].value);
        query_add(&text, query.pairs[i].name, query.pairs[i].value);
    }
    struct query again;
    check(query_parse(buf_str(&text), text.len, &again) == OK);
    check(again.count == query.count);
    for (size_t i = 0; i < query.count; i++) {
        const char *value = query_get(&again, query.pairs[i].name);
        check(strcmp(again.pairs[i].name, query.pairs[i].name) == 0);
        check(strcmp(value ? value : "", query.pairs[i].value) == 0);
    }
    buf_clear(&text);
    query_clear(&again);
    query_clear(&query);
    return 0;
}
