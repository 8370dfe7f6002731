/* UTF-8: the well-formed byte sequences of RFC 3629, and the famous malformed ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/utf8.h"

static void lengths(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t want;
    } cases[] = {
        {"", 0},
        {"a", 1},
        {"\x7f", 1},
        {"\xc2\x80", 2},
        {"\xdf\xbf!", 2},
        {"\xe0\xa0\x80", 3},
        {"\xed\x9f\xbf", 3},
        {"\xef\xbf\xbf", 3},
        {"\xf0\x90\x80\x80", 4},
        {"\xf4\x8f\xbf\xbf", 4},
        {"\x80", 0},
        {"\xc0\xaf", 0}, /* overlong '/' */
        {"\xc1\xbf", 0},
        {"\xe0\x80\xaf", 0},     /* overlong, three bytes */
        {"\xf0\x80\x80\xaf", 0}, /* overlong, four */
        {"\xed\xa0\x80", 0},     /* surrogate */
        {"\xf4\x90\x80\x80", 0}, /* past U+10FFFF */
        {"\xf5\x80\x80\x80", 0},
        {"\xff", 0},
        {"\xc2", 0}, /* cut */
        {"\xe2\x82", 0},
        {"\xf0\x9f\x8e", 0},
        {"\xc2\x41", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (utf8_len(cases[i].text) != cases[i].want) {
            fail_msg("wrong about case %zu", i);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(lengths)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
