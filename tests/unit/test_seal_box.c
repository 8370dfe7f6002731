/* Boxes: what is put in for a holder comes out for that holder alone, whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/seal_box.h"

static struct secret holder, content;
static char name[SECRET_NAME_LEN + 1];
static uint8_t box[BOX_LEN];

static int set_up(void **state)
{
    (void)state;
    secret_new(&holder);
    secret_new(&content);
    box_name(&holder, name);
    return box_fill(name, &content, box) == OK ? 0 : -1;
}

static void the_holder_opens_it(void **state)
{
    (void)state;
    struct secret got;
    assert_int_equal(box_open(&holder, box, BOX_LEN, &got), OK);
    assert_true(secret_equal(&got, &content));
}

static void a_name_is_the_same_each_time_and_not_the_secret(void **state)
{
    (void)state;
    char again[SECRET_NAME_LEN + 1], text[SECRET_TEXT_LEN + 1];
    box_name(&holder, again);
    secret_format(&holder, text);
    assert_string_equal(again, name);
    assert_string_not_equal(again, text);
}

static void nobody_else_opens_it(void **state)
{
    (void)state;
    struct secret other, got, public;
    secret_new(&other);
    assert_int_equal(box_open(&other, box, BOX_LEN, &got), ERR_SEAL);
    assert_int_equal(secret_parse(name, &public), OK);
    assert_int_equal(box_open(&public, box, BOX_LEN, &got), ERR_SEAL);
}

static void a_box_that_was_changed_or_cut_does_not_open(void **state)
{
    (void)state;
    struct secret got;
    for (size_t i = 0; i < BOX_LEN; i++) {
        box[i] ^= 1;
        assert_int_equal(box_open(&holder, box, BOX_LEN, &got), ERR_SEAL);
        box[i] ^= 1;
        assert_int_equal(box_open(&holder, box, i, &got), ERR_SEAL);
    }
}

static void what_is_no_name_has_no_box(void **state)
{
    (void)state;
    static const char *const names[] = {"", "x", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(box_fill(names[i], &content, box), ERR_FORMAT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_holder_opens_it, set_up),
        cmocka_unit_test_setup(a_name_is_the_same_each_time_and_not_the_secret, set_up),
        cmocka_unit_test_setup(nobody_else_opens_it, set_up),
        cmocka_unit_test_setup(a_box_that_was_changed_or_cut_does_not_open, set_up),
        cmocka_unit_test_setup(what_is_no_name_has_no_box, set_up),
    };
    seal_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
