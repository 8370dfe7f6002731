/* spotify/breaker.c: when it opens, who is let through, and what closes it. */
#include "spotify/breaker.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define NOW 1000000

/* Calls that take no time. */
static enum breaker_change note_failure(struct breaker *breaker, uint64_t now_ms)
{
    return breaker_note(breaker, true, now_ms, now_ms, 0);
}

static enum breaker_change note_success(struct breaker *breaker, uint64_t now_ms)
{
    return breaker_note(breaker, false, now_ms, now_ms, 0);
}

static struct breaker opened(void)
{
    struct breaker breaker = {0};
    for (int i = 0; i < BREAKER_FAILURES_MAX; i++) {
        note_failure(&breaker, NOW);
    }
    assert_true(breaker_is_open(&breaker));
    return breaker;
}

static void it_opens_after_so_many_failures_in_a_row(void **state)
{
    struct breaker breaker = {0};
    (void)state;
    for (int i = 1; i < BREAKER_FAILURES_MAX; i++) {
        assert_int_equal(note_failure(&breaker, NOW), BREAKER_STAYS);
        assert_true(breaker_admits(&breaker, NOW, 0));
    }
    assert_int_equal(note_failure(&breaker, NOW), BREAKER_OPENS);
    assert_true(breaker_is_open(&breaker));
    assert_int_equal(note_failure(&breaker, NOW), BREAKER_STAYS);
}

static void a_success_begins_the_row_anew(void **state)
{
    struct breaker breaker = {0};
    (void)state;
    for (int i = 1; i < 10 * BREAKER_FAILURES_MAX; i++) {
        assert_int_equal(note_failure(&breaker, NOW), BREAKER_STAYS);
        if (i % (BREAKER_FAILURES_MAX - 1) == 0) {
            assert_int_equal(note_success(&breaker, NOW), BREAKER_STAYS);
        }
    }
    assert_false(breaker_is_open(&breaker));
}

static void while_open_one_call_at_a_time_is_let_through(void **state)
{
    struct breaker breaker = opened();
    (void)state;
    assert_false(breaker_admits(&breaker, NOW, 0));
    assert_false(breaker_admits(&breaker, NOW + BREAKER_PROBE_MIN_MS - 1, 0));
    assert_true(breaker_admits(&breaker, NOW + BREAKER_PROBE_MIN_MS, 0));
    assert_false(breaker_admits(&breaker, NOW + BREAKER_PROBE_MIN_MS, 0));
    assert_false(breaker_admits(&breaker, NOW + 2 * BREAKER_PROBE_MIN_MS - 1, 0));
    assert_true(breaker_admits(&breaker, NOW + 2 * BREAKER_PROBE_MIN_MS, 0));
}

/* None of the earlier ones has ended. */
static void probes_that_hang_hold_up_no_further_one(void **state)
{
    struct breaker breaker = opened();
    uint64_t now_ms = NOW;
    (void)state;
    for (int i = 0; i < 100; i++) {
        now_ms += BREAKER_PROBE_MAX_MS;
        assert_true(breaker_admits(&breaker, now_ms, (uint64_t)i * 7919));
    }
}

static void probes_are_spread(void **state)
{
    static const uint64_t randoms[] = {0, 1, 200, 201, 12345, UINT64_MAX};
    uint64_t first_ms = UINT64_MAX, last_ms = 0;
    (void)state;
    for (size_t i = 0; i < sizeof(randoms) / sizeof(randoms[0]); i++) {
        struct breaker breaker = opened();
        uint64_t now_ms = NOW + BREAKER_PROBE_MIN_MS;
        assert_true(breaker_admits(&breaker, now_ms, randoms[i]));
        uint64_t wait_ms = 0;
        while (!breaker_admits(&breaker, now_ms + wait_ms, 0)) {
            wait_ms++;
        }
        assert_in_range(wait_ms, BREAKER_PROBE_MIN_MS, BREAKER_PROBE_MAX_MS);
        first_ms = wait_ms < first_ms ? wait_ms : first_ms;
        last_ms = wait_ms > last_ms ? wait_ms : last_ms;
    }
    assert_int_equal(first_ms, BREAKER_PROBE_MIN_MS);
    assert_int_equal(last_ms, BREAKER_PROBE_MAX_MS);
}

static void one_success_closes_it(void **state)
{
    struct breaker breaker = opened();
    (void)state;
    assert_int_equal(note_failure(&breaker, NOW + 500), BREAKER_STAYS);
    assert_int_equal(note_success(&breaker, NOW + 1000), BREAKER_CLOSES);
    assert_false(breaker_is_open(&breaker));
    assert_true(breaker_admits(&breaker, NOW + 1000, 0));
    assert_true(breaker_admits(&breaker, NOW + 1000, 0));
    for (int i = 1; i < BREAKER_FAILURES_MAX; i++) {
        assert_int_equal(note_failure(&breaker, NOW + 1001), BREAKER_STAYS);
    }
}

/* A hundred calls that hung before a probe was answered all end when it has closed. */
static void failures_from_before_the_last_success_do_not_open_it(void **state)
{
    struct breaker breaker = opened();
    (void)state;
    assert_int_equal(breaker_note(&breaker, false, NOW + 500, NOW + 600, 0), BREAKER_CLOSES);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(breaker_note(&breaker, true, NOW, NOW + 10000, 0), BREAKER_STAYS);
        assert_int_equal(breaker_note(&breaker, true, NOW + 599, NOW + 10000, 0), BREAKER_STAYS);
    }
    for (int i = 1; i < BREAKER_FAILURES_MAX; i++) {
        assert_int_equal(breaker_note(&breaker, true, NOW + 600, NOW + 10000, 0), BREAKER_STAYS);
    }
    assert_int_equal(breaker_note(&breaker, true, NOW + 600, NOW + 10000, 0), BREAKER_OPENS);
}

static void it_lapses_when_nobody_comes(void **state)
{
    struct breaker breaker = opened();
    uint64_t due_ms = NOW + BREAKER_PROBE_MIN_MS;
    (void)state;
    assert_false(breaker_lapse(&breaker, due_ms + BREAKER_LAPSE_MS - 1));
    assert_true(breaker_admits(&breaker, due_ms + BREAKER_LAPSE_MS - 1, 0));
    due_ms += BREAKER_LAPSE_MS - 1 + BREAKER_PROBE_MIN_MS;
    assert_false(breaker_lapse(&breaker, due_ms + BREAKER_LAPSE_MS - 1));
    assert_true(breaker_lapse(&breaker, due_ms + BREAKER_LAPSE_MS));
    assert_false(breaker_is_open(&breaker));
    assert_false(breaker_lapse(&breaker, due_ms + BREAKER_LAPSE_MS));
    assert_int_equal(note_failure(&breaker, due_ms + BREAKER_LAPSE_MS), BREAKER_OPENS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_opens_after_so_many_failures_in_a_row),
        cmocka_unit_test(a_success_begins_the_row_anew),
        cmocka_unit_test(while_open_one_call_at_a_time_is_let_through),
        cmocka_unit_test(probes_that_hang_hold_up_no_further_one),
        cmocka_unit_test(probes_are_spread),
        cmocka_unit_test(one_success_closes_it),
        cmocka_unit_test(it_lapses_when_nobody_comes),
        cmocka_unit_test(failures_from_before_the_last_success_do_not_open_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
