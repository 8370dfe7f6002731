/* Reads FastCGI records as bytes only: where each begins and ends, and whether what the web server
 * sends is one request that libfcgi can read to its end without waiting. It answers nothing and
 * keeps nothing. It is stricter than the protocol where libfcgi is laxer or reads something else
 * than was sent; what is whole here means the same to libfcgi.
 *
 * FastCGI 1.0: records 3.3, name-value pairs 3.4, BEGIN_REQUEST 5.1, streams 5.2 and 5.3. */
#include "front/framing.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { VERSION = 1, HEADER_LEN = 8, BEGIN_LEN = 8 };
enum { TYPE_BEGIN_REQUEST = 1, TYPE_PARAMS = 4, TYPE_STDIN = 5 };
enum { ROLE_RESPONDER = 1 };

/* One record as its header describes it. */
struct record {
    unsigned type;
    unsigned id;
    size_t content_len;
    size_t padding_len;
};

/* How far the PARAMS stream was read: its records may be cut anywhere, also within a pair. */
struct pairs {
    unsigned char lengths[8];
    size_t lengths_len; /* of lengths, read so far for the coming pair */
    size_t name_left;   /* of the pair whose lengths are known */
    size_t value_left;
};

/* What was seen of the request. expected is the type that has to come next. */
struct scan {
    unsigned expected;
    unsigned id;
    size_t params_len;
    size_t stdin_len;
    struct pairs pairs;
};

static unsigned read_16(const unsigned char *bytes)
{
    return (unsigned)bytes[0] << 8 | bytes[1];
}

static struct record record_read(const unsigned char *header)
{
    return (struct record){.type = header[1],
                           .id = read_16(header + 2),
                           .content_len = read_16(header + 4),
                           .padding_len = header[6]};
}

/* 3.4: one byte below 128, or four with the top bit set. Takes one length from the front of bytes;
 * 0 when there is not enough of it yet, else how many bytes it took. */
static size_t length_read(const unsigned char *bytes, size_t len, size_t *out)
{
    if (len >= 1 && bytes[0] < 0x80) {
        *out = bytes[0];
        return 1;
    }
    if (len >= 4) {
        *out = (size_t)(bytes[0] & 0x7f) << 24 | (size_t)bytes[1] << 16 | read_16(bytes + 2);
        return 4;
    }
    return 0;
}

/* One more byte of a pair's two lengths. False when no such pair can be taken: an empty name, or
 * more than the stream may hold, which libfcgi would allocate unseen (CVE-2025-23016). */
static bool pairs_take_length(struct pairs *pairs, unsigned char byte)
{
    pairs->lengths[pairs->lengths_len++] = byte;
    size_t name_len;
    size_t value_len;
    size_t taken = length_read(pairs->lengths, pairs->lengths_len, &name_len);
    if (taken == 0 ||
        length_read(pairs->lengths + taken, pairs->lengths_len - taken, &value_len) == 0) {
        return true;
    }
    if (name_len == 0 || name_len > FRAMING_PARAMS_MAX || value_len > FRAMING_PARAMS_MAX) {
        return false;
    }
    pairs->lengths_len = 0;
    pairs->name_left = name_len;
    pairs->value_left = value_len;
    return true;
}

/* Take the content of one PARAMS record. False on a NUL anywhere, which would cut what a C string
 * shows, and on '=' in a name: libfcgi joins name and value with one. */
static bool pairs_take(struct pairs *pairs, const unsigned char *bytes, size_t len)
{
    while (len > 0) {
        size_t taken = 1;
        if (pairs->name_left > 0) {
            taken = pairs->name_left < len ? pairs->name_left : len;
            pairs->name_left -= taken;
            if (memchr(bytes, '=', taken) != NULL || memchr(bytes, 0, taken) != NULL) {
                return false;
            }
        } else if (pairs->value_left > 0) {
            taken = pairs->value_left < len ? pairs->value_left : len;
            pairs->value_left -= taken;
            if (memchr(bytes, 0, taken) != NULL) {
                return false;
            }
        } else if (!pairs_take_length(pairs, *bytes)) {
            return false;
        }
        bytes += taken;
        len -= taken;
    }
    return true;
}

static bool pairs_complete(const struct pairs *pairs)
{
    return pairs->lengths_len == 0 && pairs->name_left == 0 && pairs->value_left == 0;
}

/* May this record come now? Judged by its header alone, before its content is here. */
static bool record_fits(const struct scan *scan, const struct record *record)
{
    if (record->type != scan->expected || record->id == 0) {
        return false;
    }
    if (record->type == TYPE_BEGIN_REQUEST) {
        /* libfcgi forgets to skip padding here, and after the end of a stream. */
        return record->content_len == BEGIN_LEN && record->padding_len == 0;
    }
    if (record->id != scan->id || (record->content_len == 0 && record->padding_len > 0)) {
        return false;
    }
    if (record->type == TYPE_PARAMS) {
        return record->content_len <= FRAMING_PARAMS_MAX - scan->params_len;
    }
    return record->content_len <= FRAMING_STDIN_MAX - scan->stdin_len;
}

/* Take a record that fits and is all here. False when its content is broken. */
static bool record_take(struct scan *scan, const struct record *record,
                        const unsigned char *content)
{
    switch (record->type) {
    case TYPE_BEGIN_REQUEST:
        scan->id = record->id;
        scan->expected = TYPE_PARAMS;
        return read_16(content) == ROLE_RESPONDER;
    case TYPE_PARAMS:
        if (record->content_len == 0) {
            scan->expected = TYPE_STDIN;
            return pairs_complete(&scan->pairs);
        }
        scan->params_len += record->content_len;
        return pairs_take(&scan->pairs, content, record->content_len);
    default:
        scan->stdin_len += record->content_len;
        return true;
    }
}

enum framing framing_scan(const unsigned char *bytes, size_t len, size_t *needed)
{
    struct scan scan = {.expected = TYPE_BEGIN_REQUEST};
    size_t at = 0;
    if (len > FRAMING_REQUEST_MAX) {
        return FRAMING_BROKEN;
    }
    for (;;) {
        if (len > at && bytes[at] != VERSION) {
            return FRAMING_BROKEN;
        }
        if (len - at < HEADER_LEN) {
            *needed = at + HEADER_LEN;
            return FRAMING_PARTIAL;
        }
        struct record record = record_read(bytes + at);
        if (!record_fits(&scan, &record)) {
            return FRAMING_BROKEN;
        }
        size_t content_at = at + HEADER_LEN;
        at = content_at + record.content_len + record.padding_len;
        if (at > len) {
            /* Whatever this is, at least one more header has to follow it. */
            *needed = at + HEADER_LEN;
            return *needed <= FRAMING_REQUEST_MAX ? FRAMING_PARTIAL : FRAMING_BROKEN;
        }
        if (!record_take(&scan, &record, bytes + content_at)) {
            return FRAMING_BROKEN;
        }
        if (record.type == TYPE_STDIN && record.content_len == 0) {
            return at == len ? FRAMING_WHOLE : FRAMING_BROKEN;
        }
    }
}
