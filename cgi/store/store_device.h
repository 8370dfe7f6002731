/* Devices that wait for a login (RFC 8628). Keys, after REDIS_PREFIX:
 *   device:{n}     hash: state, until (ms, when its codes expire), polled (ms, when it was told to
 *                  wait), interval (ms, once it was told to slow down), looks; sealed: answer
 *   user-code:{h}  string: the sealed record of the device, under the user code
 *   guesses:{h}    counter of wrong user codes, from one address or in all
 *
 * {n} is the public name of the device code's boxes (base/seal_box.h), so that a browser can leave
 * there what only the device can read. All functions wait, and give ERR_STORE when Redis was not
 * reached in time. */
#ifndef STORE_STORE_DEVICE_H
#define STORE_STORE_DEVICE_H

#include "store/store.h"

/* A user code as it is stored: capitals without the dash (RFC 8628 6.1). */
#define USER_CODE_LEN 8

/* D2: store a device under both codes, for LOGIN_TTL. ERR_USED: another device has this user code.
 */
enum err store_put_device(struct store *store, const struct secret *device_code,
                          const char *user_code, const char *scope);

/* D3: the device that waits under that user code. ERR_ABSENT: none, or no longer, or it was looked
 * up too often. device_clear is the caller's on OK. */
enum err store_find_device(struct store *store, const char *user_code, struct device *out);

/* D5, D6: leave an answer for a device that waits: a handle, or NULL for a no. ERR_ABSENT: it has
 * one, or its codes have expired. */
enum err store_answer_device(struct store *store, const char *name, const struct secret *handle);

/* D7: what the device is told. OK: *handle is its answer. ERR_PENDING; ERR_SLOW_DOWN: less than
 * interval_ms after the last time that it was told to wait, and each time longer_ms more from then
 * on; ERR_DENIED; ERR_EXPIRED; ERR_ABSENT. */
enum err store_poll_device(struct store *store, const struct secret *device_code,
                           int64_t interval_ms, int64_t longer_ms, struct secret *handle);

/* D8: once. ERR_USED: another has taken it. */
enum err store_take_device(struct store *store, const struct secret *device_code);

/* Add by to the wrong user codes of that guesser (any text), which are forgotten window_ms after
 * the first. *count: how many there are now. */
enum err store_count_guess(struct store *store, const char *guesser, int by, int64_t window_ms,
                           int64_t *count);

#endif
