/* GATHER: where deliveries of one event loop wait for a transaction. Batches form by themselves:
 * what arrives while the lanes are busy is taken together by the next free one, and nothing waits
 * when a lane is idle.
 *
 * A copy of an event that is already under way on this loop becomes its follower and shares its
 * outcome. The queue is bounded in number and in time. Thread: the loop's. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "delivery.h"
#include "loop.h"

struct config;
struct gather;
struct publisher;

MUST_CHECK struct gather *gather_new(struct loop *loop, const struct config *config,
                                     struct publisher *publisher, struct metrics *metrics);
/* Nothing may be pending. */
void gather_free(struct gather *gather);

/* Takes a delivery whose event is known; it may be finished (refused) before this returns. */
void gather_record(struct gather *gather, struct delivery *d);

/* Deliveries that are not finished yet. */
size_t gather_pending(const struct gather *gather);
/* Is any lane's connection usable? */
bool gather_is_ready(const struct gather *gather);

/* For lanes. */

enum gather_queue {
    GATHER_FRESH,   /* what came in */
    GATHER_SUSPECT, /* events whose key another transaction holds: one by one, over a lane of their
                       own */
};

/* Moves up to `max` deliveries, whose event ids all differ, into `out`; returns how many. */
size_t gather_take(struct gather *gather, enum gather_queue queue, struct delivery **out,
                   size_t max);
/* Gives back a delivery of a batch whose connection was lost before anything was sent to Kafka. */
void gather_return(struct gather *gather, struct delivery *d);
/* A delivery whose key is held goes to the suspects, or is refused when there are too many. */
void gather_suspect(struct gather *gather, struct delivery *d);
/* Ends a delivery and its followers. */
void gather_finish(struct gather *gather, struct delivery *d, enum outcome outcome,
                   const char *detail);
/* A lane became free or ready, or lost its connection. */
void gather_wake(struct gather *gather);
