/* Boxes: what anybody may fill for the holder of a secret, and only the holder opens (libsodium's
 * sealed boxes: X25519, XSalsa20-Poly1305). For whoever gets something to hand to a holder that is
 * not there. */
#ifndef BASE_SEAL_BOX_H
#define BASE_SEAL_BOX_H

#include "base/seal.h"

#define BOX_LEN (SECRET_LEN + 48)

/* The public name of the holder's boxes: base64url of the public key that the secret gives. */
void box_name(const struct secret *holder, char out[static SECRET_NAME_LEN + 1]);

/* Put content into a box for the holder of that name. ERR_FORMAT: it is no such name. */
enum err box_fill(const char *name, const struct secret *content, uint8_t out[static BOX_LEN]);

/* ERR_SEAL: it is no box for this holder, or was changed. */
enum err box_open(const struct secret *holder, const void *box, size_t len, struct secret *content);

#endif
