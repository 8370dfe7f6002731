/* The breaker for mass refusals: no state of its own, but what all workers counted in Redis. */
#include "flows/refusals.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"

enum err refusals_look(struct service *service, bool *is_mass)
{
    struct verdicts verdicts = {0};
    int64_t now_s = clock_unix_s();
    /* A count keeps Redis busy, and in masses every refusal would ask for one. */
    if (service->refusals_mass && service->refusals_looked_s == now_s) {
        *is_mass = true;
        return OK;
    }
    enum err err = store_count_verdicts(service->store, &verdicts);
    if (err != OK) {
        return err;
    }
    service->refusals_looked_s = now_s;
    *is_mass =
        verdicts.sessions >= REFUSALS_SESSIONS_MIN && 2 * verdicts.refused > verdicts.sessions;
    metrics_set_mass_refusal(*is_mass);
    if (*is_mass != service->refusals_mass) {
        service->refusals_mass = *is_mass;
        log_error(*is_mass ? "most renewals refused: no session is ended"
                           : "renewals no longer refused: sessions are ended again",
                  LOG_NUMBER("refused", verdicts.refused),
                  LOG_NUMBER("sessions", verdicts.sessions));
    }
    return OK;
}
