/* BREAKER: whether something that failed may be tried again. Open: no, but for a probe now and
 * then; each failure doubles the wait for the next one, up to a bound; what closes it is the
 * caller's business. Used for Kafka's topics and partitions. Pure: time is passed in. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct breaker {
    bool open;
    int64_t wait_us;  /* between the last failure and the next probe */
    int64_t probe_us; /* monotonic: when the next probe may go */
};

/* How long to wait for a probe after the first failure, and at most. */
struct breaker_patience {
    int64_t first_us, most_us;
};

/* A failure, of a probe or of ordinary work. True when it was closed before. */
static inline bool breaker_fail(struct breaker *breaker, const struct breaker_patience *patience,
                                int64_t now_us)
{
    bool was_closed = !breaker->open;
    breaker->wait_us = was_closed ? patience->first_us : breaker->wait_us * 2;
    if (breaker->wait_us > patience->most_us)
        breaker->wait_us = patience->most_us;
    breaker->open = true;
    breaker->probe_us = now_us + breaker->wait_us;
    return was_closed;
}

/* True when it was open before. */
static inline bool breaker_close(struct breaker *breaker)
{
    bool was_open = breaker->open;
    *breaker = (struct breaker){0};
    return was_open;
}

/* May a probe go now? Whoever sends it tells its end by breaker_fail() or breaker_close(). */
static inline bool breaker_probe_is_due(const struct breaker *breaker, int64_t now_us)
{
    return breaker->open && now_us >= breaker->probe_us;
}
