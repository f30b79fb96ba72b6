/* Hex and base64, strict: digests and keys in their one spelling. Nothing is skipped, trimmed or
 * guessed, so that a text decodes to its bytes or not at all. Pure. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "obj.h"
#include "slice.h"

#include <stdbool.h>
#include <stddef.h>

enum codec_case { CODEC_LOWER_HEX, CODEC_ANY_HEX };

/* Decode all of `text` into at most `size` bytes. False (and *ret_len untouched) for an odd
 * length, a foreign character, or too much of it; the bytes of `out` are then undefined. */
MUST_CHECK bool codec_decode_hex(struct slice text, enum codec_case letters, unsigned char *out,
                                 size_t size, size_t *ret_len);

/* The standard alphabet (RFC 4648 section 4) with its padding; bits that the padding leaves over
 * must be zero, so that two texts never decode to the same bytes. */
MUST_CHECK bool codec_decode_base64(struct slice text, unsigned char *out, size_t size,
                                    size_t *ret_len);

/* Encode and NUL-terminate; false when `size` is too small. *ret_len is without the NUL. */
MUST_CHECK bool codec_encode_hex(const unsigned char *bytes, size_t len, char *out, size_t size,
                                 size_t *ret_len);
MUST_CHECK bool codec_encode_base64(const unsigned char *bytes, size_t len, char *out, size_t size,
                                    size_t *ret_len);
