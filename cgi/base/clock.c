/* Reads the system's clocks. Nothing here waits. */
#include "base/clock.h"

#include <string.h>
#include <time.h>

static struct timespec now(clockid_t id)
{
    struct timespec time = {0};
    clock_gettime(id, &time);
    return time;
}

int64_t clock_unix_s(void)
{
    return now(CLOCK_REALTIME).tv_sec;
}

int64_t clock_unix_ms(void)
{
    struct timespec time = now(CLOCK_REALTIME);
    return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

uint64_t clock_mono_ms(void)
{
    return clock_mono_us() / 1000;
}

uint64_t clock_mono_us(void)
{
    struct timespec time = now(CLOCK_MONOTONIC);
    return (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_nsec / 1000;
}

void clock_format_now(char out[static 25])
{
    /* Every log line asks; the date changes once a second. */
    static _Thread_local time_t formatted_s = -1;
    static _Thread_local char text[sizeof "2026-01-31T23:59:59.123Z"];

    struct timespec time = now(CLOCK_REALTIME);
    if (time.tv_sec != formatted_s) {
        struct tm utc;
        gmtime_r(&time.tv_sec, &utc);
        strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S.000Z", &utc);
        formatted_s = time.tv_sec;
    }
    memcpy(out, text, sizeof text);
    long ms = time.tv_nsec / 1000000;
    out[20] = (char)('0' + ms / 100);
    out[21] = (char)('0' + ms / 10 % 10);
    out[22] = (char)('0' + ms % 10);
}
