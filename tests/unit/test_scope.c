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

static void test_add(void **state)
{
    static const struct {
        const char *before;
        const char *from;
        const char *only;
        const char *but;
        const char *want;
    } cases[] = {
        {"", "", NULL, NULL, ""},
        {"", "a b", NULL, NULL, "a b"},
        {"a b", "b c a c", NULL, NULL, "a b c"},
        {"ab", "a b", NULL, NULL, "ab a b"},
        {"", "a b c", "c a", NULL, "a c"},
        {"", "a b c", NULL, "b", "a c"},
        {"", "a b c", "a b", "b", "a"},
        {"x", "a", "", NULL, "x"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct buf out = {0};
        buf_adds(&out, cases[i].before);
        scope_add(&out, cases[i].from, cases[i].only, cases[i].but);
        assert_string_equal(buf_str(&out), cases[i].want);
        buf_clear(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wellformed),
        cmocka_unit_test(test_includes),
        cmocka_unit_test(test_add),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
