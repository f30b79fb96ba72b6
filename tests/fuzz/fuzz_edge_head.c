/* Any bytes as a head: what passes ends at its first empty line, and a copy whose name letters are
 * lower-cased, as libh2o leaves them, is judged alike. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "edge_head.h"

#include <ctype.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t len = 0, again = 0;
    struct slice bytes = {(const char *)data, size};
    if (edge_head_check(bytes, &len) != NULL)
        return 0;
    assert(len >= 4 && len <= size && memcmp(data + len - 4, "\r\n\r\n", 4) == 0);
    assert(memmem(data + 2, len - 3, "\r\n\r\n", 4) == NULL);
    char *lower = xmalloc(size);
    memcpy(lower, data, size);
    const char *line = memmem(lower + 2, size - 2, "\r\n", 2);
    for (char *p = lower + (line - lower); p < lower + len; p++)
        *p = (char)tolower((unsigned char)*p);
    assert(edge_head_check((struct slice){lower, size}, &again) == NULL && again == len);
    free(lower);
    return 0;
}
