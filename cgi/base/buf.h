/* A byte buffer that grows. What was written is always followed by a NUL that len does not count,
 * so that data may be read as a C string where its content is known to hold none. Out of memory
 * aborts. */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>

struct buf {
    char *data; /* owned, unless is_room; NULL until the first write */
    size_t len;
    size_t cap;
    bool is_room; /* data is the caller's array, as yet */
};

/* A buffer that begins in an array of the caller's, which has to live as long, and moves to memory
 * of its own when that is outgrown: for the short-lived ones that each request makes. */
#define BUF_ROOM(array) ((struct buf){.data = (array), .cap = sizeof(array), .is_room = true})

void buf_add(struct buf *buf, const void *bytes, size_t len);
void buf_adds(struct buf *buf, const char *text);
void buf_addc(struct buf *buf, char c);
void buf_addf(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The content as a C string; "" while nothing was written. Borrowed until the next write. */
const char *buf_str(const struct buf *buf);

/* Hand the content over as a C string that the caller frees; buf is empty afterwards. */
char *buf_take(struct buf *buf);

/* Forget the content, keep the memory. */
void buf_reset(struct buf *buf);

/* Wipe the content (it may have held a secret), free the memory. */
void buf_clear(struct buf *buf);

/* malloc, strdup and strndup that abort when memory is out. */
void *xcalloc(size_t count, size_t size);
char *xstrdup(const char *text); /* NULL gives NULL */
char *xstrndup(const char *text, size_t len);

/* Wipe and free a string that held a secret; NULL is fine. */
void xfree_secret(char *text);

#endif
