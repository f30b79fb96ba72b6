/* The batch protocol behind lane.h: what Postgres and Kafka answer is turned into the outcome of
 * each delivery here, and nowhere else. A batch's records may be reported after the batch has ended
 * (its connection was lost, its deadline passed): the batch is kept until librdkafka has let go of
 * the last body. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "lane.h"

#include "clock.h"
#include "config.h"
#include "directory.h"
#include "log.h"
#include "publisher.h"
#include "record.h"
#include "store.h"

/* statement_timeout ends a claim that waits; this much later the server itself must be gone. */
#define CLAIM_GRACE_US 200000
/* Reports of purged records come at once; whoever has none by then is undecided. */
#define PURGE_GRACE_US 100000
/* With less time than this a healthy Kafka may miss the deadline. */
#define PUBLISH_LEAST_US 250000

enum item_state {
    ITEM_QUEUED,    /* not sent */
    ITEM_DUPLICATE, /* finished: an earlier copy is durable */
    ITEM_SENT,      /* at librdkafka, no report yet */
    ITEM_ALONE,     /* refused for the size of the request it shared: goes once more by itself */
    ITEM_PUBLISHED,
    ITEM_FAILED,
};

struct item {
    struct publish_op op;
    struct batch *batch;
    struct delivery *d;    /* NULL once finished */
    struct delivery *held; /* whose body librdkafka still reads: a report is outstanding */
    enum item_state state;
    enum publish_result result;
    bool was_alone;
    int32_t partition;
    int64_t offset;
};

struct batch {
    struct lane *lane; /* NULL: ended, only kept for outstanding reports */
    size_t count;
    size_t held;                             /* items whose body librdkafka reads */
    size_t waiting;                          /* items in ITEM_SENT */
    int64_t claim_us, publish_us, commit_us; /* when each phase began */
    int64_t publish_due_us;
    bool purged;
    struct item items[];
};

enum lane_state { LANE_DOWN, LANE_IDLE, LANE_CLAIMING, LANE_PUBLISHING };

struct lane {
    struct loop *loop;
    const struct config *config;
    struct gather *gather;
    struct publisher *publisher;
    struct metrics *metrics;
    enum gather_queue queue;
    struct store *store;
    enum lane_state state;
    struct batch *batch;      /* claiming or publishing */
    struct batch *committing; /* behind it */
    bool told_unreachable;
    bool split;                     /* the claim under way steps over held keys */
    struct loop_timer timer;        /* of `batch` */
    struct loop_timer commit_timer; /* of `committing` */
    struct delivery **taken;
    struct event_id *ids;
    struct store_receipt *receipts;
};

static void set_state(struct lane *lane, enum lane_state state)
{
    static const unsigned allowed[] = {
        [LANE_DOWN] = 1u << LANE_IDLE,
        [LANE_IDLE] = 1u << LANE_CLAIMING | 1u << LANE_DOWN,
        [LANE_CLAIMING] = 1u << LANE_PUBLISHING | 1u << LANE_IDLE | 1u << LANE_DOWN,
        [LANE_PUBLISHING] = 1u << LANE_IDLE | 1u << LANE_DOWN,
    };
    assert(allowed[lane->state] & 1u << state);
    lane->state = state;
}

static void item_finish(struct lane *lane, struct item *item, enum outcome outcome,
                        const char *detail)
{
    struct delivery *d = item->d;
    item->d = NULL;
    gather_finish(lane->gather, d, outcome, detail);
}

/* The lane has no more to do with the batch; the last report frees it. */
static void batch_end(struct batch *batch)
{
    batch->lane = NULL;
    if (batch->held == 0)
        free(batch);
}

/* The body stays until the report, whatever becomes of the batch meanwhile. */
static void item_hold(struct item *item)
{
    item->held = item->d;
    item->batch->held++;
    delivery_hold(item->held);
}

static void item_release(struct item *item)
{
    struct delivery *held = item->held;
    item->held = NULL;
    item->batch->held--;
    delivery_release(held);
}

/* ---- claim ---- */

static int compare_deliveries(const void *a, const void *b)
{
    const struct delivery *const *x = a, *const *y = b;
    return memcmp((*x)->id.bytes, (*y)->id.bytes, sizeof(*x)->id.bytes);
}

static struct batch *batch_new(struct lane *lane, size_t count)
{
    struct batch *batch = xcalloc(1, sizeof *batch + count * sizeof batch->items[0]);
    batch->lane = lane;
    batch->count = count;
    batch->claim_us = clock_mono_us();
    qsort(lane->taken, count, sizeof *lane->taken, compare_deliveries);
    for (size_t i = 0; i < count; i++) {
        struct delivery *d = lane->taken[i];
        batch->items[i].batch = batch;
        batch->items[i].d = d;
        d->receipt.gather_us = batch->claim_us - d->started_us;
        metrics_step(lane->metrics, STEP_GATHER, d->receipt.gather_us);
    }
    return batch;
}

/* The ids of what is still to be claimed, sorted as the items are. */
static size_t fill_ids(struct lane *lane)
{
    for (size_t i = 0; i < lane->batch->count; i++)
        lane->ids[i] = lane->batch->items[i].d->id;
    return lane->batch->count;
}

/* Behind a commit the claims begin when that is answered: both together may take the time of both.
 */
static void set_claim_timer(struct lane *lane)
{
    int64_t patience = lane->config->deadlines.claim_us + CLAIM_GRACE_US;
    if (lane->committing)
        patience += lane->config->deadlines.commit_us;
    loop_timer_set(lane->loop, &lane->timer, clock_mono_us() + patience);
}

void lane_wake(struct lane *lane)
{
    if (lane->state != LANE_IDLE)
        return;
    size_t max = lane->queue == GATHER_SUSPECT ? 1 : (size_t)lane->config->pipeline.batch;
    size_t count = gather_take(lane->gather, lane->queue, lane->taken, max);
    if (count == 0)
        return;
    lane->batch = batch_new(lane, count);
    lane->split = false;
    metrics_batch(lane->metrics, count);
    set_state(lane, LANE_CLAIMING);
    set_claim_timer(lane);
    store_claim(lane->store, lane->ids, fill_ids(lane));
}

/* The batch is over without a commit under way: the lane is free for the next one. */
static void lane_rest(struct lane *lane)
{
    loop_timer_clear(lane->loop, &lane->timer);
    batch_end(lane->batch);
    lane->batch = NULL;
    set_state(lane, LANE_IDLE);
    gather_wake(lane->gather);
}

static void refuse_batch(struct lane *lane, enum outcome outcome, const char *detail)
{
    for (size_t i = 0; i < lane->batch->count; i++) {
        if (lane->batch->items[i].d)
            item_finish(lane, &lane->batch->items[i], outcome, detail);
    }
}

static void publish(struct lane *lane);

/* A key is held by another transaction, and this batch waited for it in vain: claim what is free,
 * and let only the suspects wait, each by itself. */
static void split_batch(struct lane *lane)
{
    metrics_add(lane->metrics, METRIC_STORE_SPLIT, 1);
    lane->split = true;
    set_claim_timer(lane);
    store_claim_unblocked(lane->store, lane->ids, fill_ids(lane));
}

static void take_verdicts(struct lane *lane, const enum claim_verdict *verdicts)
{
    for (size_t i = 0; i < lane->batch->count; i++) {
        struct item *item = &lane->batch->items[i];
        if (verdicts[i] == CLAIM_NEW)
            continue;
        item->state = ITEM_DUPLICATE;
        if (verdicts[i] == CLAIM_KNOWN) {
            topic_probe_unused(publisher_topic(lane->publisher, item->d->platform->topic));
            item_finish(lane, item, OUTCOME_DUPLICATE, NULL);
        } else {
            struct delivery *d = item->d;
            item->d = NULL;
            gather_suspect(lane->gather, d);
        }
    }
}

static void on_claimed(void *context, enum claim_result result, const enum claim_verdict *verdicts,
                       const char *reason)
{
    struct lane *lane = context;
    assert(lane->state == LANE_CLAIMING);
    int64_t took = clock_mono_us() - lane->batch->claim_us;
    metrics_step(lane->metrics, STEP_CLAIM, took);
    for (size_t i = 0; i < lane->batch->count; i++)
        lane->batch->items[i].d->receipt.claim_us = took;
    switch (result) {
    case CLAIMED:
        take_verdicts(lane, verdicts);
        publish(lane);
        return;
    case CLAIM_BLOCKED:
        if (lane->queue == GATHER_FRESH && !lane->split) {
            split_batch(lane);
            return;
        }
        refuse_batch(lane, OUTCOME_STORE_SLOW, "another transaction holds this event");
        break;
    case CLAIM_FAILED:
        log_event(LOG_ERROR, "claim_failed", "%s", reason);
        refuse_batch(lane, OUTCOME_STORE_DOWN, "Postgres refused the claims");
        break;
    }
    lane_rest(lane);
}

/* ---- publish ---- */

static void on_report(struct publish_op *op, enum publish_result result, int32_t partition,
                      int64_t offset);
static void conclude(struct lane *lane);

static void send_item(struct lane *lane, struct item *item)
{
    struct publish_record record;
    struct record_buffer buffer;
    record_of(item->d, &record, &buffer);
    item->op.on_report = on_report;
    item->state = ITEM_SENT;
    item->batch->waiting++;
    item_hold(item);
    publisher_send(lane->publisher, publisher_topic(lane->publisher, item->d->platform->topic),
                   &record, &item->op);
}

/* What the event's deadline leaves for Kafka, when the commit after it is paid for. */
static int64_t window_end_us(const struct lane *lane, const struct item *item)
{
    int64_t latest = item->d->deadline_us - lane->config->deadlines.commit_us - PURGE_GRACE_US;
    int64_t due = lane->batch->publish_us + lane->config->deadlines.publish_us;
    return latest < due ? latest : due;
}

/* An event that comes too late to be published in time is refused by itself: it must neither hurry
 * the others of its batch nor make Kafka look slow. */
static void publish(struct lane *lane)
{
    struct batch *batch = lane->batch;
    set_state(lane, LANE_PUBLISHING);
    batch->publish_us = clock_mono_us();
    batch->publish_due_us = INT64_MAX;
    int64_t least = lane->config->deadlines.publish_us < PUBLISH_LEAST_US
                        ? lane->config->deadlines.publish_us
                        : PUBLISH_LEAST_US;
    for (size_t i = 0; i < batch->count; i++) {
        struct item *item = &batch->items[i];
        if (item->state != ITEM_QUEUED)
            continue;
        int64_t end = window_end_us(lane, item);
        if (end < batch->publish_us + least) {
            item->state = ITEM_FAILED;
            item->result = PUBLISH_NOT_TRIED;
            continue;
        }
        batch->publish_due_us = end < batch->publish_due_us ? end : batch->publish_due_us;
        send_item(lane, item);
    }
    loop_timer_set(lane->loop, &lane->timer, batch->publish_due_us);
    conclude(lane); /* when there was nothing to send */
}

static void take_report(struct item *item, enum publish_result result)
{
    struct batch *batch = item->batch;
    batch->waiting--;
    item->result = result;
    if (result == PUBLISHED) {
        item->state = ITEM_PUBLISHED;
    } else if (result == PUBLISH_TOO_LARGE && batch->count > 1 && !item->was_alone &&
               !batch->purged) {
        item->state = ITEM_ALONE;
    } else {
        item->state = ITEM_FAILED;
    }
}

static void on_report(struct publish_op *op, enum publish_result result, int32_t partition,
                      int64_t offset)
{
    struct item *item = container_of(op, struct item, op);
    struct batch *batch = item->batch;
    struct lane *lane = batch->lane;
    item_release(item);
    if (lane == NULL) {
        if (batch->held == 0)
            free(batch);
        return;
    }
    if (item->state != ITEM_SENT) /* given up as undecided before this report came */
        return;
    item->partition = partition;
    item->offset = offset;
    take_report(item, result);
    conclude(lane);
}

/* Kafka missed the deadline: nothing may stay under way, or it would be written after the refusal.
 */
static void give_up_publishing(struct lane *lane)
{
    struct batch *batch = lane->batch;
    batch->purged = true;
    for (size_t i = 0; i < batch->count; i++) {
        struct item *item = &batch->items[i];
        if (item->state == ITEM_SENT)
            publisher_miss(lane->publisher, item->op.topic);
        if (item->state == ITEM_ALONE)
            item->state = ITEM_FAILED;
    }
    publisher_purge(lane->publisher);
    loop_timer_set(lane->loop, &lane->timer, clock_mono_us() + PURGE_GRACE_US);
}

static void call_undecided(struct lane *lane)
{
    struct batch *batch = lane->batch;
    for (size_t i = 0; i < batch->count; i++) {
        struct item *item = &batch->items[i];
        if (item->state != ITEM_SENT)
            continue;
        item->state = ITEM_FAILED;
        item->result = PUBLISH_UNDECIDED;
        batch->waiting--;
    }
    conclude(lane);
}

static void refuse_failed(struct lane *lane, struct batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        struct item *item = &batch->items[i];
        if (item->state != ITEM_FAILED)
            continue;
        switch (item->result) {
        case PUBLISH_TOO_LARGE:
            item_finish(lane, item, OUTCOME_BROKER_REFUSED,
                        "the record is larger than the topic takes");
            break;
        case PUBLISH_REFUSED:
            item_finish(lane, item, OUTCOME_BROKER_REFUSED, "unknown topic, or not authorised");
            break;
        case PUBLISH_UNDECIDED:
            metrics_add(lane->metrics, METRIC_DOUBLES_BROKER, 1);
            item_finish(lane, item, OUTCOME_BROKER_DOWN, "in flight at the deadline");
            break;
        case PUBLISH_NOT_TRIED:
            item_finish(lane, item, OUTCOME_STORE_SLOW, "no time was left to publish");
            break;
        case PUBLISH_UNSENT:
        case PUBLISHED:
            item_finish(lane, item, OUTCOME_BROKER_DOWN, "not sent by the deadline");
            break;
        }
    }
}

/* ---- commit ---- */

static struct store_receipt receipt_of(const struct item *item)
{
    const struct delivery *d = item->d;
    return (struct store_receipt){
        .id = d->id,
        .workspace = d->integration->workspace,
        .integration_uuid = d->integration->uuid,
        .platform = d->platform->name,
        .type = d->event.type,
        .external_id = d->event.external_id,
        .body_sha256 = d->body_sha256,
        .body_size = (int32_t)d->body.len,
        .received_wall_us = d->received_wall_us,
        .topic = topic_name(item->op.topic),
        .partition = item->partition,
        .offset = item->offset,
    };
}

/* Sends receipts and COMMIT, and makes room for the next batch behind them. */
static void commit(struct lane *lane, size_t published, size_t failed)
{
    struct batch *batch = lane->batch;
    assert(lane->committing == NULL); /* its answer came before that to this batch's claims */
    lane->batch = NULL;
    lane->committing = batch;
    batch->commit_us = clock_mono_us();
    loop_timer_clear(lane->loop, &lane->timer);
    loop_timer_set(lane->loop, &lane->commit_timer,
                   batch->commit_us + lane->config->deadlines.commit_us);
    store_commit(lane->store, lane->receipts, published, lane->ids, failed);
    set_state(lane, LANE_IDLE);
    refuse_failed(lane, batch);
    gather_wake(lane->gather);
}

/* Goes on when nothing is awaited any more: a record that must go alone first, then the commit. */
static void conclude(struct lane *lane)
{
    struct batch *batch = lane->batch;
    if (batch->waiting > 0)
        return;
    size_t published = 0, failed = 0;
    for (size_t i = 0; i < batch->count; i++) {
        struct item *item = &batch->items[i];
        if (item->state == ITEM_ALONE) {
            item->was_alone = true;
            send_item(lane, item);
            return;
        }
        if (item->state == ITEM_PUBLISHED)
            lane->receipts[published++] = receipt_of(item);
        else if (item->state == ITEM_FAILED)
            lane->ids[failed++] = item->d->id;
    }
    metrics_step(lane->metrics, STEP_PUBLISH, clock_mono_us() - batch->publish_us);
    if (published > 0) {
        commit(lane, published, failed);
        return;
    }
    store_rollback(lane->store);
    refuse_failed(lane, batch);
    lane_rest(lane);
}

static void on_committed(void *context)
{
    struct lane *lane = context;
    struct batch *batch = lane->committing;
    assert(batch != NULL);
    lane->committing = NULL;
    loop_timer_clear(lane->loop, &lane->commit_timer);
    int64_t now = clock_mono_us();
    metrics_step(lane->metrics, STEP_COMMIT, now - batch->commit_us);
    for (size_t i = 0; i < batch->count; i++) {
        struct item *item = &batch->items[i];
        if (item->state != ITEM_PUBLISHED)
            continue;
        item->d->receipt.partition = item->partition;
        item->d->receipt.offset = item->offset;
        item->d->receipt.publish_us = batch->commit_us - batch->publish_us;
        item->d->receipt.commit_us = now - batch->commit_us;
        item_finish(lane, item, OUTCOME_ACCEPTED, NULL);
    }
    batch_end(batch);
    if (lane->state == LANE_CLAIMING) /* its claims had to wait for this commit */
        set_claim_timer(lane);
}

/* ---- deadlines and the connection ---- */

static void on_timer(struct loop_timer *timer)
{
    struct lane *lane = container_of(timer, struct lane, timer);
    if (lane->state == LANE_CLAIMING)
        store_drop(lane->store, "claims were not answered in time");
    else if (!lane->batch->purged)
        give_up_publishing(lane);
    else
        call_undecided(lane);
}

static void on_commit_timer(struct loop_timer *timer)
{
    struct lane *lane = container_of(timer, struct lane, commit_timer);
    store_drop(lane->store, "COMMIT was not answered in time");
}

static void on_ready(void *context)
{
    struct lane *lane = context;
    set_state(lane, LANE_IDLE);
    lane->told_unreachable = false;
    metrics_add(lane->metrics, METRIC_STORE_READY, 1);
    log_event(LOG_INFO, "store_ready", "a Postgres connection is ready");
    gather_wake(lane->gather);
}

/* Kafka may have, or get, what was sent, but whether the claims are committed is unknown: the
 * sender comes again, and then perhaps the same record with the same event id. */
static void refuse_lost(struct lane *lane, struct batch *batch, const char *detail)
{
    for (size_t i = 0; i < batch->count; i++) {
        struct item *item = &batch->items[i];
        if (item->d == NULL)
            continue;
        bool maybe_written = item->state == ITEM_SENT || item->state == ITEM_PUBLISHED ||
                             (item->state == ITEM_FAILED && item->result == PUBLISH_UNDECIDED);
        if (maybe_written)
            metrics_add(lane->metrics, METRIC_DOUBLES_STORE_LOST, 1);
        item_finish(lane, item, OUTCOME_STORE_DOWN, detail);
    }
}

static void return_batch(struct lane *lane)
{
    for (size_t i = 0; i < lane->batch->count; i++) {
        struct delivery *d = lane->batch->items[i].d;
        lane->batch->items[i].d = NULL;
        if (d)
            gather_return(lane->gather, d);
    }
}

static void on_lost(void *context, const char *reason)
{
    struct lane *lane = context;
    enum lane_state state = lane->state;
    log_event(LOG_WARNING, "store_lost", "a Postgres connection is lost: %s", reason);
    metrics_add(lane->metrics, METRIC_STORE_LOST, 1);
    metrics_add(lane->metrics, METRIC_STORE_READY, -1);
    set_state(lane, LANE_DOWN);
    loop_timer_clear(lane->loop, &lane->timer);
    loop_timer_clear(lane->loop, &lane->commit_timer);
    gather_wake(lane->gather); /* what waits now waits for a connection */
    if (lane->committing) {
        refuse_lost(lane, lane->committing, "the connection was lost while committing");
        batch_end(lane->committing);
        lane->committing = NULL;
    }
    if (lane->batch == NULL)
        return;
    if (state == LANE_CLAIMING)
        return_batch(
            lane); /* nothing went to Kafka: another transaction may try, if there is time */
    else
        refuse_lost(lane, lane->batch, "the connection was lost over Kafka's acknowledgement");
    batch_end(lane->batch);
    lane->batch = NULL;
}

/* Told once for each outage, not for each attempt. */
static void on_unreachable(void *context, const char *reason)
{
    struct lane *lane = context;
    if (!lane->told_unreachable)
        log_event(LOG_WARNING, "store_unreachable", "Postgres can't be reached; trying again: %s",
                  reason);
    lane->told_unreachable = true;
}

static const struct store_handler store_handler = {
    .on_unreachable = on_unreachable,
    .on_ready = on_ready,
    .on_claimed = on_claimed,
    .on_committed = on_committed,
    .on_lost = on_lost,
};

struct lane *lane_new(struct loop *loop, const struct config *config, struct gather *gather,
                      struct publisher *publisher, struct metrics *metrics, enum gather_queue queue)
{
    struct lane *lane = xcalloc(1, sizeof *lane);
    lane->loop = loop;
    lane->config = config;
    lane->gather = gather;
    lane->publisher = publisher;
    lane->metrics = metrics;
    lane->queue = queue;
    lane->timer.on_due = on_timer;
    lane->commit_timer.on_due = on_commit_timer;
    size_t max = (size_t)config->pipeline.batch;
    lane->taken = xcalloc(max, sizeof *lane->taken);
    lane->ids = xcalloc(max, sizeof *lane->ids);
    lane->receipts = xcalloc(max, sizeof *lane->receipts);
    const struct store_options options = {
        .conninfo = config->postgres.conninfo,
        .password_file = config->postgres.password_file,
        .claim_us = config->deadlines.claim_us,
    };
    lane->store = store_new(loop, &options, &store_handler, lane);
    return lane;
}

void lane_free(struct lane *lane)
{
    if (lane == NULL)
        return;
    assert(lane->batch == NULL && lane->committing == NULL);
    store_free(lane->store);
    free(lane->taken);
    free(lane->ids);
    free(lane->receipts);
    free(lane);
}

bool lane_is_ready(const struct lane *lane)
{
    return lane->state != LANE_DOWN;
}
