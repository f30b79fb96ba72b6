/* The strict codecs behind codec.h. OpenSSL's own base64 decoder skips blanks and takes leftover
 * bits, which would let one signature be spelt in many ways. Called by secret.c when keys are
 * loaded and by verify.c for each request. Thread: any. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "codec.h"

static const char hex_digits[] = "0123456789abcdef";
static const char base64_digits[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static int hex_value(char c, enum codec_case letters)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (letters == CODEC_ANY_HEX && c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static int base64_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool codec_decode_hex(struct slice text, enum codec_case letters, unsigned char *out, size_t size,
                      size_t *ret_len)
{
    if (text.len % 2 != 0 || text.len / 2 > size)
        return false;
    for (size_t i = 0; i < text.len; i += 2) {
        int high = hex_value(text.ptr[i], letters), low = hex_value(text.ptr[i + 1], letters);
        if (high < 0 || low < 0)
            return false;
        out[i / 2] = (unsigned char)(high << 4 | low);
    }
    *ret_len = text.len / 2;
    return true;
}

bool codec_decode_base64(struct slice text, unsigned char *out, size_t size, size_t *ret_len)
{
    if (text.len % 4 != 0)
        return false;
    size_t padding = 0;
    while (padding < 2 && padding < text.len && text.ptr[text.len - 1 - padding] == '=')
        padding++;
    size_t digits = text.len - padding, bytes = text.len / 4 * 3 - padding;
    if (bytes > size)
        return false;
    unsigned bits = 0, held = 0;
    size_t done = 0;
    for (size_t i = 0; i < digits; i++) {
        int value = base64_value(text.ptr[i]);
        if (value < 0)
            return false;
        bits = bits << 6 | (unsigned)value;
        held += 6;
        if (held >= 8) {
            held -= 8;
            out[done++] = (unsigned char)(bits >> held & 0xff);
            bits &= (1u << held) - 1;
        }
    }
    if (bits != 0)
        return false;
    *ret_len = bytes;
    return true;
}

bool codec_encode_hex(const unsigned char *bytes, size_t len, char *out, size_t size,
                      size_t *ret_len)
{
    if (size == 0 || len > (size - 1) / 2)
        return false;
    for (size_t i = 0; i < len; i++) {
        out[2 * i] = hex_digits[bytes[i] >> 4];
        out[2 * i + 1] = hex_digits[bytes[i] & 15];
    }
    out[2 * len] = '\0';
    *ret_len = 2 * len;
    return true;
}

bool codec_encode_base64(const unsigned char *bytes, size_t len, char *out, size_t size,
                         size_t *ret_len)
{
    if (size == 0 || (len + 2) / 3 > (size - 1) / 4)
        return false;
    char *to = out;
    for (size_t i = 0; i < len; i += 3) {
        size_t left = len - i;
        unsigned group = (unsigned)bytes[i] << 16;
        if (left > 1)
            group |= (unsigned)bytes[i + 1] << 8;
        if (left > 2)
            group |= bytes[i + 2];
        *to++ = base64_digits[group >> 18];
        *to++ = base64_digits[group >> 12 & 63];
        *to++ = left > 1 ? base64_digits[group >> 6 & 63] : '=';
        *to++ = left > 2 ? base64_digits[group & 63] : '=';
    }
    *to = '\0';
    *ret_len = (size_t)(to - out);
    return true;
}
