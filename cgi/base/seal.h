/* Secrets and sealing (libsodium). A record in Redis is sealed with XChaCha20-Poly1305 under a key
 * that is derived from a key of the ring AND the 256-bit secret in the browser's cookie, with the
 * Redis key's name as associated data: Redis and the server's keys together open nothing. */
#ifndef BASE_SEAL_H
#define BASE_SEAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

#define SEAL_KEY_LEN 32
#define SEAL_RING_MAX 16
#define SEAL_KID_MAX 16
#define SECRET_LEN 32
#define SECRET_TEXT_LEN 43 /* base64url of 32 bytes, no padding */
#define SECRET_NAME_LEN 43 /* the same of a 256-bit hash */

/* 256 bits that only their holder knows: a session id, a login's browser binding, a state. */
struct secret {
    uint8_t bytes[SECRET_LEN];
};

/* SESSION_KEYS: the first seals, all open. kid is 1 to SEAL_KID_MAX characters of A-Za-z0-9_- */
struct key_ring {
    size_t count;
    struct {
        char kid[SEAL_KID_MAX + 1];
        uint8_t key[SEAL_KEY_LEN];
    } keys[SEAL_RING_MAX];
};

/* Call once before anything else here; aborts if libsodium cannot start. */
void seal_init(void);

void secret_new(struct secret *out);
void secret_format(const struct secret *secret, char out[static SECRET_TEXT_LEN + 1]);
/* ERR_FORMAT unless text is exactly the 43 characters that secret_format makes. NULL is refused
 * too. */
enum err secret_parse(const char *text, struct secret *out);
void secret_wipe(struct secret *secret);
bool secret_equal(const struct secret *a, const struct secret *b);

/* The public name of something secret: base64url of BLAKE2b-256 over purpose and the bytes. One
 * name of one purpose says nothing of the secret or of its name for another purpose. */
void secret_name(const char *purpose, const void *bytes, size_t len,
                 char out[static SECRET_NAME_LEN + 1]);

/* Another secret for one purpose, which only who knows from can make; it says nothing of from. out
 * may be from. */
void secret_derive(const char *purpose, const struct secret *from, struct secret *out);

/* Parse "kid:base64(32 bytes),..." (both alphabets, with or without padding). On ERR_FORMAT
 * *problem is a static text that says what is wrong, without any part of the value. */
enum err key_ring_parse(const char *text, struct key_ring *out, const char **problem);
void key_ring_wipe(struct key_ring *ring);

/* Decode base64 of either alphabet, padded or not, of exactly len bytes. ERR_FORMAT else. */
enum err base64_parse(const char *text, size_t text_len, uint8_t *out, size_t len);
/* Whether hash is the SHA-256 of the len bytes of text, in a time that says nothing of either. */
#define SHA256_LEN 32
bool sha256_matches(const char *text, size_t len, const uint8_t hash[static SHA256_LEN]);

/* base64url without padding, appended to out. */
void base64url_add(struct buf *out, const void *bytes, size_t len);

/* A fresh key as an entry for SESSION_KEYS ("k20260131:..."): for --new-key. */
void key_ring_new_entry(struct buf *out);

/* Seal len bytes of plain, appended to out. aad is the name of the Redis key and whatever else must
 * not be exchanged. */
void seal_seal(const struct key_ring *ring, const struct secret *secret, const struct buf *aad,
               const struct buf *plain, struct buf *out);

/* Open what seal_seal made; plain is filled on OK. ERR_SEAL: cut, changed, or another secret's,
 * name's. ERR_SEAL_KEY: its kid is not in the ring. */
enum err seal_open(const struct key_ring *ring, const struct secret *secret, const struct buf *aad,
                   const void *sealed, size_t sealed_len, struct buf *plain);

/* PKCE (RFC 7636 4.1, 4.2): a verifier of 43 characters from 256 random bits; its S256 challenge.
 */
#define PKCE_LEN 43
void pkce_new_verifier(char out[static PKCE_LEN + 1]);
void pkce_challenge(const char *verifier, char out[static PKCE_LEN + 1]);

#endif
