/* A request put together by hand, for tests of the steps. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "inbound.h"

static inline struct inbound request_of(struct slice body)
{
    return (struct inbound){
        .method = SLICE_LITERAL("POST"), .path = SLICE_LITERAL("/webhooks/test"), .body = body};
}

static inline void request_add(struct inbound *in, const char *name, struct slice value)
{
    in->headers[in->header_count++] = (struct inbound_header){slice_of(name), value};
}
