/* BATCH: events that share one transaction, and what became of each one's record. A lane claims
 * them; the batch publishes what is new and lets each record end as published, parked or failed, in
 * bounded time; the lane then writes that down and commits.
 *
 *   batch_new() -> batch_publish() -> on_settled() -> batch_end()
 *
 * A batch whose connection is lost lives on as an orphan: its records may be in Kafka, so its lane
 * claims them again. Records may be reported after the batch has ended: its memory stays until
 * librdkafka has let go of the last body. Thread: the loop's. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "gather.h"
#include "publisher.h"
#include "store.h"

/* What the lanes of one event loop share. */
struct batch_env {
    struct loop *loop;
    const struct config *config;
    struct gather *gather;
    struct publisher *publisher;
    struct parking *parking;
    struct metrics *metrics;
};

enum item_state {
    ITEM_QUEUED,   /* not sent */
    ITEM_FINISHED, /* answered: `d` is NULL */
    ITEM_SENT,     /* at librdkafka, no report yet */
    ITEM_ALONE,    /* refused for the size of the request it shared: goes once more by itself */
    ITEM_PUBLISHED,
    ITEM_PARKED, /* for the outbox; `result` tells why */
    ITEM_FAILED, /* to be refused; `result` tells why */
};

struct item {
    struct publish_op op;
    struct batch *batch;
    struct delivery *d;    /* NULL once finished */
    struct delivery *lent; /* whose body librdkafka still reads: a report is outstanding */
    enum item_state state;
    enum publish_result result;
    bool was_alone;
    int32_t partition; /* as reported; -1 = not known */
    int64_t offset;
};

struct batch {
    const struct batch_env *env;
    void (*on_settled)(struct batch *batch);
    void *owner; /* NULL: ended, only kept for outstanding reports */
    size_t count;
    size_t lent;                             /* items whose body librdkafka reads */
    size_t waiting;                          /* items in ITEM_SENT */
    int64_t claim_us, publish_us, commit_us; /* when each phase began */
    bool purged, settled;
    bool orphaned; /* its transaction is lost: nothing more is sent to Kafka */
    struct loop_timer timer;
    struct item items[];
};

/* Sorts `taken` by event id; so are the items. */
MUST_CHECK struct batch *batch_new(const struct batch_env *env, struct delivery **taken,
                                   size_t count, void (*on_settled)(struct batch *), void *owner);
/* The lane has no more to do with the batch. */
void batch_end(struct batch *batch);

/* Has every event been answered, or given to somebody else? */
bool batch_is_over(const struct batch *batch);

/* Answers one event. */
void batch_finish(struct item *item, enum outcome outcome, const char *detail);
/* Answers all that are not answered yet. */
void batch_refuse(struct batch *batch, enum outcome outcome, const char *detail);
/* Gives all that are not answered back to the queue: nothing of them was sent. */
void batch_return(struct batch *batch);

/* Sends the items that are queued, or parks them while their topic's breaker is open. on_settled
 * comes when each one's end is known, possibly before this returns. */
void batch_publish(struct batch *batch);

/* Hands the settled items to the store for its next commit; returns how many are to be committed.
 */
MUST_CHECK size_t batch_write(struct batch *batch, struct store *store);
/* Answers those that failed. */
void batch_refuse_failed(struct batch *batch);
/* They are durable. */
void batch_accept(struct batch *batch, int64_t now_us);
/* The place that its receipt tells. */
struct store_place batch_place(const struct item *item);
/* May Kafka have this record, or get it yet? */
bool batch_maybe_in_kafka(const struct item *item);
