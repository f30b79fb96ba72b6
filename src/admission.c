/* The estimate behind admission.h. A batch that left others behind was full, so the time until the
 * next one is what its events cost; a queue that was emptied says nothing, and is forgotten, so
 * that a burst after a quiet time is never refused for what was slow before. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "admission.h"

#include "hash.h"
#include "log.h"
#include "metrics.h"

#include <stdbool.h>

#define CELLS 1024 /* a power of two */
#define TELL_EVERY_US 1000000

struct admission {
    struct admission_limits limits;
    struct metrics *metrics;
    size_t queued;
    int64_t taken_us; /* of the last batch, when it left others behind; 0 = it did not */
    size_t taken;     /* events in it */
    int64_t event_ns; /* what an event of a full batch costs; 0 = not known */
    bool shedding;
    /* How many events of a workspace wait. Two may share a cell by chance, hardly both. */
    uint32_t held[2][CELLS];
    size_t late, crowded, beyond; /* refused, and not told yet */
    int64_t told_us;
};

struct admission *admission_new(const struct admission_limits *limits, struct metrics *metrics)
{
    assert(limits->queue > 0 && limits->patience_us > 0);
    struct admission *admission = xcalloc(1, sizeof *admission);
    admission->limits = *limits;
    admission->metrics = metrics;
    admission->told_us = -TELL_EVERY_US;
    return admission;
}

void admission_free(struct admission *admission)
{
    free(admission);
}

/* Workspaces' ids are the operator's own, so nobody picks whose cell he shares. */
uint32_t admission_share(const char *workspace)
{
    uint64_t hash = hash_text(HASH_BASIS, workspace);
    return (uint32_t)(hash ^ (hash >> 32));
}

static uint32_t *cell(struct admission *admission, int row, uint32_t share)
{
    return &admission->held[row][(row ? share >> 16 : share) & (CELLS - 1)];
}

static uint32_t held_by(struct admission *admission, uint32_t share)
{
    uint32_t first = *cell(admission, 0, share), second = *cell(admission, 1, share);
    return first < second ? first : second;
}

void admission_queued(struct admission *admission, uint32_t share)
{
    admission->queued++;
    for (int row = 0; row < 2; row++)
        ++*cell(admission, row, share);
}

void admission_unqueued(struct admission *admission, uint32_t share)
{
    assert(admission->queued > 0);
    for (int row = 0; row < 2; row++) {
        assert(*cell(admission, row, share) > 0);
        --*cell(admission, row, share);
    }
    if (--admission->queued == 0)
        admission->taken_us = admission->event_ns = 0;
}

void admission_taken(struct admission *admission, size_t count, int64_t now_us)
{
    if (admission->taken_us != 0) {
        int64_t cost = (now_us - admission->taken_us) * 1000 / (int64_t)admission->taken;
        admission->event_ns =
            admission->event_ns != 0 ? (3 * admission->event_ns + cost + 3) / 4 : cost;
    }
    admission->taken_us = admission->queued > 0 ? now_us : 0;
    admission->taken = count;
}

int64_t admission_wait_us(const struct admission *admission)
{
    return (int64_t)admission->queued * admission->event_ns / 1000;
}

/* An event that waits half of what it may is answered in time even if the estimate is half wrong.
 */
static int64_t wait_limit(const struct admission *admission)
{
    return admission->limits.patience_us / 2;
}

static void tell(struct admission *admission, int64_t now_us)
{
    if (now_us - admission->told_us < TELL_EVERY_US)
        return;
    log_event(LOG_WARNING, "overload",
              "refused since told last: %zu late when read, %zu as the queue is too long, %zu "
              "beyond their workspace's share of it; a new event would wait %lld ms",
              admission->late, admission->crowded, admission->beyond,
              (long long)(admission_wait_us(admission) / 1000));
    admission->late = admission->crowded = admission->beyond = 0;
    admission->told_us = now_us;
}

static enum admission_verdict shed(struct admission *admission, enum admission_verdict verdict,
                                   int64_t now_us)
{
    admission->late += verdict == SHED_LATE;
    admission->crowded += verdict == SHED_QUEUE;
    admission->beyond += verdict == SHED_SHARE;
    if (admission->metrics)
        metrics_add(admission->metrics,
                    verdict == SHED_LATE    ? METRIC_SHED_LATE
                    : verdict == SHED_QUEUE ? METRIC_SHED_QUEUE
                                            : METRIC_SHED_SHARE,
                    1);
    tell(admission, now_us);
    return verdict;
}

/* With a gap between on and off, so that what is refused comes in one piece: a sender's copies
 * refused one by one between others would be no cheaper. */
static bool is_shedding(struct admission *admission)
{
    int64_t wait = admission_wait_us(admission), limit = wait_limit(admission);
    if (wait >= limit || admission->queued >= admission->limits.queue)
        admission->shedding = true;
    else if (wait <= limit / 4 * 3 && admission->queued <= admission->limits.queue / 4 * 3)
        admission->shedding = false;
    return admission->shedding;
}

enum admission_verdict admission_check(struct admission *admission, int64_t age_us, int64_t now_us)
{
    if (is_shedding(admission))
        return shed(admission, SHED_QUEUE, now_us);
    if (age_us > 0 && age_us + admission_wait_us(admission) >= admission->limits.patience_us)
        return shed(admission, SHED_LATE, now_us);
    return ADMITTED;
}

enum admission_verdict admission_check_share(struct admission *admission, uint32_t share,
                                             int64_t now_us)
{
    if (admission->queued == 0)
        return ADMITTED;
    int64_t own = held_by(admission, share), queued = (int64_t)admission->queued;
    int64_t wait = admission_wait_us(admission);
    bool beyond = own > 0 && (own >= (int64_t)admission->limits.queue - queued ||
                              own * wait / queued >= wait_limit(admission) - wait);
    return beyond ? shed(admission, SHED_SHARE, now_us) : ADMITTED;
}
