/* Pauses between attempts to connect: at once after a good connection, then longer and longer, and
 * never the same for two workers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/seal.h"
#include "store/redis_pause.h"

#define NOW_MS 1000000

static uint64_t note(struct redis_pause *pause, uint64_t good_ms, uint64_t cap_ms)
{
    redis_pause_note_loss(pause, NOW_MS, good_ms, cap_ms);
    assert_true(pause->until_ms >= NOW_MS);
    return pause->until_ms - NOW_MS;
}

static void test_good_connection_is_replaced_at_once(void **state)
{
    (void)state;
    struct redis_pause pause = {.losses = 5};
    assert_int_equal(note(&pause, 1000, 250), 0);
    assert_true(note(&pause, 0, 250) >= 10);
}

static void test_connection_that_did_not_hold_is_not(void **state)
{
    (void)state;
    struct redis_pause pause = {0};
    assert_true(note(&pause, 999, 250) >= 10);
}

static void test_pauses_double_up_to_the_cap(void **state)
{
    (void)state;
    static const struct {
        uint64_t cap_ms;
        uint64_t spans_ms[8];
    } table[] = {
        {250, {20, 40, 80, 160, 250, 250, 250, 250}},
        {100000, {20, 40, 80, 160, 320, 640, 1000, 1000}},
        {25, {20, 25, 25, 25, 25, 25, 25, 25}},
        {0, {0, 0, 0, 0, 0, 0, 0, 0}},
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        for (int round = 0; round < 100; round++) {
            struct redis_pause pause = {0};
            for (size_t at = 0; at < 8; at++) {
                uint64_t pause_ms = note(&pause, 0, table[i].cap_ms);
                assert_true(pause_ms >= table[i].spans_ms[at] / 2);
                assert_true(pause_ms <= table[i].spans_ms[at]);
            }
        }
    }
}

static void test_losses_without_end_do_not_overflow(void **state)
{
    (void)state;
    struct redis_pause pause = {.losses = 1000000};
    assert_true(note(&pause, 0, 100000) <= 1000);
}

static void test_pauses_are_spread(void **state)
{
    (void)state;
    bool seen[126] = {false};
    int different = 0;
    for (int i = 0; i < 1000; i++) {
        struct redis_pause pause = {.losses = 6};
        uint64_t above = note(&pause, 0, 250) - 125;
        assert_true(above <= 125);
        different += !seen[above];
        seen[above] = true;
    }
    assert_true(different > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_connection_is_replaced_at_once),
        cmocka_unit_test(test_connection_that_did_not_hold_is_not),
        cmocka_unit_test(test_pauses_double_up_to_the_cap),
        cmocka_unit_test(test_losses_without_end_do_not_overflow),
        cmocka_unit_test(test_pauses_are_spread),
    };
    seal_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
