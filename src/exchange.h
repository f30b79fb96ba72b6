/* One HTTP exchange as its handler sees it: a request that has come in whole and the one answer
 * that it gets. The edge owns the exchange and is the only one that knows the HTTP library;
 * handlers (the admin listener's, the webhook listener's) know this header. An exchange holds a
 * weak link to the client's request: when the client leaves, answering still works, only nobody
 * reads it. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "inbound.h"

#include <stddef.h>

struct exchange; /* opaque, owned by the edge */

/* Called on the loop that the request came in on, once the body is there. `in` lives until the
 * handler returns; `x` until exchange_answer(), which may come later, on the same loop. */
typedef void exchange_handler_f(struct exchange *x, const struct inbound *in, void *context);

struct exchange_header {
    const char *name; /* lower case */
    const char *value;
};

struct exchange_answer {
    int status;
    const char *content_type;              /* NULL = none is sent */
    struct slice body;                     /* may be empty */
    int retry_after_s;                     /* Retry-After; 0 = none */
    const struct exchange_header *headers; /* further ones, e.g. allow, cache-control */
    size_t header_count;
};

/* Exactly once per exchange; copies all it needs; `x` is gone afterwards. To a HEAD request the
 * edge sends the headers of this answer, with the length of its body, and no body. Thread: the
 * loop's. */
void exchange_answer(struct exchange *x, const struct exchange_answer *answer);
