/* Scope lists: which are well-formed, and which includes which. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/scope.h"

static void test_wellformed(void **state)
{
    static const struct {
        const char *text;
        bool want;
    } cases[] = {
        {"", true},
        {"streaming", true},
        {"user-read-private user-read-email", true},
        {" streaming", false},
        {"streaming ", false},
        {"a  b", false},
        {"a\"b", false},
        {"a\\b", false},
        {"a\tb", false},
        {"caf\xc3\xa9", false},
        {"!#[]~", true},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(scope_is_wellformed(cases[i].text), cases[i].want);
    }
}

static void test_includes(void **state)
{
    static const struct {
        const char *granted;
        const char *wanted;
        bool want;
    } cases[] = {
        {"a b c", "", true},   {"a b c", "c a", true}, {"a b c", "a b c", true},
        {"a b c", "d", false}, {"", "a", false},       {"ab", "a", false},
        {"a", "ab", false},    {"a b", "a a", true},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(scope_includes(cases[i].granted, cases[i].wanted), cases[i].want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wellformed),
        cmocka_unit_test(test_includes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
