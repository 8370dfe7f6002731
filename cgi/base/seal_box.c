/* A key pair that is made from a secret whenever it is needed; the rest is libsodium's. */
#include "base/seal_box.h"

#include <sodium.h>
#include <string.h>

_Static_assert(BOX_LEN == SECRET_LEN + crypto_box_SEALBYTES, "length of a box");
_Static_assert(SECRET_LEN == crypto_box_SEEDBYTES, "a secret is a seed");
_Static_assert(SECRET_LEN == crypto_box_PUBLICKEYBYTES, "a public key has a name's length");

static void make_pair(const struct secret *holder, struct secret *public,
                      uint8_t private[static crypto_box_SECRETKEYBYTES])
{
    crypto_box_seed_keypair(public->bytes, private, holder->bytes);
}

void box_name(const struct secret *holder, char out[static SECRET_NAME_LEN + 1])
{
    struct secret public;
    uint8_t private[crypto_box_SECRETKEYBYTES];
    make_pair(holder, &public, private);
    secret_format(&public, out);
    sodium_memzero(private, sizeof private);
}

enum err box_fill(const char *name, const struct secret *content, uint8_t out[static BOX_LEN])
{
    struct secret public;
    if (secret_parse(name, &public) != OK ||
        crypto_box_seal(out, content->bytes, SECRET_LEN, public.bytes) != 0) {
        return ERR_FORMAT;
    }
    return OK;
}

enum err box_open(const struct secret *holder, const void *box, size_t len, struct secret *content)
{
    struct secret public;
    uint8_t private[crypto_box_SECRETKEYBYTES];
    make_pair(holder, &public, private);
    int failed = len != BOX_LEN ||
                 crypto_box_seal_open(content->bytes, box, len, public.bytes, private) != 0;
    sodium_memzero(private, sizeof private);
    if (failed) {
        secret_wipe(content);
        return ERR_SEAL;
    }
    return OK;
}
