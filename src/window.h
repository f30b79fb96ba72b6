/* WINDOW: how much happened within the last span, in a handful of slots. A slot counts until all of
 * it is out, so a window never tells too little; it is up to a twelfth too long. The clock is the
 * caller's, in microseconds; one that goes back counts into the newest slot. Thread: the owner's.
 */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdint.h>

#define WINDOW_SLOTS 13 /* twelve make up the span, one is under way */

struct window {   /* zeroed = empty */
    int64_t slot; /* number of the newest one */
    int64_t counts[WINDOW_SLOTS];
};

static inline int64_t window_slot_us(int64_t span_us)
{
    return span_us / (WINDOW_SLOTS - 1);
}

/* Forgets what is out. */
static inline void window_slide(struct window *window, int64_t span_us, int64_t now_us)
{
    int64_t slot = now_us / window_slot_us(span_us), behind = slot - window->slot;
    if (behind <= 0)
        return;
    for (int64_t i = 0; i < behind && i < WINDOW_SLOTS; i++)
        window->counts[(slot - i) % WINDOW_SLOTS] = 0;
    window->slot = slot;
}

static inline void window_add(struct window *window, int64_t span_us, int64_t now_us, int64_t count)
{
    window_slide(window, span_us, now_us);
    window->counts[window->slot % WINDOW_SLOTS] += count;
}

static inline int64_t window_sum(struct window *window, int64_t span_us, int64_t now_us)
{
    window_slide(window, span_us, now_us);
    int64_t sum = 0;
    for (int i = 0; i < WINDOW_SLOTS; i++)
        sum += window->counts[i];
    return sum;
}

/* How long until it holds less than `limit` (at least 1), when nothing is added; 0 = it does. */
static inline int64_t window_wait_us(struct window *window, int64_t span_us, int64_t now_us,
                                     int64_t limit)
{
    window_slide(window, span_us, now_us);
    int64_t sum = 0;
    for (int64_t i = 0; i < WINDOW_SLOTS; i++) {
        sum += window->counts[(window->slot - i + WINDOW_SLOTS) % WINDOW_SLOTS];
        if (sum >= limit) /* until the slot that makes it full is out */
            return (window->slot + WINDOW_SLOTS - i) * window_slot_us(span_us) - now_us;
    }
    return 0;
}
