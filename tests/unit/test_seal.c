/* Sealing: what is closed opens for the same owner and key only, and whatever else is offered is
 * refused without a trace of plain text. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "codec.h"
#include "seal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define HEX_A "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
#define HEX_B "FFFEFDFCFBFAF9F8F7F6F5F4F3F2F1F0EFEEEDECEBEAE9E8E7E6E5E4E3E2E1E0"
#define BASE64_A "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
#define OWNER "0b6f6b3e-5d2c-4a8e-9a53-6d2f9f0f1c11"

/* Computed with Python's cryptography: key A, nonce 64..6f, OWNER, "a webhook secret". */
static const char known[] = "01"
                            "6465666768696a6b6c6d6e6f"
                            "6fc3433b6409ab03031f10fc55dd590e293ba9031b8139f155422c8db9170f89";

static struct seal_keys *parse(const char *text)
{
    const char *reason = "";
    struct seal_keys *keys = seal_keys_parse(slice_of(text), &reason);
    if (keys == NULL)
        print_message("refused: %s\n", reason);
    return keys;
}

static bool refused(struct slice file)
{
    const char *reason = NULL;
    struct seal_keys *keys = seal_keys_parse(file, &reason);
    bool none = keys == NULL && reason != NULL;
    seal_keys_free(keys);
    return none;
}

static bool opens(const char *key_file, struct slice sealed, const char *owner, const char *plain)
{
    struct seal_keys *keys = parse(key_file);
    assert_non_null(keys);
    unsigned char out[SEAL_PLAIN_MAX];
    size_t len = 0;
    bool fine = seal_open(keys, slice_of(owner), sealed, out, &len) && len == strlen(plain) &&
                memcmp(out, plain, len) == 0;
    seal_keys_free(keys);
    return fine;
}

static void known_answer(void **state)
{
    (void)state;
    unsigned char bytes[128];
    size_t len = 0;
    assert_true(codec_decode_hex(slice_of(known), CODEC_LOWER_HEX, bytes, sizeof bytes, &len));
    struct slice sealed = {(const char *)bytes, len};
    assert_true(opens(HEX_A, sealed, OWNER, "a webhook secret"));
    assert_true(opens(BASE64_A "\n", sealed, OWNER, "a webhook secret"));
}

static void round_trip_of_every_length(void **state)
{
    (void)state;
    struct seal_keys *keys = parse(HEX_A);
    static char plain[SEAL_PLAIN_MAX + 1];
    static unsigned char sealed[SEAL_PLAIN_MAX + 1 + SEAL_OVERHEAD], out[SEAL_PLAIN_MAX];
    memset(plain, 's', sizeof plain);
    const size_t lengths[] = {1, 2, 15, 16, 17, 64, 1000, SEAL_PLAIN_MAX};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        size_t sealed_len = 0, len = 0;
        struct slice text = {plain, lengths[i]};
        assert_true(seal_close(keys, slice_of(OWNER), text, sealed, &sealed_len));
        assert_int_equal(sealed_len, lengths[i] + SEAL_OVERHEAD);
        assert_int_equal(sealed[0], 1);
        assert_null(memmem(sealed, sealed_len, "sssss", 5));
        struct slice box = {(const char *)sealed, sealed_len};
        assert_true(seal_open(keys, slice_of(OWNER), box, out, &len));
        assert_int_equal(len, lengths[i]);
        assert_memory_equal(out, plain, len);
    }
    size_t len = 0;
    assert_false(seal_close(keys, slice_of(OWNER), (struct slice){plain, 0}, sealed, &len));
    assert_false(
        seal_close(keys, slice_of(OWNER), (struct slice){plain, sizeof plain}, sealed, &len));
    seal_keys_free(keys);
}

static void nonces_differ(void **state)
{
    (void)state;
    struct seal_keys *keys = parse(HEX_A);
    unsigned char one[64], two[64];
    size_t len = 0;
    assert_true(seal_close(keys, slice_of(OWNER), SLICE_LITERAL("secret"), one, &len));
    assert_true(seal_close(keys, slice_of(OWNER), SLICE_LITERAL("secret"), two, &len));
    assert_memory_not_equal(one + 1, two + 1, 12);
    assert_memory_not_equal(one + 29, two + 29, 6);
    seal_keys_free(keys);
}

static void every_flipped_bit_is_refused(void **state)
{
    (void)state;
    unsigned char bytes[128], out[128];
    size_t len = 0;
    assert_true(codec_decode_hex(slice_of(known), CODEC_LOWER_HEX, bytes, sizeof bytes, &len));
    struct seal_keys *keys = parse(HEX_A);
    for (size_t bit = 0; bit < len * 8; bit++) {
        bytes[bit / 8] ^= (unsigned char)(1U << bit % 8);
        memset(out, 'x', sizeof out);
        size_t out_len = 99;
        assert_false(seal_open(keys, slice_of(OWNER), (struct slice){(const char *)bytes, len}, out,
                               &out_len));
        assert_int_equal(out_len, 99);
        assert_null(memmem(out, len - SEAL_OVERHEAD, "webhook", 7));
        bytes[bit / 8] ^= (unsigned char)(1U << bit % 8);
    }
    for (size_t cut = 0; cut < len; cut++)
        assert_false(seal_open(keys, slice_of(OWNER), (struct slice){(const char *)bytes, cut}, out,
                               &(size_t){0}));
    seal_keys_free(keys);
}

static void another_owner_or_key_is_refused(void **state)
{
    (void)state;
    unsigned char bytes[128];
    size_t len = 0;
    assert_true(codec_decode_hex(slice_of(known), CODEC_LOWER_HEX, bytes, sizeof bytes, &len));
    struct slice sealed = {(const char *)bytes, len};
    assert_false(opens(HEX_A, sealed, "0b6f6b3e-5d2c-4a8e-9a53-6d2f9f0f1c12", "a webhook secret"));
    assert_false(opens(HEX_A, sealed, "", "a webhook secret"));
    assert_false(opens(HEX_B, sealed, OWNER, "a webhook secret"));
}

static void first_key_seals_all_open(void **state)
{
    (void)state;
    struct seal_keys *keys = parse("\n" HEX_B "\r\n\n " HEX_A "\n");
    assert_non_null(keys);
    unsigned char sealed[64];
    size_t len = 0;
    assert_true(seal_close(keys, slice_of(OWNER), SLICE_LITERAL("fresh"), sealed, &len));
    seal_keys_free(keys);
    struct slice fresh = {(const char *)sealed, len};
    assert_true(opens(HEX_B, fresh, OWNER, "fresh"));
    assert_false(opens(HEX_A, fresh, OWNER, "fresh"));

    unsigned char bytes[128];
    assert_true(codec_decode_hex(slice_of(known), CODEC_LOWER_HEX, bytes, sizeof bytes, &len));
    assert_true(opens(HEX_B "\n" HEX_A, (struct slice){(const char *)bytes, len}, OWNER,
                      "a webhook secret"));
}

static void key_files(void **state)
{
    (void)state;
    static const char raw[SEAL_KEY_BYTES] = {'r', '\n', 0, (char)0xff, ' '};
    const char *reason = NULL;
    struct seal_keys *keys = seal_keys_parse((struct slice){raw, sizeof raw}, &reason);
    assert_non_null(keys);
    seal_keys_free(keys);
    assert_true(refused(SLICE_LITERAL("")));
    assert_true(refused(SLICE_LITERAL("\n \n")));
    assert_true(refused(SLICE_LITERAL("0123456789abcdef0123456789abcde")));
    assert_true(refused(SLICE_LITERAL("0123456789abcdef0123456789abcdef0")));
    assert_true(refused(SLICE_LITERAL(HEX_A "0")));
    assert_true(refused(SLICE_LITERAL(HEX_A "\n" HEX_B " " HEX_A)));
    assert_true(refused(SLICE_LITERAL("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHg=="))); /* 31 */
    assert_true(refused(SLICE_LITERAL("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8")));
    assert_true(refused(SLICE_LITERAL("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh\0=")));
    char many[17 * 65 + 1] = "";
    for (size_t i = 0; i < 17; i++)
        memcpy(many + i * 65, HEX_A "\n", 65);
    assert_true(refused((struct slice){many, sizeof many - 1}));
    assert_false(refused((struct slice){many, sizeof many - 66}));
}

static void a_key_file_others_can_read_is_refused(void **state)
{
    (void)state;
    char path[] = "/tmp/test_seal.XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, HEX_A "\n", 65), 65);
    unsetenv("CREDENTIALS_DIRECTORY");
    char *reason = NULL;
    struct seal_keys *keys = seal_keys_read(path, &reason);
    assert_non_null(keys);
    seal_keys_free(keys);
    assert_int_equal(fchmod(fd, 0640), 0);
    assert_null(seal_keys_read(path, &reason));
    assert_non_null(strstr(reason, "chmod"));
    free(reason);
    setenv("CREDENTIALS_DIRECTORY", "/tmp", 1);
    keys = seal_keys_read(path, &reason);
    assert_non_null(keys);
    seal_keys_free(keys);
    unsetenv("CREDENTIALS_DIRECTORY");
    close(fd);
    unlink(path);
    assert_null(seal_keys_read(path, &reason));
    free(reason);
}

static void tells_the_key_that_opened(void **state)
{
    (void)state;
    const char *reason = NULL;
    static const char old_text[] = HEX_B "\n", both_text[] = HEX_A "\n" HEX_B "\n";
    struct seal_keys *old = seal_keys_parse(SLICE_LITERAL(old_text), &reason);
    struct seal_keys *both = seal_keys_parse(SLICE_LITERAL(both_text), &reason);
    assert_non_null(old);
    assert_non_null(both);
    assert_false(seal_keys_equal(old, both));
    struct seal_keys *first = seal_keys_parse(SLICE_LITERAL(HEX_A), &reason);
    assert_false(seal_keys_equal(first, both));
    assert_false(seal_keys_equal(both, first));
    seal_keys_free(first);
    assert_false(seal_keys_equal(NULL, both));
    assert_true(seal_keys_equal(both, both));
    assert_true(seal_keys_equal(NULL, NULL));
    unsigned char sealed[64 + SEAL_OVERHEAD];
    unsigned char plain[64];
    size_t len = 0, plain_len = 0, key = 9;
    struct slice owner = slice_of(OWNER);
    assert_true(seal_close(old, owner, slice_of("hush"), sealed, &len));
    assert_true(
        seal_open_by(both, owner, (struct slice){(char *)sealed, len}, plain, &plain_len, &key));
    assert_int_equal(key, 1);
    assert_true(seal_close(both, owner, slice_of("hush"), sealed, &len));
    assert_true(
        seal_open_by(both, owner, (struct slice){(char *)sealed, len}, plain, &plain_len, &key));
    assert_int_equal(key, 0);
    assert_false(
        seal_open_by(old, owner, (struct slice){(char *)sealed, len}, plain, &plain_len, &key));
    seal_keys_free(old);
    seal_keys_free(both);
}

static void uuids(void **state)
{
    (void)state;
    char text[SEAL_UUID_TEXT];
    assert_true(seal_uuid("0B6F6B3E-5d2c-4A8E-9a53-6d2f9f0f1c11", text));
    assert_string_equal(text, OWNER);
    assert_false(seal_uuid("", text));
    assert_false(seal_uuid("0b6f6b3e-5d2c-4a8e-9a53-6d2f9f0f1c1", text));
    assert_false(seal_uuid("0b6f6b3e-5d2c-4a8e-9a53-6d2f9f0f1c111", text));
    assert_false(seal_uuid("0b6f6b3e55d2c-4a8e-9a53-6d2f9f0f1c11", text));
    assert_false(seal_uuid("0b6f6b3e-5d2c-4a8e-9a53-6d2f9f0f1c1g", text));
    assert_string_equal(text, OWNER);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answer),
        cmocka_unit_test(round_trip_of_every_length),
        cmocka_unit_test(nonces_differ),
        cmocka_unit_test(every_flipped_bit_is_refused),
        cmocka_unit_test(another_owner_or_key_is_refused),
        cmocka_unit_test(first_key_seals_all_open),
        cmocka_unit_test(key_files),
        cmocka_unit_test(a_key_file_others_can_read_is_refused),
        cmocka_unit_test(tells_the_key_that_opened),
        cmocka_unit_test(uuids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
