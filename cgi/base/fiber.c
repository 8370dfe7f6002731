/* Fibers: stacks of their own, switched by hand from one uv loop. A fiber runs in the
 * loop's check phase only, after the poll phase has delivered what the fibers wait for: so a
 * wake-up never runs inside the call that started the wait, and all that the fibers send in one
 * round leaves in the next prepare phase, together. Who waits for what, and until when, is the
 * adapters' business. */
/* The check that _FORTIFY_SOURCE puts into longjmp knows one stack only. */
#undef _FORTIFY_SOURCE

#include "base/fiber.h"

#include <assert.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define FIBER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FIBER_ASAN 1
#endif
#endif

#ifdef FIBER_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

/* Mapped, not allocated: only the pages that were touched cost. Sanitized frames are larger. */
#ifdef FIBER_ASAN
#define STACK_SIZE ((size_t)1024 * 1024)
#else
#define STACK_SIZE ((size_t)256 * 1024)
#endif

/* Idle fibers beyond this many give their stack's pages back, and keep only the mapping. */
#define WARM_FIBERS_MAX 512

struct fiber {
    jmp_buf context;          /* where it parked */
    bool is_begun;            /* context is set */
    char *stack;              /* above its guard page */
    void (*function)(void *); /* set while it runs something */
    void *argument;
    void *local;
    uv_timer_t timer;   /* for fiber_sleep and fiber_park_for */
    struct fiber *next; /* in the ready queue, or in the pool */
    bool is_ready;
    bool is_timed;    /* in fiber_park_for, which ends for one of two reasons */
    void *fake_stack; /* AddressSanitizer's, while switched away */
};

static struct {
    uv_loop_t *loop;
    uv_check_t check;
    uv_idle_t idle; /* active while fibers are ready, so that the poll phase does not block */
    struct fiber *self;
    struct fiber *ready_head;
    struct fiber **ready_tail;
    struct fiber *pool;
    size_t pool_count;
    size_t count;
    jmp_buf loop_context;
    void *loop_fake_stack;
    const void *loop_stack; /* learnt at the first switch */
    size_t loop_stack_size;
} fibers;

static void run_functions(void);

/* The first switch to a stack needs ucontext; later ones are jumps, which leave the signal mask
 * alone and so save the two system calls of a swapcontext. Nothing returns from here, so that
 * AddressSanitizer would never take back its marks around this frame. */
__attribute__((no_sanitize("address"))) static void begin_stack(struct fiber *fiber)
{
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = fiber->stack;
    context.uc_stack.ss_size = STACK_SIZE;
    context.uc_link = NULL;
    makecontext(&context, run_functions, 0);
    fiber->is_begun = true;
    setcontext(&context);
}

static void enter_fiber(struct fiber *fiber)
{
    fibers.self = fiber;
#ifdef FIBER_ASAN
    __sanitizer_start_switch_fiber(&fibers.loop_fake_stack, fiber->stack, STACK_SIZE);
#endif
    if (_setjmp(fibers.loop_context) == 0) {
        if (fiber->is_begun) {
            _longjmp(fiber->context, 1);
        }
        begin_stack(fiber);
    }
#ifdef FIBER_ASAN
    __sanitizer_finish_switch_fiber(fibers.loop_fake_stack, NULL, NULL);
#endif
    fibers.self = NULL;
}

static void leave_fiber(struct fiber *fiber)
{
#ifdef FIBER_ASAN
    __sanitizer_start_switch_fiber(&fiber->fake_stack, fibers.loop_stack, fibers.loop_stack_size);
#endif
    if (_setjmp(fiber->context) == 0) {
        _longjmp(fibers.loop_context, 1);
    }
#ifdef FIBER_ASAN
    __sanitizer_finish_switch_fiber(fiber->fake_stack, &fibers.loop_stack, &fibers.loop_stack_size);
#endif
}

static void return_to_pool(struct fiber *fiber)
{
    fiber->function = NULL;
    fiber->local = NULL;
    fiber->next = fibers.pool;
    fibers.pool = fiber;
    fibers.pool_count++;
    fibers.count--;
}

/* What every stack runs: one function after the other, so that a context is made only once. */
static void run_functions(void)
{
#ifdef FIBER_ASAN
    __sanitizer_finish_switch_fiber(NULL, &fibers.loop_stack, &fibers.loop_stack_size);
#endif
    for (;;) {
        struct fiber *self = fibers.self;
        self->function(self->argument);
        return_to_pool(self);
        leave_fiber(self);
    }
}

static void run_ready(uv_check_t *check)
{
    (void)check;
    while (fibers.ready_head) {
        struct fiber *fiber = fibers.ready_head;
        fibers.ready_head = fiber->next;
        if (!fibers.ready_head) {
            fibers.ready_tail = &fibers.ready_head;
        }
        fiber->is_ready = false;
        enter_fiber(fiber);
        if (!fiber->function && fibers.pool_count > WARM_FIBERS_MAX) {
            /* The topmost page holds the frame in which the fiber waits for its next function. */
            size_t keep = (size_t)sysconf(_SC_PAGESIZE) * 2;
            madvise(fiber->stack, STACK_SIZE - keep, MADV_DONTNEED);
        }
    }
    uv_idle_stop(&fibers.idle);
}

static void keep_turning(uv_idle_t *idle)
{
    (void)idle;
}

void fiber_init(uv_loop_t *loop)
{
    fibers.loop = loop;
    fibers.ready_tail = &fibers.ready_head;
    uv_check_init(loop, &fibers.check);
    uv_check_start(&fibers.check, run_ready);
    uv_unref((uv_handle_t *)&fibers.check);
    uv_idle_init(loop, &fibers.idle);
}

static struct fiber *new_fiber(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    struct fiber *fiber = calloc(1, sizeof(*fiber));
    char *map = mmap(NULL, STACK_SIZE + page, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!fiber || map == MAP_FAILED || mprotect(map, page, PROT_NONE) != 0) {
        perror("fiber");
        abort();
    }
    fiber->stack = map + page;
    uv_timer_init(fibers.loop, &fiber->timer);
    fiber->timer.data = fiber;
    return fiber;
}

static void make_ready(struct fiber *fiber)
{
    assert(!fiber->is_ready);
    if (!fibers.ready_head) {
        uv_idle_start(&fibers.idle, keep_turning);
    }
    fiber->is_ready = true;
    fiber->next = NULL;
    *fibers.ready_tail = fiber;
    fibers.ready_tail = &fiber->next;
}

void fiber_spawn(void (*function)(void *), void *argument)
{
    struct fiber *fiber = fibers.pool;
    if (fiber) {
        fibers.pool = fiber->next;
        fibers.pool_count--;
    } else {
        fiber = new_fiber();
    }
    fiber->function = function;
    fiber->argument = argument;
    fibers.count++;
    make_ready(fiber);
}

struct fiber *fiber_self(void)
{
    return fibers.self;
}

void fiber_park(void)
{
    assert(fibers.self);
    leave_fiber(fibers.self);
}

void fiber_wake(struct fiber *fiber)
{
    if (!fiber->is_timed || !fiber->is_ready) {
        make_ready(fiber);
    }
}

static void wake_sleeper(uv_timer_t *timer)
{
    fiber_wake(timer->data);
}

void fiber_sleep(uint64_t ms)
{
    struct fiber *self = fibers.self;
    assert(self);
    uv_update_time(fibers.loop);
    uv_timer_start(&self->timer, wake_sleeper, ms, 0);
    fiber_park();
}

void fiber_park_for(uint64_t ms)
{
    struct fiber *self = fibers.self;
    assert(self);
    self->is_timed = true;
    fiber_sleep(ms);
    uv_timer_stop(&self->timer);
    self->is_timed = false;
}

void *fiber_get_local(void)
{
    return fibers.self ? fibers.self->local : NULL;
}

void fiber_set_local(void *local)
{
    if (fibers.self) {
        fibers.self->local = local;
    }
}

size_t fiber_count(void)
{
    return fibers.count;
}
