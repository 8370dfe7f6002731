/* Retry-After shared through Redis, so that a limit which one worker met is kept by all of them. */
#include "flows/backoff.h"

#include "base/clock.h"
#include "base/log.h"

static int64_t cap_s(int64_t seconds)
{
    return seconds < BACKOFF_MAX_S ? seconds : BACKOFF_MAX_S;
}

enum err backoff_check(struct service *service, int64_t *retry_after_s)
{
    int64_t until_ms = 0;
    if (store_get_backoff(service->store, &until_ms) != OK) {
        return OK;
    }
    int64_t left_ms = until_ms - clock_unix_ms();
    if (left_ms <= 0) {
        return OK;
    }
    *retry_after_s = cap_s(left_ms / 1000 + 1); /* the clocks of two machines may differ */
    return ERR_UPSTREAM;
}

int64_t backoff_note(struct service *service, int64_t retry_after_s)
{
    if (retry_after_s <= 0) {
        return 0;
    }
    int64_t kept_s = cap_s(retry_after_s);
    log_warn("spotify asks to wait", LOG_NUMBER("retry_after_s", retry_after_s),
             LOG_NUMBER("kept_s", kept_s));
    (void)store_put_backoff(service->store, clock_unix_ms() + kept_s * 1000);
    return kept_s;
}
