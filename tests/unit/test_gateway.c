/* CGI variables to a request; numbers to a status line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/seal.h"
#include "front/gateway.h"

static void test_method_is_required(void **state)
{
    (void)state;
    struct request request;
    const char *const none[] = {"SCRIPT_NAME=/", NULL};
    const char *const empty[] = {"REQUEST_METHOD=", NULL};
    const char *const post[] = {"REQUEST_METHOD=POST", NULL};
    assert_int_equal(gateway_read(none, &request), ERR_INVALID_REQUEST);
    assert_int_equal(gateway_read(empty, &request), ERR_INVALID_REQUEST);
    assert_int_equal(gateway_read(post, &request), OK);
    assert_int_equal(request.method, METHOD_POST);
    assert_string_equal(request.route, "");
    assert_string_equal(request.query, "");
    assert_string_equal(request.body, "");
}

static void test_route(void **state)
{
    (void)state;
    static const struct {
        const char *path_info;
        const char *script_name;
        const char *want;
    } table[] = {
        {"PATH_INFO=/a", "SCRIPT_NAME=/b", "/a"},
        {"PATH_INFO=", "SCRIPT_NAME=/b", "/b"},
        {"OTHER=", "SCRIPT_NAME=/b", "/b"},
        {"PATH_INFO=/a", "OTHER=", "/a"},
        {"OTHER=", "OTHER=", ""},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct request request;
        const char *const variables[] = {"REQUEST_METHOD=GET", table[i].path_info,
                                         table[i].script_name, "QUERY_STRING=a=b", NULL};
        assert_int_equal(gateway_read(variables, &request), OK);
        assert_string_equal(request.route, table[i].want);
        assert_string_equal(request.query, "a=b");
    }
}

/* An id that could spoil a log line is replaced by one of our own. */
static void test_request_id(void **state)
{
    (void)state;
#define SIXTY_FOUR "0123456789abcdef0123456789ABCDEF0123456789abcdef0123456789ABC-_z"
    static const struct {
        const char *given;
        int kept;
    } table[] = {
        {"REQUEST_ID=abc", 1},
        {"REQUEST_ID=" SIXTY_FOUR, 1},
        {"REQUEST_ID=" SIXTY_FOUR "x", 0},
        {"REQUEST_ID=", 0},
        {"REQUEST_ID=a b", 0},
        {"REQUEST_ID=a\nb", 0},
        {"REQUEST_ID=a\"b", 0},
        {"OTHER=abc", 0},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct request request;
        const char *const variables[] = {"REQUEST_METHOD=GET", table[i].given, NULL};
        assert_int_equal(gateway_read(variables, &request), OK);
        if (table[i].kept) {
            assert_string_equal(request.id, strchr(table[i].given, '=') + 1);
        } else {
            assert_int_equal(strlen(request.id), SECRET_TEXT_LEN);
        }
    }
}

static void test_content_length(void **state)
{
    (void)state;
    static const struct {
        const char *variables[2];
        enum err want;
        size_t length;
    } table[] = {
        {{"OTHER=3"}, OK, 0},
        {{"CONTENT_LENGTH="}, OK, 0},
        {{"CONTENT_LENGTH=0"}, OK, 0},
        {{"CONTENT_LENGTH=003"}, OK, 3},
        {{"CONTENT_LENGTH=65536"}, OK, 65536},
        {{"CONTENT_LENGTH=65537"}, ERR_TOO_LARGE, 0},
        {{"CONTENT_LENGTH=18446744073709551619"}, ERR_TOO_LARGE, 0},
        {{"CONTENT_LENGTH=99999999999x"}, ERR_INVALID_REQUEST, 0},
        {{"CONTENT_LENGTH=-1"}, ERR_INVALID_REQUEST, 0},
        {{"CONTENT_LENGTH=+1"}, ERR_INVALID_REQUEST, 0},
        {{"CONTENT_LENGTH= 1"}, ERR_INVALID_REQUEST, 0},
        {{"CONTENT_LENGTH=1.0"}, ERR_INVALID_REQUEST, 0},
        {{"CONTENT_LENGTH=3", "CONTENT_LENGTH=3"}, ERR_INVALID_REQUEST, 0},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        const char *const variables[] = {table[i].variables[0], table[i].variables[1], NULL};
        struct request request = {.variables = variables};
        size_t length = 0;
        assert_int_equal(gateway_content_length(&request, &length), table[i].want);
        assert_int_equal(length, table[i].length);
    }
}

static void test_status_line(void **state)
{
    (void)state;
    char line[GATEWAY_STATUS_MAX];
    assert_int_equal(gateway_format_status(404, line), strlen("Status: 404 Not Found\r\n"));
    assert_string_equal(line, "Status: 404 Not Found\r\n");
    gateway_format_status(299, line);
    assert_string_equal(line, "Status: 299 Unknown\r\n");
}

int main(void)
{
    seal_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_method_is_required), cmocka_unit_test(test_route),
        cmocka_unit_test(test_request_id),         cmocka_unit_test(test_content_length),
        cmocka_unit_test(test_status_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
