/* ADMISSION: whether a new event has a chance to be recorded in time, asked before anything is
 * spent on it. The queue before the lanes tells what goes in and out; the wait of a newcomer is
 * estimated from the time between two full batches. Plain numbers: no clock, no memory of events.
 * Thread: the loop's. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "obj.h"

#include <stddef.h>
#include <stdint.h>

struct admission;
struct metrics;

struct admission_limits {
    size_t queue;        /* events that may wait */
    int64_t patience_us; /* how long an event may wait for one */
};
MUST_CHECK struct admission *admission_new(const struct admission_limits *limits,
                                           struct metrics *metrics);
void admission_free(struct admission *admission);

enum admission_verdict { ADMITTED, SHED_LATE, SHED_QUEUE, SHED_SHARE };

/* May anybody's event come in that has waited `age_us` before it was read? */
enum admission_verdict admission_check(struct admission *admission, int64_t age_us, int64_t now_us);
/* May this workspace's? Nobody may have more of the queue than what is left of it: one that floods
 * gets half, two a third each, and whoever sends little always finds room. */
enum admission_verdict admission_check_share(struct admission *admission, uint32_t share,
                                             int64_t now_us);
/* What a workspace is counted under. */
uint32_t admission_share(const char *workspace);

/* An event waits, or does no longer. */
void admission_queued(struct admission *admission, uint32_t share);
void admission_unqueued(struct admission *admission, uint32_t share);
/* A lane has taken a batch of `count` at `now_us`, the first events of the queue. */
void admission_taken(struct admission *admission, size_t count, int64_t now_us);

/* The estimate: how long an event that comes now will wait; 0 = nothing is known against it. */
int64_t admission_wait_us(const struct admission *admission);
