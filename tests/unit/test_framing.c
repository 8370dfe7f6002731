/* framing_scan over requests that are built here, whole, cut and changed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/buf.h"
#include "front/framing.h"

enum { BEGIN = 1, ABORT = 2, PARAMS = 4, STDIN = 5, DATA = 8, GET_VALUES = 9 };

static void add_record(struct buf *out, int type, int id, const void *content, size_t len,
                       size_t padding)
{
    const unsigned char header[8] = {1,
                                     (unsigned char)type,
                                     (unsigned char)(id >> 8),
                                     (unsigned char)id,
                                     (unsigned char)(len >> 8),
                                     (unsigned char)len,
                                     (unsigned char)padding,
                                     0};
    static const char zeros[255];
    buf_add(out, header, sizeof header);
    buf_add(out, content, len);
    buf_add(out, zeros, padding);
}

static void add_begin(struct buf *out, int role)
{
    const char body[8] = {0, (char)role, 1};
    add_record(out, BEGIN, 1, body, sizeof body, 0);
}

/* A pair with both lengths in four bytes. */
static void add_pair(struct buf *out, const char *name, const void *value, size_t len)
{
    const size_t lengths[2] = {strlen(name), len};
    for (int i = 0; i < 2; i++) {
        buf_addc(out, (char)(0x80 | lengths[i] >> 24));
        buf_addc(out, (char)(lengths[i] >> 16));
        buf_addc(out, (char)(lengths[i] >> 8));
        buf_addc(out, (char)lengths[i]);
    }
    buf_adds(out, name);
    buf_add(out, value, len);
}

/* A stream in records of size bytes each, with the empty one at its end. */
static void add_stream(struct buf *out, int type, const char *bytes, size_t len, size_t size)
{
    while (len > 0) {
        size_t part = len < size ? len : size;
        add_record(out, type, 1, bytes, part, part % 8);
        bytes += part;
        len -= part;
    }
    add_record(out, type, 1, "", 0, 0);
}

static enum framing scan(const struct buf *bytes)
{
    size_t needed = 0;
    return framing_scan((const unsigned char *)buf_str(bytes), bytes->len, &needed);
}

static const char short_pairs[] = "\x0e\x03REQUEST_METHODGET\x0b\x00SCRIPT_NAME";

static void add_request(struct buf *out, size_t size)
{
    add_begin(out, 1);
    add_stream(out, PARAMS, short_pairs, sizeof short_pairs - 1, size);
    add_stream(out, STDIN, "state=1&code=2", 14, size);
}

/* Records may cut the streams anywhere, also within a pair's lengths. */
static void test_whole_in_records_of_any_size(void **state)
{
    (void)state;
    for (size_t size = 1; size < 40; size++) {
        struct buf bytes = {0};
        add_request(&bytes, size);
        assert_int_equal(scan(&bytes), FRAMING_WHOLE);
        buf_clear(&bytes);
    }
}

/* Every cut is partial, and needed never lies beyond the end: who waits for it waits for nothing
 * that is not part of the request. */
static void test_every_beginning_is_partial(void **state)
{
    (void)state;
    for (size_t size = 1; size < 40; size += 6) {
        struct buf bytes = {0};
        add_request(&bytes, size);
        for (size_t len = 0; len < bytes.len; len++) {
            size_t needed = 0;
            assert_int_equal(framing_scan((unsigned char *)bytes.data, len, &needed),
                             FRAMING_PARTIAL);
            assert_in_range(needed, len + 1, bytes.len);
        }
        buf_clear(&bytes);
    }
}

static void test_one_byte_more_is_broken(void **state)
{
    (void)state;
    struct buf bytes = {0};
    add_request(&bytes, 100);
    buf_addc(&bytes, 1);
    assert_int_equal(scan(&bytes), FRAMING_BROKEN);
    buf_clear(&bytes);
}

static void test_header_of_begin(void **state)
{
    (void)state;
    static const struct {
        size_t at;
        char byte;
        enum framing want;
    } table[] = {
        {0, 0, FRAMING_BROKEN},                                                  /* version */
        {0, 2, FRAMING_BROKEN},  {1, 0, FRAMING_BROKEN},                         /* type */
        {1, 4, FRAMING_BROKEN},  {1, 9, FRAMING_BROKEN}, {2, 1, FRAMING_BROKEN}, /* another id */
        {3, 0, FRAMING_BROKEN},  {5, 7, FRAMING_BROKEN},                         /* length */
        {5, 9, FRAMING_BROKEN},  {6, 8, FRAMING_BROKEN},                         /* padding */
        {7, 55, FRAMING_WHOLE},                                                  /* reserved */
        {8, 1, FRAMING_BROKEN},                                                  /* role */
        {9, 2, FRAMING_BROKEN},  {9, 3, FRAMING_BROKEN}, {10, 0, FRAMING_WHOLE}, /* flags */
        {15, 77, FRAMING_WHOLE},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct buf bytes = {0};
        add_request(&bytes, 100);
        bytes.data[table[i].at] = table[i].byte;
        assert_int_equal(scan(&bytes), table[i].want);
        buf_clear(&bytes);
    }
}

/* The first byte of each record is judged before the rest is here. */
static void test_wrong_version_is_seen_at_its_first_byte(void **state)
{
    (void)state;
    size_t needed;
    assert_int_equal(framing_scan((const unsigned char *)"G", 1, &needed), FRAMING_BROKEN);
    struct buf bytes = {0};
    add_begin(&bytes, 1);
    buf_addc(&bytes, 'G');
    assert_int_equal(scan(&bytes), FRAMING_BROKEN);
    buf_clear(&bytes);
}

/* A record that may not come is refused by its header. */
static void test_record_out_of_place(void **state)
{
    (void)state;
    static const struct {
        int type;
        int id;
        size_t padding;
    } table[] = {{BEGIN, 1, 0}, {BEGIN, 2, 0},      {ABORT, 1, 0},  {STDIN, 1, 0}, {DATA, 1, 0},
                 {0, 1, 0},     {GET_VALUES, 0, 0}, {PARAMS, 2, 0}, {99, 0, 0},    {PARAMS, 1, 1}};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct buf bytes = {0};
        add_begin(&bytes, 1);
        add_record(&bytes, table[i].type, table[i].id, "", 0, table[i].padding);
        assert_int_equal(scan(&bytes), FRAMING_BROKEN);
        buf_clear(&bytes);
    }
}

static void test_pairs(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
        enum framing want;
    } table[] = {
        {"", 0, FRAMING_WHOLE},
        {"\x01\x01"
         "ab",
         4, FRAMING_WHOLE},
        {"\x01\x00"
         "a",
         3, FRAMING_WHOLE},
        {"\x80\0\0\1\x80\0\0\1ab", 10, FRAMING_WHOLE},
        {"\x01", 1, FRAMING_BROKEN},
        {"\x80\0\0", 3, FRAMING_BROKEN},
        {"\x01\x01"
         "a",
         3, FRAMING_BROKEN},
        {"\x00\x01"
         "b",
         3, FRAMING_BROKEN}, /* no name */
        {"\x01\x01\0b", 4, FRAMING_BROKEN},
        {"\x01\x01"
         "a\0",
         4, FRAMING_BROKEN},
        {"\x01\x01=b", 4, FRAMING_BROKEN},
        {"\x01\x01"
         "a=",
         4, FRAMING_WHOLE},
        {"\xff\xff\xff\xff\xff\xff\xff\xff", 8, FRAMING_BROKEN},
        {"\x80\1\0\1\x00", 5, FRAMING_BROKEN},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct buf bytes = {0};
        add_begin(&bytes, 1);
        add_stream(&bytes, PARAMS, table[i].bytes, table[i].len, 100);
        add_record(&bytes, STDIN, 1, "", 0, 0);
        assert_int_equal(scan(&bytes), table[i].want);
        buf_clear(&bytes);
    }
}

static void test_limits(void **state)
{
    (void)state;
    static char large[FRAMING_STDIN_MAX + 1];
    memset(large, 'x', sizeof large);
    static const struct {
        size_t value_len; /* beside 9 bytes of lengths and name */
        size_t stdin_len;
        enum framing want;
    } table[] = {
        {FRAMING_PARAMS_MAX - 9, FRAMING_STDIN_MAX, FRAMING_WHOLE},
        {FRAMING_PARAMS_MAX - 8, 0, FRAMING_BROKEN},
        {0, FRAMING_STDIN_MAX + 1, FRAMING_BROKEN},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct buf pairs = {0};
        struct buf bytes = {0};
        add_pair(&pairs, "A", large, table[i].value_len);
        add_begin(&bytes, 1);
        add_stream(&bytes, PARAMS, pairs.data, pairs.len, 50000);
        add_stream(&bytes, STDIN, large, table[i].stdin_len, 50000);
        assert_int_equal(scan(&bytes), table[i].want);
        buf_clear(&pairs);
        buf_clear(&bytes);
    }
}

static void test_longer_than_any_request_is_broken(void **state)
{
    (void)state;
    struct buf bytes = {0};
    add_begin(&bytes, 1);
    while (bytes.len <= FRAMING_REQUEST_MAX) {
        add_record(&bytes, PARAMS, 1,
                   "\x01\x00"
                   "a",
                   3, 255);
    }
    assert_int_equal(scan(&bytes), FRAMING_BROKEN);
    buf_clear(&bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_in_records_of_any_size),
        cmocka_unit_test(test_every_beginning_is_partial),
        cmocka_unit_test(test_one_byte_more_is_broken),
        cmocka_unit_test(test_header_of_begin),
        cmocka_unit_test(test_wrong_version_is_seen_at_its_first_byte),
        cmocka_unit_test(test_record_out_of_place),
        cmocka_unit_test(test_pairs),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_longer_than_any_request_is_broken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
