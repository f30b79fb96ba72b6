/* Fuzzing of the reader of raw requests: any bytes give a request whose slices lie within them, or
 * a reason. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "sample.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static void check_within(struct slice s, const char *bytes, size_t size)
{
    assert(s.ptr >= bytes && s.ptr + s.len <= bytes + size);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    char *bytes = xmalloc(size);
    if (size > 0)
        memcpy(bytes, data, size);
    struct sample sample;
    const char *reason = NULL;
    if (sample_parse(bytes, size, &sample, &reason)) {
        assert(sample.in.method.len > 0 && sample.in.path.ptr[0] == '/');
        check_within(sample.in.path, bytes, size);
        check_within(sample.in.query, bytes, size);
        check_within(sample.in.body, bytes, size);
        assert(sample.in.header_count <= INBOUND_MAX_HEADERS);
        for (size_t i = 0; i < sample.in.header_count; i++) {
            assert(sample.in.headers[i].name.len > 0);
            check_within(sample.in.headers[i].value, bytes, size);
        }
    } else {
        assert(reason != NULL);
    }
    free(bytes);
    return 0;
}
