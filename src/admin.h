/* The private listener's answers, for Prometheus, the load balancer and operators. Never reachable
 * from outside: the configuration binds it to a private address.
 *
 *   GET /metrics                             Prometheus text format
 *   GET /livez                               200 while the event loop turns
 *   GET /readyz                              200, or 503 with the reasons
 *   POST /reload                             takes the configuration anew; 200, or 409 where it was
 *                                            refused, and the report in lines of text
 *   GET /webhooks/{platform}/endpoint-url    what to enter at the platform, and whether it has
 *                                            validated the URL
 *
 * Thread: the control loop's. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "exchange.h"
#include "platform.h"

#define ADMIN_MAX_REASONS 8

struct admin {
    const struct platforms *platforms;
    const char *public_url; /* without a trailing slash; NULL = not known: paths are told instead */
    /* Fills in why no traffic should come (static texts such as "kafka: no acknowledgement"), up to
     * `max`, and returns how many: 0 = ready. NULL = always ready. Any thread. */
    size_t (*not_ready)(void *context, const char **ret_reasons, size_t max);
    /* Begins a reload; answers the exchange when it has ended, or at once. */
    void (*reload)(void *context, struct exchange *x);
    void *context;
};

/* An exchange_handler_f; `context` is the struct admin. Answers before it returns, except where
 * `reload` does it later. */
void admin_handle(struct exchange *x, const struct inbound *in, void *context);

/* A challenge of the platform was answered (outcome CHALLENGED). Remembered in this process only:
 * behind a load balancer each instance tells of what it saw itself. Thread: any. */
void admin_note_challenge(const struct platform *platform);
