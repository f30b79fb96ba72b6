/* FNV-1a, 64 bits (draft-eastlake-fnv): short and quick, but no match for somebody who picks the
 * keys. Where that can be, the start is a secret or the table is small. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define HASH_BASIS UINT64_C(0xcbf29ce484222325)

/* Goes on from `hash`: HASH_BASIS, another start, or what was hashed before. */
static inline uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t len)
{
    const unsigned char *p = bytes;
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ p[i]) * UINT64_C(0x100000001b3);
    return hash;
}

static inline uint64_t hash_text(uint64_t hash, const char *text)
{
    return hash_bytes(hash, text, strlen(text));
}
