/* Query strings and forms: decoded once, strictly, and encoded back. */
#include "http/query.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static void test_decoding(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t count;
        const char *name, *value; /* of the last pair */
    } cases[] = {
        {"", 0, NULL, NULL},
        {"&", 0, NULL, NULL},
        {"a=b", 1, "a", "b"},
        {"a=b&c=d", 2, "c", "d"},
        {"&&a=b&&c=d&", 2, "c", "d"},
        {"a", 1, "a", ""},
        {"a=", 1, "a", ""},
        {"=b", 1, "", "b"},
        {"=", 1, "", ""},
        {"a=b=c", 1, "a", "b=c"},
        {"a=b%3Dc%26d", 1, "a", "b=c&d"},
        {"a=x+y%20z%2Bw", 1, "a", "x y z+w"},
        {"a=%2f%2F", 1, "a", "//"},
        {"a=%252f", 1, "a", "%2f"},
        {"a=caf%C3%A9", 1, "a", "caf\xc3\xa9"},
        {"a=caf\xc3\xa9", 1, "a", "caf\xc3\xa9"},
        {"%61+b=c", 1, "a b", "c"},
        {"a;b=c", 1, "a;b", "c"},
        {"a&b&c", 3, "c", ""},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct query query;
        if (query_parse(cases[i].text, strlen(cases[i].text), &query) != OK) {
            fail_msg("refused: %s", cases[i].text);
        }
        assert_int_equal(query.count, cases[i].count);
        if (query.count > 0) {
            assert_string_equal(query.pairs[query.count - 1].name, cases[i].name);
            assert_string_equal(query.pairs[query.count - 1].value, cases[i].value);
        }
        query_clear(&query);
        assert_null(query.text);
    }
}

static void test_culprit(void **state)
{
    (void)state;
    static const struct {
        const char *text, *culprit;
    } cases[] = {
        {"a=b&code=1&code=2", "code"},
        {"code=1&c%6fde=2", "code"},
        {"code=%zz", "code"},
        {"code=a%00b", "code"},
        {"co%zzde=1", ""},
        {"=1&=2", ""},
        {"a_name_of_thirty_one_characters=%&a=b", "a_name_of_thirty_one_characters"},
        {"a_name_of_thirty_two_characters_=%&a=b", ""},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct query query;
        assert_int_equal(query_parse(cases[i].text, strlen(cases[i].text), &query),
                         ERR_INVALID_REQUEST);
        assert_string_equal(query.culprit, cases[i].culprit);
    }
}

static void test_refused(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "a=%zz", "a=%",     "a=%4",     "a=%4g", "%=b",     "a=b%",      "a=%00",
        "%00=b", "a=%0a",   "a=%0D%0A", "a=%7f", "a=\nb",   "a=\x01",    "a=b\x7f",
        "a=%1b", "a=b&a=c", "a=b&a=b",  "a=&a=", "a&a",     "a=b&%61=c", "b=&a=1&b=",
        "=a&=b", "a=%-1",   "a=%+1",    "a=% 1", "a=%0x41", "a=%u0041",  "a=%%41",
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct query query;
        if (query_parse(cases[i], strlen(cases[i]), &query) != ERR_INVALID_REQUEST) {
            fail_msg("accepted: %s", cases[i]);
        }
        assert_null(query.text);
    }
}

static void test_raw_nul_is_refused(void **state)
{
    (void)state;
    struct query query;
    assert_int_equal(query_parse("a=b\0c", 5, &query), ERR_INVALID_REQUEST);
    assert_int_equal(query_parse("a\0=b", 4, &query), ERR_INVALID_REQUEST);
}

static void test_length_is_kept_to(void **state)
{
    (void)state;
    struct query query;
    assert_int_equal(query_parse("a=bcd&x=%zz", 4, &query), OK);
    assert_string_equal(query_get(&query, "a"), "bc");
    query_clear(&query);
    /* The escape is complete only beyond the length. */
    assert_int_equal(query_parse("a=%41", 4, &query), ERR_INVALID_REQUEST);
}

static void test_at_most_so_many_pairs(void **state)
{
    (void)state;
    struct buf text = {0};
    for (int i = 0; i < QUERY_PAIRS_MAX; i++) {
        buf_addf(&text, "&n%d", i);
    }
    struct query query;
    assert_int_equal(query_parse(text.data, text.len, &query), OK);
    assert_int_equal(query.count, QUERY_PAIRS_MAX);
    query_clear(&query);
    buf_adds(&text, "&more");
    assert_int_equal(query_parse(text.data, text.len, &query), ERR_INVALID_REQUEST);
    buf_clear(&text);
}

static void test_get(void **state)
{
    (void)state;
    const char *text = "code=abc&empty=&flag&state=x%20y";
    struct query query;
    assert_int_equal(query_parse(text, strlen(text), &query), OK);
    assert_string_equal(query_get(&query, "code"), "abc");
    assert_string_equal(query_get(&query, "state"), "x y");
    assert_null(query_get(&query, "empty"));
    assert_null(query_get(&query, "flag"));
    assert_null(query_get(&query, "Code"));
    query_clear(&query);
    assert_null(query_get(&query, "code"));
}

/* Rule 28 of contract C.3: a long code with every kind of character is decoded once and encoded
 * once. */
static void test_code_comes_out_as_it_went_in(void **state)
{
    (void)state;
    struct buf code = {0};
    while (code.len < 2048) {
        buf_adds(&code, "aZ09-._~+/=%&# ");
    }
    struct buf text = {0};
    query_add(&text, "code", buf_str(&code));
    struct query query;
    assert_int_equal(query_parse(text.data, text.len, &query), OK);
    assert_string_equal(query_get(&query, "code"), code.data);
    query_clear(&query);
    buf_clear(&text);
    buf_clear(&code);
}

static void test_add(void **state)
{
    (void)state;
    struct buf out = {0};
    query_add(&out, "a", "b c+d");
    query_add(&out, "e&", "~._-/\xc3\xa9%");
    assert_string_equal(buf_str(&out), "a=b%20c%2Bd&e%26=~._-%2F%C3%A9%25");
    buf_clear(&out);
    buf_adds(&out, "https://example.com/?");
    query_add(&out, "a", "");
    query_add(&out, "b", "1");
    assert_string_equal(buf_str(&out), "https://example.com/?a=&b=1");
    buf_clear(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decoding),
        cmocka_unit_test(test_culprit),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_raw_nul_is_refused),
        cmocka_unit_test(test_length_is_kept_to),
        cmocka_unit_test(test_at_most_so_many_pairs),
        cmocka_unit_test(test_get),
        cmocka_unit_test(test_code_comes_out_as_it_went_in),
        cmocka_unit_test(test_add),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
