/* UPKEEP: what the database needs once a minute: partitions ahead, claims, receipts and security
 * events dropped when their time is over, and a look at what Prometheus should hear (accounts,
 * durability). Of all instances one at a time does the work. Thread: the session's. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "obj.h"

#include <stdbool.h>
#include <stdint.h>

struct config;
struct metrics;
struct session;

struct upkeep {
    struct metrics *metrics;
    char durability_told[512]; /* a complaint is told when it changes */
};

/* One round on an open session, which may be closed when it returns. Nothing that fails is fatal:
 * it is told, and the next round tries again. True = old claims may be left, because the session
 * was notified or `until_us` (monotonic) has come: come again at once, after what is due. */
MUST_CHECK bool upkeep_run(struct upkeep *upkeep, struct session *session,
                           const struct config *config, int64_t until_us);
