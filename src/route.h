/* ROUTE: method and path to a platform and, when the path carries one, an endpoint token. Pure. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "inbound.h"
#include "outcome.h"
#include "platform.h"

struct route {
    const struct platform *platform; /* set as soon as it is known, also on failure */
    struct slice endpoint;           /* the token; empty on the shared route; never logged */
};

/* OUTCOME_NONE, UNKNOWN_ROUTE, UNKNOWN_PLATFORM or METHOD_NOT_ALLOWED. An alias of the platform is
 * the shared route. Only exact paths match: no percent-decoding, no dot segments, no trailing
 * slash. */
MUST_CHECK enum outcome route_find(const struct platforms *platforms, const struct inbound *in,
                                   struct route *ret);

/* OUTCOME_NONE, or BAD_REQUEST (folded header), COMPRESSED, CONTENT_TYPE: what can be refused
 * before the bytes are hashed. */
MUST_CHECK enum outcome route_check_headers(const struct platform *platform,
                                            const struct inbound *in);
