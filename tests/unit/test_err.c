/* The table of errors: complete, and what callers see of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/err.h"

static void every_error_has_a_meaning(void **state)
{
    (void)state;
    for (int err = OK + 1; err < ERR__MAX; err++) {
        int status = err_status((enum err)err);
        if (status < 400 || status > 503) {
            fail_msg("error %d has status %d", err, status);
        }
        assert_true(err_word((enum err)err)[0]);
        assert_true(err_text((enum err)err)[0]);
        assert_non_null(err_name((enum err)err));
    }
}

static void texts_have_the_characters_of_rfc_6749_5_2(void **state)
{
    (void)state;
    for (int err = OK; err <= ERR__MAX; err++) {
        const char *texts[] = {err_word((enum err)err), err_text((enum err)err)};
        for (size_t i = 0; i < 2; i++) {
            for (const char *c = texts[i]; *c; c++) {
                assert_true(*c >= 0x20 && *c <= 0x7E && *c != '"' && *c != '\\');
            }
        }
    }
}

static void callers_see_the_words_of_the_contract(void **state)
{
    (void)state;
    static const struct {
        enum err err;
        int status;
        const char *word;
    } cases[] = {
        {OK, 0, ""},
        {ERR_INVALID_REQUEST, 400, "invalid_request"},
        {ERR_INVALID_SCOPE, 400, "invalid_scope"},
        {ERR_INVALID_GRANT, 400, "invalid_grant"},
        {ERR_INVALID_STATE, 400, "invalid_state"},
        {ERR_FORBIDDEN, 403, "forbidden"},
        {ERR_NOT_FOUND, 404, "not_found"},
        {ERR_METHOD, 405, "method_not_allowed"},
        {ERR_MEDIA_TYPE, 415, "unsupported_media_type"},
        {ERR_TOO_LARGE, 413, "request_too_large"},
        {ERR_INSUFFICIENT_SCOPE, 403, "insufficient_scope"},
        {ERR_UNALLOWED_SCOPE, 403, "insufficient_scope"},
        {ERR_INVALID_CLIENT, 401, "invalid_client"},
        {ERR_GRANT_TYPE, 400, "unsupported_grant_type"},
        {ERR_PENDING, 400, "authorization_pending"},
        {ERR_SLOW_DOWN, 400, "slow_down"},
        {ERR_DENIED, 400, "access_denied"},
        {ERR_EXPIRED, 400, "expired_token"},
        {ERR_NO_COOKIE, 401, "login_required"},
        {ERR_ABSENT, 401, "login_required"},
        {ERR_REPLACED, 401, "login_required"},
        {ERR_SUSPECT, 401, "login_required"},
        {ERR_STORE, 503, "temporarily_unavailable"},
        {ERR_UNREADABLE, 503, "temporarily_unavailable"},
        {ERR_UPSTREAM, 503, "temporarily_unavailable"},
        {ERR_UPSTREAM_BUSY, 503, "temporarily_unavailable"},
        {ERR_MISCONFIGURED, 503, "temporarily_unavailable"},
        {ERR_DRAINING, 503, "temporarily_unavailable"},
        {ERR_REFUSED, 500, "server_error"},
        {ERR_REJECTED, 500, "server_error"},
        {ERR_SEAL, 500, "server_error"},
        {ERR_FORMAT, 500, "server_error"},
        {ERR__MAX, 500, "server_error"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(err_status(cases[i].err), cases[i].status);
        assert_string_equal(err_word(cases[i].err), cases[i].word);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_error_has_a_meaning),
        cmocka_unit_test(texts_have_the_characters_of_rfc_6749_5_2),
        cmocka_unit_test(callers_see_the_words_of_the_contract),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
