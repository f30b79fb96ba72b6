/* Sealed bytes from the database and key files from an operator: nothing but what was sealed opens,
 * nothing overflows, and what is closed opens again. The first byte says which is tried. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "seal.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char key[] = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    if (size == 0)
        return 0;
    struct slice input = {(const char *)data + 1, size - 1};
    const char *reason = NULL;
    struct seal_keys *keys = seal_keys_parse(data[0] == 'k' ? input : slice_of(key), &reason);
    if (keys == NULL) {
        assert(reason != NULL);
        return 0;
    }
    size_t len = 0, again_len = 0;
    unsigned char *out = xmalloc(input.len + SEAL_OVERHEAD), *again = xmalloc(input.len);
    if (input.len > SEAL_OVERHEAD && seal_open(keys, SLICE_LITERAL("owner"), input, out, &len))
        assert(len == input.len - SEAL_OVERHEAD);
    if (seal_close(keys, SLICE_LITERAL("owner"), input, out, &len)) {
        struct slice sealed = {(const char *)out, len};
        bool opened = seal_open(keys, SLICE_LITERAL("owner"), sealed, again, &again_len);
        assert(opened && again_len == input.len && memcmp(again, input.ptr, input.len) == 0);
    }
    free(out);
    free(again);
    seal_keys_free(keys);
    return 0;
}
