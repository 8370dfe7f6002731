/* The plain data, and above all: what any row of answers of Spotify's does to a session's tokens.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/model.h"

static struct session new_session(void)
{
    return (struct session){
        .generation = 5,
        .access_token = xstrdup("access"),
        .refresh_token = xstrdup("refresh"),
        .scope = xstrdup("one two"),
        .expires_at = 2000,
        .obtained_at = 1000,
        .authorized_at = 900,
        .profile = {.id = xstrdup("user"), .display_name = xstrdup("A user")},
    };
}

static bool is_zero(const void *bytes, size_t len)
{
    const char *byte = bytes;
    for (size_t i = 0; i < len; i++) {
        if (byte[i]) {
            return false;
        }
    }
    return true;
}

static void a_refresh_token_is_replaced_only_by_a_new_one(void **state)
{
    (void)state;
    static const struct {
        const char *answered;
        const char *want;
    } cases[] = {{"newer", "newer"}, {NULL, "refresh"}, {"", "refresh"}, {"refresh", "refresh"}};

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct session session = new_session();
        struct tokens tokens = {.access_token = xstrdup("fresh"),
                                .refresh_token = xstrdup(cases[i].answered),
                                .expires_in = 3600};
        session_take_tokens(&session, &tokens, 5000);
        tokens_clear(&tokens);
        assert_string_equal(session.access_token, "fresh");
        assert_string_equal(session.refresh_token, cases[i].want);
        session_clear(&session);
    }
}

static void a_scope_is_replaced_only_by_one_that_was_said(void **state)
{
    (void)state;
    static const struct {
        const char *answered;
        const char *want;
    } cases[] = {{"one", "one"}, {NULL, "one two"}, {"", "one two"}, {"one two", "one two"}};

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct session session = new_session();
        struct tokens tokens = {
            .access_token = xstrdup("fresh"), .scope = xstrdup(cases[i].answered), .expires_in = 1};
        session_take_tokens(&session, &tokens, 5000);
        tokens_clear(&tokens);
        assert_string_equal(session.scope, cases[i].want);
        session_clear(&session);
    }
}

static void times_and_suspicion_follow_the_answer(void **state)
{
    (void)state;
    struct session session = new_session();
    session.suspect_since = 4000;
    session.suspect_tried_at = 4100;
    struct tokens tokens = {.access_token = xstrdup("fresh"), .expires_in = 3600};
    session_take_tokens(&session, &tokens, 5000);
    assert_int_equal(session.generation, 6);
    assert_int_equal(session.obtained_at, 5000);
    assert_int_equal(session.expires_at, 8600);
    assert_int_equal(session.authorized_at, 900);
    assert_int_equal(session.suspect_since, 0);
    assert_int_equal(session.suspect_tried_at, 0);
    assert_string_equal(session.profile.id, "user");
    tokens_clear(&tokens);
    session_clear(&session);
}

static void a_first_answer_fills_an_empty_session(void **state)
{
    (void)state;
    struct session session = {0};
    struct tokens tokens = {.access_token = xstrdup("access"),
                            .refresh_token = xstrdup("refresh"),
                            .scope = xstrdup("one"),
                            .expires_in = 3600};
    session_take_tokens(&session, &tokens, 100);
    tokens_clear(&tokens);
    assert_int_equal(session.generation, 1);
    assert_string_equal(session.access_token, "access");
    assert_string_equal(session.refresh_token, "refresh");
    assert_string_equal(session.scope, "one");
    session_clear(&session);
}

/* One member of an answer by the choice of a seeded generator: new, missing, empty, or as it was.
 */
static char *pick(const char *prefix, int step, const char *current)
{
    char text[32];
    snprintf(text, sizeof text, "%s-%d", prefix, step);
    switch (rand() % 4) {
    case 0:
        return xstrdup(text);
    case 1:
        return NULL;
    case 2:
        return xstrdup("");
    default:
        return xstrdup(current);
    }
}

/* After any row of answers the session holds the newest access token, and of the others the last
 * that was there and not empty. */
static void any_row_of_answers_keeps_the_last_good_tokens(void **state)
{
    (void)state;
    srand(6749);
    for (int row = 0; row < 500; row++) {
        struct session session = new_session();
        char *refresh = xstrdup("refresh");
        char *scope = xstrdup("one two");
        for (int step = 0; step < 20; step++) {
            struct tokens tokens = {.refresh_token = pick("refresh", step, refresh),
                                    .scope = pick("scope", step, scope),
                                    .expires_in = rand() % 7200};
            tokens.access_token = pick("access", step, session.access_token);
            if (!tokens.access_token || !tokens.access_token[0]) {
                tokens_clear(&tokens);
                continue; /* such an answer is refused before it gets here */
            }
            struct session before;
            session_copy(&session, &before);
            session_take_tokens(&session, &tokens, 1000 + step);

            if (tokens.refresh_token && tokens.refresh_token[0]) {
                free(refresh);
                refresh = xstrdup(tokens.refresh_token);
            }
            if (tokens.scope && tokens.scope[0]) {
                free(scope);
                scope = xstrdup(tokens.scope);
            }
            assert_string_equal(session.access_token, tokens.access_token);
            assert_string_equal(session.refresh_token, refresh);
            assert_string_equal(session.scope, scope);
            assert_true(session.generation == before.generation + 1);
            assert_int_equal(session.expires_at, 1000 + step + tokens.expires_in);
            assert_int_equal(session.authorized_at, before.authorized_at);
            assert_string_equal(session.profile.id, before.profile.id);
            session_clear(&before);
            tokens_clear(&tokens);
        }
        free(refresh);
        free(scope);
        session_clear(&session);
    }
}

static void a_copy_is_deep(void **state)
{
    (void)state;
    struct session session = new_session();
    struct session copy;
    session_copy(&session, &copy);
    session.access_token[0] = 'X';
    session.profile.id[0] = 'X';
    session_clear(&session);
    assert_string_equal(copy.access_token, "access");
    assert_string_equal(copy.refresh_token, "refresh");
    assert_string_equal(copy.profile.id, "user");
    assert_string_equal(copy.profile.display_name, "A user");
    assert_null(copy.profile.image_url);
    assert_int_equal(copy.generation, 5);
    assert_int_equal(copy.authorized_at, 900);
    session_clear(&copy);
}

static void clear_leaves_nothing(void **state)
{
    (void)state;
    struct session session = new_session();
    session_clear(&session);
    assert_true(is_zero(&session, sizeof session));
    session_clear(&session);

    struct login login = {.verifier = xstrdup("v"), .scope = xstrdup("s"), .previous = "name"};
    login_clear(&login);
    assert_true(is_zero(&login, sizeof login));

    struct login_outcome outcome = {.location = xstrdup("/"), .has_session = true, .ended_at = 5};
    secret_new(&outcome.session);
    login_outcome_clear(&outcome);
    assert_true(is_zero(&outcome, sizeof outcome));
}

static int start(void **state)
{
    (void)state;
    seal_init();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_refresh_token_is_replaced_only_by_a_new_one),
        cmocka_unit_test(a_scope_is_replaced_only_by_one_that_was_said),
        cmocka_unit_test(times_and_suspicion_follow_the_answer),
        cmocka_unit_test(a_first_answer_fills_an_empty_session),
        cmocka_unit_test(any_row_of_answers_keeps_the_last_good_tokens),
        cmocka_unit_test(a_copy_is_deep),
        cmocka_unit_test(clear_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
