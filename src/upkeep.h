/* UPKEEP: what the database needs once a minute: partitions ahead, claims, receipts and security
 * events dropped when their time is over, and a look at what Prometheus should hear (accounts,
 * durability, clocks). Of all instances one at a time does the work. Thread: the session's. */
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
    /* A complaint is told when it changes. */
    char durability_told[512], purge_told[512];
    bool clocks_differ;
    int64_t next_whole_us; /* when what waits is compared again */
};

/* One round on an open session, which may be closed when it returns. Nothing that fails is fatal:
 * it is told, and the next round tries again. True = claims to compare or to delete may be left,
 * because the session was notified or `until_us` (monotonic) has come: come again at once, after
 * what is due. */
MUST_CHECK bool upkeep_run(struct upkeep *upkeep, struct session *session,
                           const struct config *config, int64_t until_us);
