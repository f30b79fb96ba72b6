/* The numbers behind parking.h. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "parking.h"

#include "config.h"

#include <stdatomic.h>

struct parking {
    int64_t bytes_max, age_max_us;
    _Atomic int64_t bytes;     /* in the outbox, at the last look and parked by us since */
    _Atomic int64_t oldest_us; /* at the last look */
    _Atomic bool news;
};

struct parking *parking_new(const struct config *config)
{
    struct parking *parking = xcalloc(1, sizeof *parking);
    parking->bytes_max = config->park.bytes;
    parking->age_max_us = config->park.age_us;
    return parking;
}

void parking_free(struct parking *parking)
{
    free(parking);
}

bool parking_admits(const struct parking *parking)
{
    return atomic_load_explicit(&parking->bytes, memory_order_relaxed) < parking->bytes_max &&
           atomic_load_explicit(&parking->oldest_us, memory_order_relaxed) < parking->age_max_us;
}

void parking_add(struct parking *parking, size_t bytes)
{
    atomic_fetch_add_explicit(&parking->bytes, (int64_t)bytes, memory_order_relaxed);
    atomic_store(&parking->news, true);
}

void parking_set(struct parking *parking, int64_t bytes, int64_t oldest_us)
{
    atomic_store_explicit(&parking->bytes, bytes, memory_order_relaxed);
    atomic_store_explicit(&parking->oldest_us, oldest_us, memory_order_relaxed);
}

bool parking_take_news(struct parking *parking)
{
    return atomic_exchange(&parking->news, false);
}
