/* The strict codecs: RFC 4648's vectors, and every way in which a text can be nearly right. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "codec.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

static void test_base64_vectors(void **state)
{
    (void)state;
    static const char *const vectors[][2] = {{"", ""},
                                             {"f", "Zg=="},
                                             {"fo", "Zm8="},
                                             {"foo", "Zm9v"},
                                             {"foob", "Zm9vYg=="},
                                             {"fooba", "Zm9vYmE="},
                                             {"foobar", "Zm9vYmFy"},
                                             {"\xfb\xff", "+/8="}};
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        unsigned char out[16];
        char text[32];
        size_t len = 99, text_len = 99;
        assert_true(codec_decode_base64(slice_of(vectors[i][1]), out, sizeof out, &len));
        assert_int_equal(len, strlen(vectors[i][0]));
        assert_memory_equal(out, vectors[i][0], len);
        assert_true(codec_encode_base64(out, len, text, sizeof text, &text_len));
        assert_string_equal(text, vectors[i][1]);
        assert_int_equal(text_len, strlen(text));
    }
}

static void test_base64_refusals(void **state)
{
    (void)state;
    static const char *const wrong[] = {"Zg",   "Zg=",  "Zh==",     "Zm9=",      "Z===",
                                        "====", "=Zg=", "Zg==Zg==", "Zm9v\n",    " Zm9",
                                        "Zm9-", "Zm_v", "Zm9v====", "Zm\xc3\xb6"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        unsigned char out[16];
        size_t len = 99;
        assert_false(codec_decode_base64(slice_of(wrong[i]), out, sizeof out, &len));
        assert_int_equal(len, 99);
    }
    unsigned char small[2];
    size_t len;
    assert_false(codec_decode_base64(slice_of("Zm9v"), small, sizeof small, &len));
    assert_false(codec_decode_base64((struct slice){"Zm\0v", 4}, small, sizeof small, &len));
}

static void test_hex(void **state)
{
    (void)state;
    unsigned char out[4];
    size_t len = 99;
    assert_true(codec_decode_hex(slice_of("00ff7a"), CODEC_LOWER_HEX, out, sizeof out, &len));
    assert_int_equal(len, 3);
    assert_memory_equal(out, "\x00\xff\x7a", 3);
    assert_true(codec_decode_hex(slice_of("00Ff7A"), CODEC_ANY_HEX, out, sizeof out, &len));
    static const char *const wrong[] = {"0", "0g", "00FF", "0x00", "00 0", "0000000000", "+1"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_false(codec_decode_hex(slice_of(wrong[i]), CODEC_LOWER_HEX, out, sizeof out, &len));
    assert_false(codec_decode_hex((struct slice){"0\0", 2}, CODEC_ANY_HEX, out, sizeof out, &len));
}

static void test_encoding_needs_room_for_the_nul(void **state)
{
    (void)state;
    char text[9];
    size_t len;
    const unsigned char bytes[] = {1, 2, 3, 0xfe};
    assert_true(codec_encode_hex(bytes, 4, text, 9, &len));
    assert_string_equal(text, "010203fe");
    assert_false(codec_encode_hex(bytes, 4, text, 8, &len));
    assert_false(codec_encode_hex(bytes, 0, text, 0, &len));
    assert_true(codec_encode_base64(bytes, 4, text, 9, &len));
    assert_false(codec_encode_base64(bytes, 4, text, 8, &len));
    assert_false(codec_encode_base64(bytes, 0, text, 0, &len));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_base64_vectors),
        cmocka_unit_test(test_base64_refusals),
        cmocka_unit_test(test_hex),
        cmocka_unit_test(test_encoding_needs_room_for_the_nul),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
