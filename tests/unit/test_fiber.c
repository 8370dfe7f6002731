/* Fibers: what runs when, what is their own, and that thousands of stacks come and go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fiber.h"

static char trace[64];

static void note(char c)
{
    size_t len = strlen(trace);
    assert_true(len + 1 < sizeof trace);
    trace[len] = c;
    trace[len + 1] = '\0';
}

/* Turn the loop until no fiber is left; a hang ends at the deadline. */
static void run_all(void)
{
    uint64_t deadline_ms = clock_mono_ms() + 5000;
    while (fiber_count() > 0 && clock_mono_ms() < deadline_ms) {
        uv_run(uv_default_loop(), UV_RUN_ONCE);
    }
    assert_int_equal(fiber_count(), 0);
}

static struct fiber *parked;

static void park_once(void *argument)
{
    (void)argument;
    note('a');
    parked = fiber_self();
    fiber_park();
    note('d');
}

static void wake_other(void *argument)
{
    (void)argument;
    note('b');
    fiber_wake(parked);
    note('c'); /* a wake-up never runs inside the call that wakes */
}

static void a_wake_up_comes_from_the_loop(void **state)
{
    (void)state;
    trace[0] = '\0';
    fiber_spawn(park_once, NULL);
    fiber_spawn(wake_other, NULL);
    assert_string_equal(trace, ""); /* nor does a spawn run anything */
    assert_null(fiber_self());
    run_all();
    assert_string_equal(trace, "abcd");
}

static void sleep_for(void *argument)
{
    const char *how = argument;
    fiber_sleep((uint64_t)(how[0] - '0') * 20);
    note(how[0]);
}

static void sleepers_wake_in_the_order_of_their_time(void **state)
{
    (void)state;
    trace[0] = '\0';
    uint64_t begun_ms = clock_mono_ms();
    fiber_spawn(sleep_for, "3");
    fiber_spawn(sleep_for, "1");
    fiber_spawn(sleep_for, "2");
    run_all();
    assert_string_equal(trace, "123");
    assert_true(clock_mono_ms() - begun_ms >= 60);
}

static void park_for_a_while(void *argument)
{
    parked = fiber_self();
    fiber_park_for(*(uint64_t *)argument);
    note('p');
    fiber_park_for(1); /* whatever ended the first, nothing of it is left */
    note('q');
}

static void wake_parked(uv_timer_t *timer)
{
    (void)timer;
    fiber_wake(parked);
}

/* Before its time is over, when both happen in one turn of the loop, and never. */
static void a_fiber_that_parks_for_a_while_goes_on_once(void **state)
{
    (void)state;
    static const struct {
        uint64_t park_ms, wake_ms;
    } table[] = {{5000, 20}, {20, 20}, {20, 0}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        uint64_t park_ms = table[i].park_ms;
        uv_timer_t timer;
        trace[0] = '\0';
        uv_timer_init(uv_default_loop(), &timer);
        fiber_spawn(park_for_a_while, &park_ms);
        uv_run(uv_default_loop(), UV_RUN_NOWAIT);
        if (table[i].wake_ms) {
            uv_timer_start(&timer, wake_parked, table[i].wake_ms, 0);
        }
        usleep(40 * 1000); /* both are due at once */
        run_all();
        assert_string_equal(trace, "pq");
        uv_close((uv_handle_t *)&timer, NULL);
        uv_run(uv_default_loop(), UV_RUN_NOWAIT);
    }
}

static void keep_local(void *argument)
{
    assert_null(fiber_get_local()); /* also where a stack is used again */
    fiber_set_local(argument);
    fiber_sleep(1);
    assert_ptr_equal(fiber_get_local(), argument);
}

static void the_local_pointer_is_a_fibers_own(void **state)
{
    (void)state;
    int one, two;
    for (int round = 0; round < 3; round++) {
        fiber_spawn(keep_local, &one);
        fiber_spawn(keep_local, &two);
        run_all();
    }
    fiber_set_local(&one);
    assert_null(fiber_get_local());
}

static int sum;

/* Touches a good part of its stack, so that a neighbour's would show. */
static void use_stack(void *argument)
{
    volatile unsigned char bytes[32768];
    unsigned char mark = (unsigned char)(uintptr_t)argument;
    memset((void *)bytes, mark, sizeof bytes);
    fiber_sleep(1 + mark % 3);
    for (size_t i = 0; i < sizeof bytes; i += 512) {
        assert_int_equal(bytes[i], mark);
    }
    sum++;
}

static void thousands_of_stacks_come_and_go(void **state)
{
    (void)state;
    sum = 0;
    for (int round = 0; round < 2; round++) {
        for (uintptr_t i = 0; i < 2000; i++) {
            fiber_spawn(use_stack, (void *)i);
        }
        run_all();
    }
    assert_int_equal(sum, 4000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_wake_up_comes_from_the_loop),
        cmocka_unit_test(sleepers_wake_in_the_order_of_their_time),
        cmocka_unit_test(a_fiber_that_parks_for_a_while_goes_on_once),
        cmocka_unit_test(the_local_pointer_is_a_fibers_own),
        cmocka_unit_test(thousands_of_stacks_come_and_go),
    };
    fiber_init(uv_default_loop());
    return cmocka_run_group_tests(tests, NULL, NULL);
}
