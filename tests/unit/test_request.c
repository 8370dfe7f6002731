/* What a request says: variables, parameters, which answer it prefers, whether it is a prefetch. */
#include "http/request.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static void test_variables(void **state)
{
    (void)state;
    static const char *const variables[] = {
        "HTTP_COOKIES=no", "HTTP_COOKIE=a=1", "HTTP_ACCEPT=", "HTTP_COOKIE=b=2", "HTTP", NULL,
    };
    const struct request request = {.variables = variables};
    assert_string_equal(request_variable(&request, "HTTP_COOKIE"), "a=1");
    assert_string_equal(request_variable_at(&request, "HTTP_COOKIE", 1), "b=2");
    assert_null(request_variable_at(&request, "HTTP_COOKIE", 2));
    assert_string_equal(request_variable(&request, "HTTP_ACCEPT"), "");
    assert_null(request_variable(&request, "HTTP_ORIGIN"));
    assert_null(request_variable(&request, "HTTP"));
    assert_true(request_variable_repeated(&request, "HTTP_COOKIE"));
    assert_false(request_variable_repeated(&request, "HTTP_ACCEPT"));
    assert_false(request_variable_repeated(&request, "HTTP_ORIGIN"));
}

static void test_params(void **state)
{
    (void)state;
    const struct request request = {.params = {{"code", "abc"}, {"state", NULL}}};
    assert_string_equal(request_param(&request, "code"), "abc");
    assert_null(request_param(&request, "state"));
    assert_null(request_param(&request, "error"));
}

static void test_methods(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum method want;
    } cases[] = {
        {"GET", METHOD_GET},         {"HEAD", METHOD_HEAD}, {"POST", METHOD_POST},
        {"OPTIONS", METHOD_OPTIONS}, {"get", METHOD_OTHER}, {"DELETE", METHOD_OTHER},
        {"OTHER", METHOD_OTHER},     {"", METHOD_OTHER},    {NULL, METHOD_OTHER},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        assert_int_equal(method_parse(cases[i].text), cases[i].want);
    }
    assert_string_equal(method_name(METHOD_POST), "POST");
    assert_string_equal(method_name(METHOD_OTHER), "OTHER");
}

static void test_prefers_json(void **state)
{
    (void)state;
    static const struct {
        const char *accept;
        bool want;
    } cases[] = {
        {"", false},
        {"*/*", false},
        {"application/json", true},
        {"Application/JSON", true},
        {"text/html", false},
        {"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", false},
        {"application/json, text/plain, */*", false},
        {"application/json, */*;q=0.5", true},
        {"application/json;q=0.5, text/html;q=0.4", true},
        {"application/json;q=0.5,text/html;q=0.51", false},
        {"application/json , text/html ; q=0.999", true},
        {"application/*, text/*;q=0.1", true},
        {"application/*, */*;q=0.1", true},
        {"application/json;q=0, */*", false},
        {"text/html;q=0, */*", true},
        {"text/*;q=0.2, text/html, application/json;q=0.5", false},
        {"application/json;charset=utf-8;q=0.9", true},
        {"application/json;Q=0", false},
        {"application/json;q=2", false},
        {"application/json;q=-1", false},
        {"application/json;q=1.001", false},
        {"application/json;q=0.1234", false},
        {"application/json;q=", false},
        {"application/problem+json", false},
        {"application/jsonp", false},
        {",,;;q=1,application/json", true},
        {"application/json;", true},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char variable[128] = "HTTP_ACCEPT=";
        strcat(variable, cases[i].accept);
        const char *const variables[] = {variable, NULL};
        const struct request request = {.variables = variables};
        if (request_prefers_json(&request) != cases[i].want) {
            fail_msg("wrong: %s", cases[i].accept);
        }
    }
    const struct request none = {.variables = (const char *const[]){NULL}};
    assert_false(request_prefers_json(&none));
}

static void test_prefers_json_over_all_accept_headers(void **state)
{
    (void)state;
    static const char *const variables[] = {
        "HTTP_ACCEPT=text/html;q=0.3",
        "HTTP_ACCEPT=application/json;q=0.4",
        NULL,
    };
    const struct request request = {.variables = variables};
    assert_true(request_prefers_json(&request));
}

static void test_prefetch(void **state)
{
    (void)state;
    static const struct {
        const char *variable;
        bool want;
    } cases[] = {
        {"HTTP_SEC_PURPOSE=prefetch", true},
        {"HTTP_SEC_PURPOSE=prefetch;prerender", true},
        {"HTTP_SEC_PURPOSE=prefetch; anonymous-client-ip", true},
        {"HTTP_SEC_PURPOSE=Prerender", true},
        {"HTTP_PURPOSE=prefetch", true},
        {"HTTP_X_PURPOSE=preview", true},
        {"HTTP_X_PURPOSE=prefetch", true},
        {"HTTP_X_MOZ=prefetch", true},
        {"HTTP_SEC_PURPOSE=", false},
        {"HTTP_SEC_PURPOSE=prefetcher", false},
        {"HTTP_SEC_PURPOSE=;", false},
        {"HTTP_X_MOZ=livebookmarks", false},
        {"HTTP_ACCEPT=prefetch", false},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        const char *const variables[] = {"HTTP_SEC_PURPOSE=other", cases[i].variable, NULL};
        const struct request request = {.variables = variables};
        if (request_is_prefetch(&request) != cases[i].want) {
            fail_msg("wrong: %s", cases[i].variable);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_variables),
        cmocka_unit_test(test_params),
        cmocka_unit_test(test_methods),
        cmocka_unit_test(test_prefers_json),
        cmocka_unit_test(test_prefers_json_over_all_accept_headers),
        cmocka_unit_test(test_prefetch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
