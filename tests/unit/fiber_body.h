/* A way to run a test's body in a fiber. cmocka's assertions jump off the stack, which a fiber must
 * not, so a body uses CHECK, and run_body asserts on the main stack. */
#ifndef TESTS_FIBER_BODY_H
#define TESTS_FIBER_BODY_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdbool.h>
#include <unistd.h>
#include <uv.h>

#include "base/clock.h"
#include "base/fiber.h"

static int failed_checks;

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            print_error("%s:%d: %s\n", __FILE__, __LINE__, #condition);                            \
            failed_checks++;                                                                       \
        }                                                                                          \
    } while (0)

/* Run body in a fiber until nothing is under way any more. */
static void run_body(void (*body)(void *argument), void *argument)
{
    alarm(60);
    failed_checks = 0;
    fiber_spawn(body, argument);
    uv_run(uv_default_loop(), UV_RUN_DEFAULT);
    alarm(0);
    assert_int_equal(failed_checks, 0);
    assert_int_equal(fiber_count(), 0);
}

/* A test of cmocka's, whose body runs in a fiber. */
#define FIBER_TEST(name)                                                                           \
    static void name##_body(void *argument);                                                       \
    static void name(void **state)                                                                 \
    {                                                                                              \
        (void)state;                                                                               \
        run_body(name##_body, NULL);                                                               \
    }                                                                                              \
    static void name##_body(__attribute__((unused)) void *argument)

#endif
