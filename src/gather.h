/* GATHER: where deliveries of one event loop wait for a transaction. Batches form by themselves:
 * what arrives while the lanes are busy is taken together by the next free one, and nothing waits
 * when a lane is idle.
 *
 * Here is Postgres' breaker of this loop. It opens when a transaction ends in anything but COMMIT,
 * a key that another transaction holds excepted; while it is open no batch is taken, so nothing new
 * is produced, and a fault that comes after Kafka's acknowledgement can't publish the same events
 * again and again. A whole transaction of a lane that leaves nothing (store_probe()) closes it.
 * With it closes the gate of the process (gate.h); while either says no, events are held.
 *
 * A copy of an event that is already under way on this loop becomes its follower and shares its
 * outcome. The queue is bounded in number, in bytes and in time. Thread: the loop's. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "delivery.h"
#include "loop.h"

struct admission;
struct config;
struct gate;
struct gather;
struct parking;
struct publisher;

/* `gate` lives as long as the process. */
MUST_CHECK struct gather *gather_new(struct loop *loop, const struct config *config,
                                     struct gate *gate, struct publisher *publisher,
                                     struct parking *parking, struct metrics *metrics);
/* Nothing may be pending. */
void gather_free(struct gather *gather);

/* Takes a delivery whose event is known; it may be finished (refused) before this returns. */
void gather_record(struct gather *gather, struct delivery *d);

/* Deliveries that are not finished yet. */
size_t gather_pending(const struct gather *gather);
/* Knows how long a new event would wait. Lives as long as `gather`. */
struct admission *gather_admission(const struct gather *gather);
/* Is a lane's connection usable (that of the suspects does not count), and Postgres' breaker
 * closed? */
bool gather_is_ready(const struct gather *gather);

/* For lanes. */

enum gather_queue {
    GATHER_FRESH,   /* what came in */
    GATHER_SUSPECT, /* events whose key another transaction holds: one by one, over a lane of their
                       own */
};

/* Moves up to `max` deliveries of at most pipeline.batch_bytes together (or one), whose event ids
 * all differ, into `out`; returns how many. */
size_t gather_take(struct gather *gather, enum gather_queue queue, struct delivery **out,
                   size_t max);
/* Gives back a delivery of a batch whose connection was lost before anything was sent to Kafka. */
void gather_return(struct gather *gather, struct delivery *d);
/* A delivery whose key is held goes to the suspects, or is refused when there are too many. */
void gather_suspect(struct gather *gather, struct delivery *d);
/* Of a lost transaction: an event that Kafka surely does not have, and one that it has acknowledged
 * at this place. Both are held (hold.h) and answered in time. */
void gather_hold(struct gather *gather, struct delivery *d);
void gather_mark(struct gather *gather, struct delivery *d, const char *topic, int32_t partition,
                 int64_t offset);
/* Ends a delivery and its followers. */
void gather_finish(struct gather *gather, struct delivery *d, enum outcome outcome,
                   const char *detail);
/* A lane became free or ready, or lost its connection. */
void gather_wake(struct gather *gather);
/* A transaction failed, or a connection with all that was open on it. */
void gather_store_failed(struct gather *gather, const char *reason);
/* A probe was committed. */
void gather_store_proven(struct gather *gather);
/* Open: Postgres must not be used, but for probes. */
bool gather_breaker_is_open(const struct gather *gather);
