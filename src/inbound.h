/* One HTTP request as the steps see it: slices into memory of the edge, valid until the step table
 * has run as far as `record`, where the delivery copies what it keeps. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "slice.h"

#include <stdint.h>

#define INBOUND_MAX_HEADERS 100

struct inbound_header {
    struct slice name;  /* lower case */
    struct slice value; /* blanks at both ends removed */
};

struct inbound {
    struct slice method;
    struct slice path;  /* as sent, without the query; may hold a token: never logged */
    struct slice query; /* without the '?'; empty when there is none; never logged */
    struct inbound_header headers[INBOUND_MAX_HEADERS];
    size_t header_count;
    struct slice body;
    int64_t received_wall_us; /* when it was read, Unix time in microseconds */
    int64_t age_us; /* how long its last byte had lain in the kernel by then; 0 = hardly */
    char peer[48];  /* address of the sender, numeric text */
};

/* How often a header occurs; *ret_value is its first line (untouched when 0). `name` in lower case.
 */
static inline size_t inbound_header_find(const struct inbound *in, const char *name,
                                         struct slice *ret_value)
{
    size_t found = 0;
    for (size_t i = 0; i < in->header_count; i++) {
        if (!slice_is(in->headers[i].name, name))
            continue;
        if (found++ == 0)
            *ret_value = in->headers[i].value;
    }
    return found;
}
