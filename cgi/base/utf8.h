/* UTF-8 (RFC 3629). */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stddef.h>

/* Length of the character that text begins with, 0 at its NUL and where it is not a valid one: no
 * overlong form, no surrogate, nothing past U+10FFFF. Reads no byte after a wrong one, so never
 * past the NUL. */
size_t utf8_len(const char *text);

#endif
