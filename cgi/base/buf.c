/* Bytes that grow, and memory that does not run out. A buffer may hold a secret, so its memory is
 * wiped wherever it is left behind: when it grows (realloc would leave the old copy), is reset or
 * cleared. What the bytes mean is up to the caller. */
#include "base/buf.h"

#include <sodium.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUF_FIRST_CAP 512

static void release(struct buf *buf)
{
    if (buf->data) {
        sodium_memzero(buf->data, buf->cap);
    }
    if (!buf->is_room) {
        free(buf->data);
    }
}

static void grow(struct buf *buf, size_t len)
{
    if (len >= SIZE_MAX / 2 - buf->len) {
        abort();
    }
    size_t need = buf->len + len + 1;
    size_t cap = buf->cap ? buf->cap : BUF_FIRST_CAP;
    while (cap < need) {
        cap *= 2;
    }
    char *data = malloc(cap);
    if (!data) {
        abort();
    }
    if (buf->len > 0) {
        memcpy(data, buf->data, buf->len);
    }
    release(buf);
    *buf = (struct buf){.data = data, .len = buf->len, .cap = cap};
}

/* Make room for len more bytes and the NUL. */
static inline void reserve(struct buf *buf, size_t len)
{
    if (len >= buf->cap - buf->len) {
        grow(buf, len);
    }
}

void buf_add(struct buf *buf, const void *bytes, size_t len)
{
    reserve(buf, len);
    if (len > 0) {
        memcpy(buf->data + buf->len, bytes, len);
    }
    buf->len += len;
    buf->data[buf->len] = '\0';
}

void buf_adds(struct buf *buf, const char *text)
{
    buf_add(buf, text, strlen(text));
}

void buf_addc(struct buf *buf, char c)
{
    reserve(buf, 1);
    buf->data[buf->len++] = c;
    buf->data[buf->len] = '\0';
}

void buf_addf(struct buf *buf, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    va_list again;
    va_copy(again, args);

    reserve(buf, 0);
    size_t room = buf->cap - buf->len;
    int len = vsnprintf(buf->data + buf->len, room, format, args);
    if (len < 0) {
        abort();
    }
    if ((size_t)len >= room) {
        reserve(buf, (size_t)len);
        vsnprintf(buf->data + buf->len, (size_t)len + 1, format, again);
    }
    buf->len += (size_t)len;

    va_end(again);
    va_end(args);
}

const char *buf_str(const struct buf *buf)
{
    return buf->len > 0 ? buf->data : "";
}

char *buf_take(struct buf *buf)
{
    char *text = buf->data;
    if (text && !buf->is_room) {
        text[buf->len] = '\0';
    } else {
        text = xstrndup(buf_str(buf), buf->len);
        release(buf);
    }
    *buf = (struct buf){0};
    return text;
}

void buf_reset(struct buf *buf)
{
    if (buf->data) {
        sodium_memzero(buf->data, buf->len);
    }
    buf->len = 0;
}

void buf_clear(struct buf *buf)
{
    release(buf);
    *buf = (struct buf){0};
}

void *xcalloc(size_t count, size_t size)
{
    void *memory = calloc(count, size);
    if (!memory) {
        abort();
    }
    return memory;
}

char *xstrdup(const char *text)
{
    return text ? xstrndup(text, strlen(text)) : NULL;
}

char *xstrndup(const char *text, size_t len)
{
    char *copy = strndup(text, len);
    if (!copy) {
        abort();
    }
    return copy;
}

void xfree_secret(char *text)
{
    if (text) {
        sodium_memzero(text, strlen(text));
    }
    free(text);
}
