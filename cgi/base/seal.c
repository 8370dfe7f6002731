/* All cryptography of the service, by libsodium. A sealed record is an envelope
 *
 *     version (1 byte), length of kid (1 byte), kid, nonce (24 bytes), ciphertext with tag
 *
 * whose header, up to the kid, is part of the associated data: nothing in it can be exchanged.
 * Where records are kept, and under which names, is up to store. */
#include "base/seal.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ENVELOPE_VERSION 1
#define NONCE_LEN crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
#define TAG_LEN crypto_aead_xchacha20poly1305_ietf_ABYTES
/* For a header and what the callers bind to it. */
#define BOUND_ROOM 256

/* Separates this use of the ring's keys from any other. */
static const char seal_context[] = "spotify-auth sealed record 1";

_Static_assert(SEAL_KEY_LEN == crypto_aead_xchacha20poly1305_ietf_KEYBYTES, "AEAD key");
_Static_assert(SEAL_KEY_LEN == crypto_generichash_KEYBYTES, "hash key");
_Static_assert(SECRET_LEN == crypto_generichash_BYTES, "hash length");
_Static_assert(SHA256_LEN == crypto_hash_sha256_BYTES, "SHA-256 length");

void seal_init(void)
{
    if (sodium_init() < 0) {
        abort();
    }
}

void secret_new(struct secret *out)
{
    randombytes_buf(out->bytes, sizeof out->bytes);
}

/* base64url of 32 bytes without padding (RFC 4648 5). */
static void format_32_bytes(const uint8_t bytes[static 32], char out[static 44])
{
    sodium_bin2base64(out, 44, bytes, 32, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
}

void secret_format(const struct secret *secret, char out[static SECRET_TEXT_LEN + 1])
{
    format_32_bytes(secret->bytes, out);
}

/* Decode base64 without padding of exactly len bytes. sodium takes the spare bits of the last
 * character only as 0, so that one value has one text; but 1.0.18 also takes bytes from 0x80 on. */
static enum err decode(const char *text, size_t text_len, int variant, uint8_t *out, size_t len)
{
    size_t decoded = 0;
    bool ascii = true;
    for (size_t i = 0; i < text_len; i++) {
        ascii = ascii && (unsigned char)text[i] < 0x80;
    }
    if (ascii && sodium_base642bin(out, len, text, text_len, NULL, &decoded, NULL, variant) == 0 &&
        decoded == len) {
        return OK;
    }
    sodium_memzero(out, len);
    return ERR_FORMAT;
}

enum err secret_parse(const char *text, struct secret *out)
{
    if (!text || strnlen(text, SECRET_TEXT_LEN + 1) != SECRET_TEXT_LEN) {
        return ERR_FORMAT;
    }
    return decode(text, SECRET_TEXT_LEN, sodium_base64_VARIANT_URLSAFE_NO_PADDING, out->bytes,
                  SECRET_LEN);
}

void secret_wipe(struct secret *secret)
{
    sodium_memzero(secret, sizeof *secret);
}

bool secret_equal(const struct secret *a, const struct secret *b)
{
    return sodium_memcmp(a->bytes, b->bytes, SECRET_LEN) == 0;
}

static void hash_for(const char *purpose, const void *bytes, size_t len,
                     uint8_t out[static crypto_generichash_BYTES])
{
    crypto_generichash_state state;
    crypto_generichash_init(&state, NULL, 0, crypto_generichash_BYTES);
    /* With its NUL, so that no purpose runs over into the bytes. */
    crypto_generichash_update(&state, (const uint8_t *)purpose, strlen(purpose) + 1);
    crypto_generichash_update(&state, bytes, len);
    crypto_generichash_final(&state, out, crypto_generichash_BYTES);
    sodium_memzero(&state, sizeof state);
}

void secret_name(const char *purpose, const void *bytes, size_t len,
                 char out[static SECRET_NAME_LEN + 1])
{
    uint8_t hash[crypto_generichash_BYTES];
    hash_for(purpose, bytes, len, hash);
    format_32_bytes(hash, out);
}

void secret_derive(const char *purpose, const struct secret *from, struct secret *out)
{
    hash_for(purpose, from->bytes, SECRET_LEN, out->bytes);
}

enum err base64_parse(const char *text, size_t text_len, uint8_t *out, size_t len)
{
    size_t digits = text_len;
    while (digits > 0 && text_len - digits < 2 && text[digits - 1] == '=') {
        digits--;
    }
    bool padding_fits = digits == text_len || text_len % 4 == 0;
    bool urlsafe = memchr(text, '-', digits) || memchr(text, '_', digits);

    if (!padding_fits) {
        return ERR_FORMAT;
    }
    return decode(text, digits,
                  urlsafe ? sodium_base64_VARIANT_URLSAFE_NO_PADDING
                          : sodium_base64_VARIANT_ORIGINAL_NO_PADDING,
                  out, len);
}

bool sha256_matches(const char *text, size_t len, const uint8_t hash[static SHA256_LEN])
{
    uint8_t found[crypto_hash_sha256_BYTES];
    crypto_hash_sha256(found, (const uint8_t *)text, len);
    return sodium_memcmp(found, hash, sizeof found) == 0;
}

void base64url_add(struct buf *out, const void *bytes, size_t len)
{
    enum { CHUNK = 48 }; /* a multiple of 3, so that chunks join without a seam */
    char text[CHUNK / 3 * 4 + 1];
    for (const uint8_t *at = bytes; len > 0;) {
        size_t part = len < CHUNK ? len : CHUNK;
        sodium_bin2base64(text, sizeof text, at, part, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
        buf_adds(out, text);
        at += part;
        len -= part;
    }
    sodium_memzero(text, sizeof text);
}

static bool kid_is_valid(const char *kid, size_t len)
{
    static const char allowed[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
    for (size_t i = 0; i < len; i++) {
        if (!memchr(allowed, kid[i], sizeof allowed - 1)) {
            return false;
        }
    }
    return len >= 1 && len <= SEAL_KID_MAX;
}

/* The ring's key of that kid, or NULL. */
static const uint8_t *find_key(const struct key_ring *ring, const void *kid, size_t len)
{
    for (size_t i = 0; i < ring->count; i++) {
        if (strlen(ring->keys[i].kid) == len && memcmp(ring->keys[i].kid, kid, len) == 0) {
            return ring->keys[i].key;
        }
    }
    return NULL;
}

/* Add one entry "kid:base64" to ring. Returns NULL or what is wrong with it. */
static const char *parse_ring_entry(const char *entry, size_t len, struct key_ring *ring)
{
    if (len == 0) {
        return "an entry is empty";
    }
    if (ring->count == SEAL_RING_MAX) {
        return "more than 16 keys";
    }
    const char *colon = memchr(entry, ':', len);
    if (!colon) {
        return "an entry has no colon between the key's name and the key";
    }
    size_t kid_len = (size_t)(colon - entry);
    if (!kid_is_valid(entry, kid_len)) {
        return "a key's name is not 1 to 16 characters of A-Z a-z 0-9 _ -";
    }
    if (find_key(ring, entry, kid_len)) {
        return "two keys have the same name";
    }
    if (base64_parse(colon + 1, len - kid_len - 1, ring->keys[ring->count].key, SEAL_KEY_LEN) !=
        OK) {
        return "a key is not base64 of exactly 32 bytes";
    }
    memcpy(ring->keys[ring->count].kid, entry, kid_len);
    ring->count++;
    return NULL;
}

enum err key_ring_parse(const char *text, struct key_ring *out, const char **problem)
{
    *out = (struct key_ring){0};
    *problem = NULL;
    const char *entry = text;
    for (;;) {
        entry += strspn(entry, " ");
        size_t len = strcspn(entry, ",");
        const char *next = entry + len;
        while (len > 0 && entry[len - 1] == ' ') {
            len--;
        }
        *problem = parse_ring_entry(entry, len, out);
        if (*problem || *next == '\0') {
            break;
        }
        entry = next + 1;
    }
    if (*problem) {
        key_ring_wipe(out);
        return ERR_FORMAT;
    }
    return OK;
}

void key_ring_wipe(struct key_ring *ring)
{
    sodium_memzero(ring, sizeof *ring);
}

void key_ring_new_entry(struct buf *out)
{
    /* The random end keeps two keys of one day apart. */
    time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    char day[sizeof "20260131"];
    strftime(day, sizeof day, "%Y%m%d", &utc);
    buf_addf(out, "k%s-%04x:", day, (unsigned)randombytes_uniform(0x10000));

    uint8_t key[SEAL_KEY_LEN];
    randombytes_buf(key, sizeof key);
    base64url_add(out, key, sizeof key);
    sodium_memzero(key, sizeof key);
}

/* The key of one record needs both the ring's key and the secret of the browser: BLAKE2b of
 * both, each of fixed length, so that no other pair gives the same bytes; they fill one block of
 * it, where its keyed mode (RFC 7693 2.9) would take two on each request's way. */
static void derive_key(const uint8_t ring_key[static SEAL_KEY_LEN], const struct secret *secret,
                       uint8_t out[static SEAL_KEY_LEN])
{
    uint8_t block[SEAL_KEY_LEN + SECRET_LEN + sizeof seal_context];
    memcpy(block, ring_key, SEAL_KEY_LEN);
    memcpy(block + SEAL_KEY_LEN, secret->bytes, SECRET_LEN);
    memcpy(block + SEAL_KEY_LEN + SECRET_LEN, seal_context, sizeof seal_context);
    crypto_generichash(out, SEAL_KEY_LEN, block, sizeof block, NULL, 0);
    sodium_memzero(block, sizeof block);
}

void seal_seal(const struct key_ring *ring, const struct secret *secret, const struct buf *aad,
               const struct buf *plain, struct buf *out)
{
    const char *kid = ring->keys[0].kid;
    const char start[2] = {ENVELOPE_VERSION, (char)strlen(kid)};
    char room[BOUND_ROOM];
    struct buf bound = BUF_ROOM(room); /* the header, then aad */
    buf_add(&bound, start, sizeof start);
    buf_adds(&bound, kid);
    buf_add(out, bound.data, bound.len);
    buf_add(&bound, aad->data, aad->len);

    uint8_t nonce[NONCE_LEN];
    randombytes_buf(nonce, sizeof nonce);
    buf_add(out, nonce, sizeof nonce);

    /* Encrypted where it stands in out. */
    size_t text_at = out->len;
    static const uint8_t tag_space[TAG_LEN];
    buf_add(out, plain->data, plain->len);
    buf_add(out, tag_space, sizeof tag_space);
    uint8_t *text = (uint8_t *)out->data + text_at;

    uint8_t key[SEAL_KEY_LEN];
    derive_key(ring->keys[0].key, secret, key);
    crypto_aead_xchacha20poly1305_ietf_encrypt_detached(text, text + plain->len, NULL, text,
                                                        plain->len, (const uint8_t *)bound.data,
                                                        bound.len, NULL, nonce, key);
    sodium_memzero(key, sizeof key);
    buf_clear(&bound);
}

enum err seal_open(const struct key_ring *ring, const struct secret *secret, const struct buf *aad,
                   const void *sealed, size_t sealed_len, struct buf *plain)
{
    const uint8_t *header = sealed;
    buf_reset(plain);
    if (sealed_len < 2 || header[0] != ENVELOPE_VERSION || header[1] > SEAL_KID_MAX) {
        return ERR_SEAL;
    }
    size_t header_len = 2 + (size_t)header[1];
    if (sealed_len < header_len + NONCE_LEN + TAG_LEN) {
        return ERR_SEAL;
    }
    const uint8_t *ring_key = find_key(ring, header + 2, header[1]);
    if (!ring_key) {
        return ERR_SEAL_KEY;
    }

    char room[BOUND_ROOM];
    struct buf bound = BUF_ROOM(room);
    buf_add(&bound, header, header_len);
    buf_add(&bound, aad->data, aad->len);
    uint8_t key[SEAL_KEY_LEN];
    derive_key(ring_key, secret, key);

    /* Decrypted where it stands in plain. */
    const uint8_t *nonce = header + header_len;
    const uint8_t *text = nonce + NONCE_LEN;
    size_t text_len = sealed_len - header_len - NONCE_LEN - TAG_LEN;
    buf_add(plain, text, text_len);
    int failed = crypto_aead_xchacha20poly1305_ietf_decrypt_detached(
        (uint8_t *)plain->data, NULL, (const uint8_t *)plain->data, text_len, text + text_len,
        (const uint8_t *)bound.data, bound.len, nonce, key);
    sodium_memzero(key, sizeof key);
    buf_clear(&bound);
    if (failed) {
        buf_reset(plain);
        return ERR_SEAL;
    }
    return OK;
}

void pkce_new_verifier(char out[static PKCE_LEN + 1])
{
    struct secret random;
    secret_new(&random);
    secret_format(&random, out);
    secret_wipe(&random);
}

void pkce_challenge(const char *verifier, char out[static PKCE_LEN + 1])
{
    uint8_t hash[crypto_hash_sha256_BYTES];
    crypto_hash_sha256(hash, (const uint8_t *)verifier, strlen(verifier));
    format_32_bytes(hash, out);
}
