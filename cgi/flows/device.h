/* Login for programs without a browser (RFC 8628, device authorization grant). The steps, cited in
 * the code:
 *   D1  a device asks; its scope is checked (the route table)
 *   D2  a code for the device and one for a person to type, stored under their hashes
 *   D3  the page: the person's code is looked up; wrong ones are counted, by address and in all
 *   D4  yes or no, from our own page in this browser (the handler)
 *   D5  no: the device is told so. Yes: a login begins (L2 to L5) that knows whose it is
 *   D6  in the callback, in place of C5 and C6: a session under a handle, left in a sealed box
 *   D7  the device asks how it stands
 *   D8  it gets the handle and a token, once
 * The handle is the device's own, and the box opens to the device code alone. */
#ifndef FLOWS_DEVICE_H
#define FLOWS_DEVICE_H

#include "flows/grant.h"
#include "http/reply.h"
#include "http/request.h"

/* RFC 8628 3.2: seconds between two questions of a device. */
#define DEVICE_INTERVAL_S 5

/* As a person types it: XXXX-XXXX. */
#define DEVICE_USER_CODE_LEN 9

struct device_codes {
    char device_code[SECRET_TEXT_LEN + 1];
    char user_code[DEVICE_USER_CODE_LEN + 1];
};

/* D2. ERR_STORE. */
enum err device_begin(struct service *service, const char *scope, struct device_codes *out);

/* D3: the device that waits for the typed code, in either case, with the dash or without. On OK
 * *out is cleared by the caller, and user_code is the code as it is written. ERR_ABSENT: unknown,
 * used or expired. ERR_SLOW_DOWN: too many wrong ones from this address, or in all. ERR_STORE. */
enum err device_find(struct service *service, const struct request *request, const char *typed,
                     struct device *out, char user_code[static DEVICE_USER_CODE_LEN + 1]);

/* D5: a person said no. ERR_ABSENT: the device has its answer, or its codes have expired. */
enum err device_refuse(struct service *service, const char *name);

/* D6, with C3 and C4. Errors of grant_redeem; ERR_EXPIRED: the device has its answer, or its codes
 * have expired. */
enum err device_give(struct service *service, const struct code_grant *grant, const char *name);

/* D7, D8: answer the device code in text. ERR_PENDING, ERR_SLOW_DOWN, ERR_DENIED, ERR_EXPIRED;
 * ERR_INVALID_GRANT: unknown or used. Else errors that say try again; reply->retry_after_s is set.
 */
enum err device_poll(struct service *service, const char *text, struct reply *reply);

/* Append the address of the page. */
void device_add_url(const struct settings *settings, struct buf *out);

#endif
