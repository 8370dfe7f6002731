/* Sealing: a record opens with its key, its secret and its name, whole, and in no other way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/seal.h"

#define KEY_A "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
#define KEY_B "__________________________________________8"

/* A sealed record and all that opens it. */
struct sealed {
    struct key_ring ring;
    struct secret secret;
    struct buf aad;
    struct buf plain;
    struct buf envelope;
};

static struct key_ring ring_of(const char *text)
{
    struct key_ring ring;
    const char *problem;
    assert_int_equal(key_ring_parse(text, &ring, &problem), OK);
    return ring;
}

static void seal_text(struct sealed *sealed, const char *plain)
{
    *sealed = (struct sealed){.ring = ring_of("a:" KEY_A ",b:" KEY_B)};
    secret_new(&sealed->secret);
    buf_adds(&sealed->aad, "session:name");
    buf_adds(&sealed->plain, plain);
    seal_seal(&sealed->ring, &sealed->secret, &sealed->aad, &sealed->plain, &sealed->envelope);
}

static void clear(struct sealed *sealed)
{
    buf_clear(&sealed->aad);
    buf_clear(&sealed->plain);
    buf_clear(&sealed->envelope);
}

/* Try to open it as it stands; on OK the text must be the one that was sealed. */
static enum err open(const struct sealed *sealed)
{
    struct buf plain = {0};
    buf_adds(&plain, "left over");
    enum err err = seal_open(&sealed->ring, &sealed->secret, &sealed->aad, sealed->envelope.data,
                             sealed->envelope.len, &plain);
    assert_string_equal(buf_str(&plain), err == OK ? buf_str(&sealed->plain) : "");
    buf_clear(&plain);
    return err;
}

static void what_was_sealed_opens(void **state)
{
    (void)state;
    static const char *const texts[] = {"", "x", "{\"access\":\"a token of some length\"}"};
    for (size_t i = 0; i < 3; i++) {
        struct sealed sealed;
        seal_text(&sealed, texts[i]);
        assert_int_equal(open(&sealed), OK);
        clear(&sealed);
    }
}

static void sealing_appends_and_never_repeats(void **state)
{
    (void)state;
    struct sealed sealed;
    seal_text(&sealed, "the text that nobody shall see");
    size_t len = sealed.envelope.len;
    seal_seal(&sealed.ring, &sealed.secret, &sealed.aad, &sealed.plain, &sealed.envelope);
    assert_int_equal(sealed.envelope.len, 2 * len);
    assert_memory_not_equal(sealed.envelope.data, sealed.envelope.data + len, len);
    assert_null(memmem(sealed.envelope.data, sealed.envelope.len, "nobody", 6));
    clear(&sealed);
}

static void every_changed_bit_is_seen(void **state)
{
    (void)state;
    struct sealed sealed;
    seal_text(&sealed, "text");
    for (size_t bit = 0; bit < sealed.envelope.len * 8; bit++) {
        sealed.envelope.data[bit / 8] = (char)(sealed.envelope.data[bit / 8] ^ 1 << bit % 8);
        assert_int_not_equal(open(&sealed), OK);
        sealed.envelope.data[bit / 8] = (char)(sealed.envelope.data[bit / 8] ^ 1 << bit % 8);
    }
    assert_int_equal(open(&sealed), OK);
    clear(&sealed);
}

static void every_cut_is_seen(void **state)
{
    (void)state;
    struct sealed sealed;
    seal_text(&sealed, "text");
    size_t whole = sealed.envelope.len;
    for (sealed.envelope.len = 0; sealed.envelope.len < whole; sealed.envelope.len++) {
        assert_int_equal(open(&sealed), ERR_SEAL);
    }
    buf_addc(&sealed.envelope, '\0');
    assert_int_equal(open(&sealed), ERR_SEAL);
    clear(&sealed);
}

static void another_secret_name_or_key_does_not_open(void **state)
{
    (void)state;
    struct sealed sealed;
    seal_text(&sealed, "text");

    struct secret right = sealed.secret;
    secret_new(&sealed.secret);
    assert_int_equal(open(&sealed), ERR_SEAL);
    sealed.secret = right;

    buf_addc(&sealed.aad, 'x');
    assert_int_equal(open(&sealed), ERR_SEAL);
    sealed.aad.len--;

    sealed.ring = ring_of("a:" KEY_B);
    assert_int_equal(open(&sealed), ERR_SEAL);
    clear(&sealed);
}

static void the_first_key_seals_and_all_open(void **state)
{
    (void)state;
    struct sealed sealed;
    seal_text(&sealed, "text");
    sealed.ring = ring_of("new:" KEY_B ",a:" KEY_A);
    assert_int_equal(open(&sealed), OK);
    sealed.ring = ring_of("new:" KEY_B);
    assert_int_equal(open(&sealed), ERR_SEAL_KEY);
    clear(&sealed);
}

/* Were the kid not bound, a record could be moved to the same key under another name. */
static void the_name_of_the_key_is_bound(void **state)
{
    (void)state;
    struct sealed sealed;
    seal_text(&sealed, "text");
    sealed.ring = ring_of("a:" KEY_A ",c:" KEY_A);
    assert_int_equal(open(&sealed), OK);
    sealed.envelope.data[2] = 'c';
    assert_int_equal(open(&sealed), ERR_SEAL);
    clear(&sealed);
}

static void key_rings_parse(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t count;
    } cases[] = {
        {"a:" KEY_A, 1},
        {"a:" KEY_A "=", 1},
        {"a://////////////////////////////////////////8=", 1},
        {"a://////////////////////////////////////////8", 1},
        {"0123456789_-abCD:" KEY_A " , b:" KEY_B, 2},
        {"", 0},
        {"a", 0},
        {":" KEY_A, 0},
        {"a:", 0},
        {"a:" KEY_A ",", 0},
        {"," KEY_A, 0},
        {"a:" KEY_A ",a:" KEY_B, 0},
        {"a b:" KEY_A, 0},
        {"0123456789_-abCDE:" KEY_A, 0},
        {"a:" KEY_A "==", 0},
        {"a:" KEY_A "=\n", 0},
        {"a:AA" KEY_A, 0},
        {"a:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHg", 0},
        {"a:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9", 0},
        {"a:+_________________________________________8", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct key_ring ring;
        const char *problem;
        enum err err = key_ring_parse(cases[i].text, &ring, &problem);
        if (err != (cases[i].count ? OK : ERR_FORMAT) || ring.count != cases[i].count) {
            fail_msg("wrong about %s", cases[i].text);
        }
        assert_int_equal(problem == NULL, err == OK);
    }
}

static void a_ring_holds_sixteen_keys(void **state)
{
    (void)state;
    struct buf text = {0};
    for (int i = 0; i < SEAL_RING_MAX + 1; i++) {
        buf_addf(&text, "%sk%d:" KEY_A, i ? "," : "", i);
        struct key_ring ring;
        const char *problem;
        assert_int_equal(key_ring_parse(buf_str(&text), &ring, &problem),
                         i < SEAL_RING_MAX ? OK : ERR_FORMAT);
    }
    buf_clear(&text);
}

static void new_entries_parse_together(void **state)
{
    (void)state;
    struct buf text = {0};
    key_ring_new_entry(&text);
    buf_adds(&text, ",old:" KEY_A);
    struct key_ring ring = ring_of(buf_str(&text));
    assert_int_equal(ring.count, 2);
    assert_int_equal(ring.keys[0].kid[0], 'k');
    buf_clear(&text);
}

static void secrets_have_one_text(void **state)
{
    (void)state;
    struct secret secret;
    struct secret again;
    char text[SECRET_TEXT_LEN + 1];
    secret_new(&secret);
    secret_format(&secret, text);
    assert_int_equal(strlen(text), SECRET_TEXT_LEN);
    assert_int_equal(secret_parse(text, &again), OK);
    assert_true(secret_equal(&secret, &again));
    again.bytes[31] ^= 1;
    assert_false(secret_equal(&secret, &again));

    static const char *const bad[] = {
        NULL,
        "",
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh", /* one short */
        KEY_A "A",
        KEY_A "=",
        "//////////////////////////////////////////8", /* the other alphabet */
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9", /* spare bits set */
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdH 8",
        "\xFF\xFF",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(secret_parse(bad[i], &again), ERR_FORMAT);
    }
}

static void only_characters_of_the_alphabet_decode(void **state)
{
    (void)state;
    const char *alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    for (int c = 1; c < 256; c++) {
        char text[] = KEY_A;
        text[20] = (char)c;
        struct secret secret;
        uint8_t bytes[32];
        bool in_secret = strchr(alphabet, c) || c == '-' || c == '_';
        bool in_base64 = in_secret || c == '+' || c == '/';
        assert_int_equal(secret_parse(text, &secret), in_secret ? OK : ERR_FORMAT);
        assert_int_equal(base64_parse(text, strlen(text), bytes, 32), in_base64 ? OK : ERR_FORMAT);
    }
}

static void names_depend_on_purpose_and_bytes(void **state)
{
    (void)state;
    char first[SECRET_NAME_LEN + 1];
    char other[SECRET_NAME_LEN + 1];
    secret_name("session", "bytes", 5, first);
    assert_int_equal(strlen(first), SECRET_NAME_LEN);
    secret_name("session", "bytes", 5, other);
    assert_string_equal(first, other);
    secret_name("login", "bytes", 5, other);
    assert_string_not_equal(first, other);
    secret_name("session", "bytez", 5, other);
    assert_string_not_equal(first, other);
    secret_name("sessionb", "ytes", 4, other);
    assert_string_not_equal(first, other);
}

static void base64url_is_that_of_rfc_4648(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"", ""},           {"f", "Zg"},          {"fo", "Zm8"},          {"foo", "Zm9v"},
        {"foob", "Zm9vYg"}, {"fooba", "Zm9vYmE"}, {"foobar", "Zm9vYmFy"}, {"\xFB\xEF\xFF", "--__"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        struct buf out = {0};
        base64url_add(&out, pairs[i][0], strlen(pairs[i][0]));
        assert_string_equal(buf_str(&out), pairs[i][1]);
        buf_clear(&out);
    }
}

static void base64_goes_there_and_back(void **state)
{
    (void)state;
    uint8_t bytes[150];
    uint8_t back[150];
    for (size_t len = 1; len <= sizeof bytes; len++) {
        for (size_t i = 0; i < len; i++) {
            bytes[i] = (uint8_t)(len * 7 + i * 31);
        }
        struct buf text = {0};
        base64url_add(&text, bytes, len);
        assert_int_equal(base64_parse(text.data, text.len, back, len), OK);
        assert_memory_equal(back, bytes, len);
        assert_int_equal(base64_parse(text.data, text.len, back, len - 1), ERR_FORMAT);
        buf_clear(&text);
    }
}

static void only_the_same_text_has_the_hash(void **state)
{
    (void)state;
    /* SHA-256 of "abc" (FIPS 180-4). */
    static const uint8_t hash[SHA256_LEN] = {
        0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41, 0x41, 0x40,
        0xde, 0x5d, 0xae, 0x22, 0x23, 0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17,
        0x7a, 0x9c, 0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad,
    };
    static const uint8_t nothing[SHA256_LEN] = {0};
    assert_true(sha256_matches("abc", 3, hash));
    assert_true(sha256_matches("abcd", 3, hash));
    assert_false(sha256_matches("abd", 3, hash));
    assert_false(sha256_matches("abc", 2, hash));
    assert_false(sha256_matches("", 0, hash));
    assert_false(sha256_matches("", 0, nothing));
}

static void pkce_is_that_of_rfc_7636(void **state)
{
    (void)state;
    char challenge[PKCE_LEN + 1];
    pkce_challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", challenge);
    assert_string_equal(challenge, "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");

    char verifier[PKCE_LEN + 1];
    char other[PKCE_LEN + 1];
    pkce_new_verifier(verifier);
    pkce_new_verifier(other);
    assert_string_not_equal(verifier, other);
    assert_int_equal(strspn(verifier, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                      "0123456789-_"),
                     PKCE_LEN);
}

static int start(void **state)
{
    (void)state;
    seal_init();
    return 0;
}

static void a_derived_secret_is_another_one_for_each_purpose(void **state)
{
    (void)state;
    struct secret from, one, same, other;
    secret_new(&from);
    secret_derive("one", &from, &one);
    secret_derive("one", &from, &same);
    secret_derive("other", &from, &other);
    assert_true(secret_equal(&one, &same));
    assert_false(secret_equal(&one, &other));
    assert_false(secret_equal(&one, &from));
    secret_derive("one", &from, &from); /* in place */
    assert_true(secret_equal(&one, &from));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_sealed_opens),
        cmocka_unit_test(sealing_appends_and_never_repeats),
        cmocka_unit_test(every_changed_bit_is_seen),
        cmocka_unit_test(every_cut_is_seen),
        cmocka_unit_test(another_secret_name_or_key_does_not_open),
        cmocka_unit_test(a_derived_secret_is_another_one_for_each_purpose),
        cmocka_unit_test(the_first_key_seals_and_all_open),
        cmocka_unit_test(the_name_of_the_key_is_bound),
        cmocka_unit_test(key_rings_parse),
        cmocka_unit_test(a_ring_holds_sixteen_keys),
        cmocka_unit_test(new_entries_parse_together),
        cmocka_unit_test(secrets_have_one_text),
        cmocka_unit_test(only_characters_of_the_alphabet_decode),
        cmocka_unit_test(names_depend_on_purpose_and_bytes),
        cmocka_unit_test(base64url_is_that_of_rfc_4648),
        cmocka_unit_test(base64_goes_there_and_back),
        cmocka_unit_test(only_the_same_text_has_the_hash),
        cmocka_unit_test(pkce_is_that_of_rfc_7636),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
