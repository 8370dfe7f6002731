/* http/basic.c: Authorization headers of clients that write them as RFC 6749 2.3.1 says, of those
 * that do not encode, and of those that are wrong. */
#include "http/basic.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/seal.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static void good_headers_parse(void **state)
{
    (void)state;
    static const struct {
        const char *header, *name, *secret;
    } cases[] = {
        {"Basic Ym9iOnNlY3JldA==", "bob", "secret"},
        {"Basic Ym9iOnNlY3JldA", "bob", "secret"},
        {"basic Ym9iOnNlY3JldA==", "bob", "secret"},
        {"BASIC   Ym9iOnNlY3JldA==", "bob", "secret"},
        {"Basic Og==", "", ""},
        {"Basic Ym9iOg==", "bob", ""},
        {"Basic OnM=", "", "s"},
        {"Basic YTpiOmM=", "a", "b:c"},
        {"Basic YSUyRGI6YyU1RmQ=", "a-b", "c_d"},    /* a%2Db:c%5Fd */
        {"Basic YSUzYWI6Yyt4JTI1", "a:b", "c x%"},   /* a%3ab:c+x% */
        {"Basic YTrDpMO/", "a", "\xc3\xa4\xc3\xbf"}, /* the one alphabet */
        {"Basic YTrDpMO_", "a", "\xc3\xa4\xc3\xbf"}, /* and the other */
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct basic basic = {0};
        if (basic_parse(cases[i].header, &basic) != OK) {
            fail_msg("%s does not parse", cases[i].header);
        }
        assert_string_equal(basic.name, cases[i].name);
        assert_string_equal(basic.secret, cases[i].secret);
        basic_clear(&basic);
        assert_null(basic.name);
    }
}

static void all_else_is_refused(void **state)
{
    (void)state;
    static const char *const cases[] = {
        NULL,
        "",
        "Basic",
        "Basic ",
        "BasicYm9iOnNlY3JldA==",
        "Bearer Ym9iOnNlY3JldA==",
        "Basic\tYm9iOnNlY3JldA==",
        "Basic Ym9i",                /* bob */
        "Basic Ym9iOnNlY3JldA=",     /* half the padding */
        "Basic Ym9iOnNlY3JldA== ",   /* a blank behind it */
        "Basic Ym9iOnNlY3JldA==, x", /* a list */
        "Basic Ym9i=OnNl",
        "Basic Y",
        "Basic ====",
        "Basic Ym9iOnNlY3J\xc3\xa4",
        "Basic YTolenp6", /* a:%zzz */
        "Basic YTpiJQ==", /* a:b% */
        "Basic JTpi",     /* %:b */
        "Basic YTpiAGM=", /* a:b NUL c */
        "Basic YQBiOmM=", /* a NUL b:c */
        "Basic YTolMDA=", /* a:%00 */
        "Basic YTpiCg==", /* a:b and a line's end */
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct basic basic = {0};
        if (basic_parse(cases[i], &basic) != ERR_FORMAT) {
            fail_msg("%s is taken", cases[i]);
        }
        assert_null(basic.name);
        assert_null(basic.secret);
    }
}

static void too_long_is_refused_not_cut(void **state)
{
    (void)state;
    static char header[BASIC_MAX + 8] = "Basic YTpi"; /* a:b, and then many times abc */
    struct basic basic = {0};
    while (strlen(header) + 4 <= BASIC_MAX) {
        strcat(header, "YWJj");
    }
    assert_int_equal(basic_parse(header, &basic), OK);
    assert_int_equal(strlen(basic.secret), (strlen(header) - 6) / 4 * 3 - 2);
    basic_clear(&basic);
    strcat(header, "YWJj");
    assert_int_equal(basic_parse(header, &basic), ERR_FORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_headers_parse),
        cmocka_unit_test(all_else_is_refused),
        cmocka_unit_test(too_long_is_refused_not_cut),
    };
    seal_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
