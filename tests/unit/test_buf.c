/* Buffers: what was added is there, followed by a NUL, however it came. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

static void an_empty_buffer_is_an_empty_string(void **state)
{
    (void)state;
    struct buf buf = {0};
    assert_string_equal(buf_str(&buf), "");
    buf_clear(&buf);

    char *taken = buf_take(&buf);
    assert_string_equal(taken, "");
    free(taken);
}

static void all_ways_to_add_append(void **state)
{
    (void)state;
    struct buf buf = {0};
    buf_adds(&buf, "one ");
    buf_addc(&buf, '2');
    buf_add(&buf, " three!", 6);
    buf_addf(&buf, " %d %s", 4, "five");
    buf_add(&buf, NULL, 0);
    assert_string_equal(buf_str(&buf), "one 2 three 4 five");
    assert_int_equal(buf.len, strlen("one 2 three 4 five"));
    buf_clear(&buf);
}

static void it_grows_past_every_size(void **state)
{
    (void)state;
    char text[300];
    memset(text, 'x', sizeof text);
    for (size_t len = 0; len < sizeof text; len++) {
        struct buf added = {0};
        struct buf formatted = {0};
        buf_add(&added, text, len);
        buf_addf(&formatted, "%.*s", (int)len, text);
        assert_int_equal(strlen(buf_str(&added)), len);
        assert_int_equal(formatted.len, len);
        assert_string_equal(buf_str(&added), buf_str(&formatted));
        buf_clear(&added);
        buf_clear(&formatted);
    }
}

static void bytes_may_hold_nul(void **state)
{
    (void)state;
    struct buf buf = {0};
    buf_add(&buf, "a\0b", 3);
    assert_int_equal(buf.len, 3);
    assert_memory_equal(buf.data, "a\0b", 4);
    buf_clear(&buf);
}

static void taking_empties_the_buffer(void **state)
{
    (void)state;
    struct buf buf = {0};
    buf_adds(&buf, "mine");
    char *taken = buf_take(&buf);
    assert_string_equal(taken, "mine");
    assert_null(buf.data);
    assert_int_equal(buf.len, 0);
    xfree_secret(taken);
}

static void reset_wipes_and_keeps_the_memory(void **state)
{
    (void)state;
    struct buf buf = {0};
    buf_adds(&buf, "a secret");
    const char *memory = buf.data;
    buf_reset(&buf);
    assert_string_equal(buf_str(&buf), "");
    assert_ptr_equal(buf.data, memory);
    for (size_t i = 0; i < strlen("a secret"); i++) {
        assert_int_equal(memory[i], 0);
    }
    buf_clear(&buf);
}

static void assert_wiped(const char *memory, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        assert_int_equal(memory[i], 0);
    }
}

static void a_room_is_used_until_it_is_outgrown(void **state)
{
    (void)state;
    char room[8] = "garbage";
    struct buf buf = BUF_ROOM(room);
    assert_string_equal(buf_str(&buf), "");
    buf_adds(&buf, "1234567");
    assert_ptr_equal(buf.data, room);
    assert_string_equal(room, "1234567");
    buf_addc(&buf, '8');
    assert_ptr_not_equal(buf.data, room);
    assert_string_equal(buf_str(&buf), "12345678");
    assert_wiped(room, sizeof(room));
    buf_clear(&buf);
}

static void a_room_is_wiped_and_taken_from_as_a_copy(void **state)
{
    (void)state;
    char room[16];
    struct buf buf = BUF_ROOM(room);
    buf_adds(&buf, "a secret");
    buf_clear(&buf);
    assert_wiped(room, sizeof(room));

    buf = BUF_ROOM(room);
    buf_adds(&buf, "mine");
    char *taken = buf_take(&buf);
    assert_string_equal(taken, "mine");
    assert_wiped(room, sizeof(room));
    xfree_secret(taken);

    buf = BUF_ROOM(room);
    taken = buf_take(&buf);
    assert_string_equal(taken, "");
    free(taken);
}

static void copies_are_of_their_own(void **state)
{
    (void)state;
    assert_null(xstrdup(NULL));
    xfree_secret(NULL);
    char *whole = xstrdup("text");
    char *part = xstrndup("text", 2);
    assert_string_equal(whole, "text");
    assert_string_equal(part, "te");
    free(whole);
    xfree_secret(part);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_buffer_is_an_empty_string),
        cmocka_unit_test(all_ways_to_add_append),
        cmocka_unit_test(it_grows_past_every_size),
        cmocka_unit_test(bytes_may_hold_nul),
        cmocka_unit_test(taking_empties_the_buffer),
        cmocka_unit_test(reset_wipes_and_keeps_the_memory),
        cmocka_unit_test(a_room_is_used_until_it_is_outgrown),
        cmocka_unit_test(a_room_is_wiped_and_taken_from_as_a_copy),
        cmocka_unit_test(copies_are_of_their_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
