/* The gate behind gate.h: one word that holds the number of closings and whether it is open, so
 * that opening can't overlook a closing. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "gate.h"

#include "clock.h"

#include <stdatomic.h>

#define OPEN UINT64_C(1)
#define ONE_CLOSING UINT64_C(2)

struct gate {
    _Atomic uint64_t word;
    _Atomic int64_t closed_us, bytes;
    atomic_bool was_open;
};

struct gate *gate_new(void)
{
    struct gate *gate = xcalloc(1, sizeof *gate);
    atomic_store(&gate->closed_us, clock_mono_us());
    return gate;
}

bool gate_is_open(const struct gate *gate)
{
    return atomic_load_explicit(&gate->word, memory_order_acquire) & OPEN;
}

void gate_close(struct gate *gate)
{
    uint64_t word = atomic_load(&gate->word);
    if (word & OPEN) { /* by whom the time is set does not matter: they come together */
        atomic_store(&gate->closed_us, clock_mono_us());
        atomic_store(&gate->bytes, 0);
    }
    while (!atomic_compare_exchange_weak(&gate->word, &word, (word & ~OPEN) + ONE_CLOSING))
        ;
}

uint64_t gate_epoch(const struct gate *gate)
{
    return atomic_load(&gate->word) & ~OPEN;
}

bool gate_open(struct gate *gate, uint64_t epoch)
{
    uint64_t expected = epoch;
    bool is_open = atomic_compare_exchange_strong(&gate->word, &expected, epoch | OPEN) ||
                   expected == (epoch | OPEN);
    if (is_open)
        atomic_store(&gate->was_open, true);
    return is_open;
}

bool gate_was_open(const struct gate *gate)
{
    return atomic_load(&gate->was_open);
}

int64_t gate_closed_us(const struct gate *gate)
{
    return gate_is_open(gate) ? 0 : atomic_load(&gate->closed_us);
}

int64_t gate_count(struct gate *gate, int64_t bytes)
{
    return atomic_fetch_add(&gate->bytes, bytes) + bytes;
}
