/* Time. Unix time for what is stored and shared between machines, monotonic for what is measured.
 */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

int64_t clock_unix_s(void);
int64_t clock_unix_ms(void);
uint64_t clock_mono_ms(void);
uint64_t clock_mono_us(void);

/* Format "2026-01-31T23:59:59.123Z" into out. */
void clock_format_now(char out[static 25]);

#endif
