/* The records of a batch behind batch.h: what Kafka says, or does not say in time, is turned into
 * the end of each one here, and nowhere else. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "batch.h"

#include "clock.h"
#include "config.h"
#include "delivery_memory.h"
#include "directory.h"
#include "parking.h"
#include "record.h"
#include "topic.h"

/* Reports of purged records come at once; whoever has none by then is undecided. */
#define PURGE_GRACE_US 100000
/* With less time than this a healthy Kafka may miss the deadline. */
#define PUBLISH_LEAST_US 250000

static int compare_deliveries(const void *a, const void *b)
{
    const struct delivery *const *x = a, *const *y = b;
    return memcmp((*x)->id.bytes, (*y)->id.bytes, sizeof(*x)->id.bytes);
}

static void on_timer(struct loop_timer *timer);

struct batch *batch_new(const struct batch_env *env, struct delivery **taken, size_t count,
                        void (*on_settled)(struct batch *), void *owner)
{
    struct batch *batch = xcalloc(1, sizeof *batch + count * sizeof batch->items[0]);
    batch->env = env;
    batch->on_settled = on_settled;
    batch->owner = owner;
    batch->count = count;
    batch->claim_us = clock_mono_us();
    batch->timer.on_due = on_timer;
    qsort(taken, count, sizeof *taken, compare_deliveries);
    for (size_t i = 0; i < count; i++) {
        struct delivery *d = taken[i];
        batch->items[i].batch = batch;
        batch->items[i].d = d;
        d->receipt.gather_us = batch->claim_us - d->started_us;
        metrics_step(env->metrics, STEP_GATHER, d->receipt.gather_us);
    }
    return batch;
}

void batch_end(struct batch *batch)
{
    loop_timer_clear(batch->env->loop, &batch->timer);
    batch->owner = NULL;
    if (batch->lent == 0)
        free(batch);
}

void batch_finish(struct item *item, enum outcome outcome, const char *detail)
{
    struct delivery *d = item->d;
    item->d = NULL;
    item->state = ITEM_FINISHED;
    gather_finish(item->batch->env->gather, d, outcome, detail);
}

bool batch_is_over(const struct batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        if (batch->items[i].d)
            return false;
    }
    return true;
}

void batch_refuse(struct batch *batch, enum outcome outcome, const char *detail)
{
    for (size_t i = 0; i < batch->count; i++) {
        if (batch->items[i].d)
            batch_finish(&batch->items[i], outcome, detail);
    }
}

void batch_return(struct batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        struct delivery *d = batch->items[i].d;
        batch->items[i].d = NULL;
        batch->items[i].state = ITEM_FINISHED;
        if (d)
            gather_return(batch->env->gather, d);
    }
}

/* ---- publishing ---- */

/* The body stays until the report, whatever becomes of the batch meanwhile. */
static void item_lend(struct item *item)
{
    item->lent = item->d;
    item->batch->lent++;
    delivery_hold(item->lent);
}

static void item_take_back(struct item *item)
{
    struct delivery *lent = item->lent;
    item->lent = NULL;
    item->batch->lent--;
    delivery_release(lent);
}

static void on_report(struct publish_op *op, enum publish_result result, int32_t partition,
                      int64_t offset);

/* Sends it, or leaves it for the outbox while Kafka does not take it. A record that goes again by
 * itself was sent before: it is not held back. */
static void send_item(struct item *item)
{
    struct batch *batch = item->batch;
    struct publish_record record;
    struct record_buffer buffer;
    record_of(item->d, &record, &buffer);
    struct topic *topic = publisher_topic(batch->env->publisher, item->d->platform->topic);
    item->op.topic = topic;
    item->partition = -1;
    if (!item->was_alone && !topic_admits(topic, record.key)) {
        item->state = ITEM_FAILED;
        item->result = PUBLISH_UNSENT;
        return;
    }
    item->op.on_report = on_report;
    item->state = ITEM_SENT;
    batch->waiting++;
    item_lend(item);
    publisher_send(batch->env->publisher, topic, &record, &item->op);
}

/* What the event's deadline leaves for Kafka, when the commit after it is paid for. */
static int64_t window_end_us(const struct item *item)
{
    const struct batch *batch = item->batch;
    const struct config *config = batch->env->config;
    int64_t latest = item->d->deadline_us - config->deadlines.commit_us - PURGE_GRACE_US;
    int64_t due = batch->publish_us + config->deadlines.publish_us;
    return latest < due ? latest : due;
}

/* Goes on when nothing is awaited any more: a record that must go alone first, then the end. What
 * Kafka did not take for its own reasons is parked, as long as there is room. */
static void conclude(struct batch *batch)
{
    if (batch->waiting > 0)
        return;
    for (size_t i = 0; i < batch->count; i++) {
        struct item *item = &batch->items[i];
        if (item->state == ITEM_ALONE && batch->orphaned)
            item->state = ITEM_FAILED;
        if (item->state == ITEM_ALONE) {
            item->was_alone = true;
            send_item(item);
            return;
        }
        bool may_park = item->result == PUBLISH_UNSENT || item->result == PUBLISH_UNDECIDED ||
                        item->result == PUBLISH_NO_TOPIC;
        if (item->state == ITEM_FAILED && may_park && parking_admits(batch->env->parking))
            item->state = ITEM_PARKED;
    }
    loop_timer_clear(batch->env->loop, &batch->timer);
    metrics_step(batch->env->metrics, STEP_PUBLISH, clock_mono_us() - batch->publish_us);
    batch->settled = true;
    batch->on_settled(batch);
}

/* An event that comes too late to be published in time is refused by itself: it must neither hurry
 * the others of its batch nor make Kafka look slow. */
void batch_publish(struct batch *batch)
{
    int64_t longest = batch->env->config->deadlines.publish_us;
    int64_t least = longest < PUBLISH_LEAST_US ? longest : PUBLISH_LEAST_US;
    int64_t due = INT64_MAX;
    batch->publish_us = clock_mono_us();
    for (size_t i = 0; i < batch->count; i++) {
        struct item *item = &batch->items[i];
        if (item->state != ITEM_QUEUED)
            continue;
        int64_t end = window_end_us(item);
        if (end < batch->publish_us + least) {
            item->state = ITEM_FAILED;
            item->result = PUBLISH_NOT_TRIED;
            continue;
        }
        due = end < due ? end : due;
        send_item(item);
    }
    if (batch->waiting > 0)
        loop_timer_set(batch->env->loop, &batch->timer, due);
    conclude(batch); /* when there was nothing to send */
}

static void take_report(struct item *item, enum publish_result result)
{
    struct batch *batch = item->batch;
    batch->waiting--;
    item->result = result;
    if (result == PUBLISHED)
        item->state = ITEM_PUBLISHED;
    else if (result == PUBLISH_TOO_LARGE && batch->count > 1 && !item->was_alone && !batch->purged)
        item->state = ITEM_ALONE;
    else
        item->state = ITEM_FAILED;
}

static void on_report(struct publish_op *op, enum publish_result result, int32_t partition,
                      int64_t offset)
{
    struct item *item = container_of(op, struct item, op);
    struct batch *batch = item->batch;
    item_take_back(item);
    if (batch->owner == NULL) {
        if (batch->lent == 0)
            free(batch);
        return;
    }
    if (item->state != ITEM_SENT) /* given up as undecided before this report came */
        return;
    item->partition = partition;
    item->offset = offset;
    take_report(item, result);
    conclude(batch);
}

/* Kafka missed the deadline: nothing may stay under way, or it would be written after it was parked
 * or refused. */
static void give_up(struct batch *batch)
{
    batch->purged = true;
    for (size_t i = 0; i < batch->count; i++) {
        struct item *item = &batch->items[i];
        if (item->state == ITEM_SENT) {
            struct publish_record record;
            struct record_buffer buffer;
            record_of(item->d, &record, &buffer);
            topic_missed(item->op.topic, topic_partition(item->op.topic, record.key),
                         batch->publish_us);
        }
        if (item->state == ITEM_ALONE)
            item->state = ITEM_FAILED;
    }
    publisher_purge(batch->env->publisher);
    loop_timer_set(batch->env->loop, &batch->timer, clock_mono_us() + PURGE_GRACE_US);
}

static void call_undecided(struct batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        struct item *item = &batch->items[i];
        if (item->state != ITEM_SENT)
            continue;
        item->state = ITEM_FAILED;
        item->result = PUBLISH_UNDECIDED;
        batch->waiting--;
    }
    conclude(batch);
}

static void on_timer(struct loop_timer *timer)
{
    struct batch *batch = container_of(timer, struct batch, timer);
    if (batch->purged)
        call_undecided(batch);
    else
        give_up(batch);
}

/* ---- what is written down, and answered ---- */

bool batch_maybe_in_kafka(const struct item *item)
{
    return item->state == ITEM_SENT || item->state == ITEM_PUBLISHED ||
           ((item->state == ITEM_FAILED || item->state == ITEM_PARKED) &&
            item->result == PUBLISH_UNDECIDED);
}

struct store_place batch_place(const struct item *item)
{
    bool published = item->state == ITEM_PUBLISHED;
    return (struct store_place){.received_wall_us = item->d->received_wall_us,
                                .partition = published ? item->partition : -1,
                                .offset = published ? item->offset : -1};
}

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

static void write_parked(const struct item *item, struct store *store)
{
    struct publish_record record;
    struct record_buffer buffer;
    record_of(item->d, &record, &buffer);
    size_t len;
    char *headers = record_pack(&record, &len);
    store_parked(store, &(struct store_parked){
                            .receipt = receipt_of(item),
                            .key_partition = topic_partition(item->op.topic, record.key),
                            .undecided = item->result == PUBLISH_UNDECIDED,
                            .sent_partition = item->partition,
                            .record_wall_us = record.wall_us,
                            .key = record.key,
                            .headers = {headers, len},
                            .body = item->d->body,
                        });
    free(headers);
}

size_t batch_write(struct batch *batch, struct store *store)
{
    size_t published = 0, parked = 0, failed = 0;
    for (size_t i = 0; i < batch->count; i++) {
        published += batch->items[i].state == ITEM_PUBLISHED;
        parked += batch->items[i].state == ITEM_PARKED;
        failed += batch->items[i].state == ITEM_FAILED;
    }
    if (published + parked == 0)
        return 0;
    store_write(store, published, parked, failed);
    for (size_t i = 0; i < batch->count; i++) {
        struct item *item = &batch->items[i];
        if (item->state == ITEM_PUBLISHED) {
            struct store_receipt receipt = receipt_of(item);
            store_published(store, &receipt);
        } else if (item->state == ITEM_PARKED) {
            write_parked(item, store);
        } else if (item->state == ITEM_FAILED) {
            store_forget(store, item->d->id);
        }
    }
    return published + parked;
}

static void refuse_item(struct item *item)
{
    switch (item->result) {
    case PUBLISH_TOO_LARGE:
        batch_finish(item, OUTCOME_BROKER_REFUSED, "the record is larger than the topic takes");
        break;
    case PUBLISH_REFUSED:
        batch_finish(item, OUTCOME_BROKER_REFUSED, "Kafka calls the record invalid");
        break;
    case PUBLISH_NO_TOPIC:
        batch_finish(item, OUTCOME_BROKER_REFUSED,
                     "unknown topic, or not authorised; no room to park");
        break;
    case PUBLISH_UNDECIDED:
        metrics_add(item->batch->env->metrics, METRIC_DOUBLES_BROKER, 1);
        batch_finish(item, OUTCOME_BROKER_DOWN, "in flight at the deadline; no room to park");
        break;
    case PUBLISH_NOT_TRIED:
        batch_finish(item, OUTCOME_STORE_SLOW, "no time was left to publish");
        break;
    case PUBLISH_UNSENT:
    case PUBLISHED:
        batch_finish(item, OUTCOME_BROKER_DOWN, "not sent by the deadline; no room to park");
        break;
    }
}

void batch_refuse_failed(struct batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        if (batch->items[i].state == ITEM_FAILED)
            refuse_item(&batch->items[i]);
    }
}

static const char *why_parked(const struct item *item)
{
    return item->result == PUBLISH_UNDECIDED ? "parked: in flight at the deadline"
                                             : "parked: Kafka does not take it at present";
}

void batch_accept(struct batch *batch, int64_t now_us)
{
    size_t parked = 0, bytes = 0;
    for (size_t i = 0; i < batch->count; i++) {
        struct item *item = &batch->items[i];
        if (item->state != ITEM_PUBLISHED && item->state != ITEM_PARKED)
            continue;
        bool is_parked = item->state == ITEM_PARKED;
        parked += is_parked;
        bytes += is_parked ? item->d->body.len : 0;
        item->d->receipt.partition = is_parked ? -1 : item->partition;
        item->d->receipt.offset = is_parked ? -1 : item->offset;
        item->d->receipt.publish_us = batch->commit_us - batch->publish_us;
        item->d->receipt.commit_us = now_us - batch->commit_us;
        batch_finish(item, OUTCOME_ACCEPTED, is_parked ? why_parked(item) : NULL);
    }
    if (parked > 0) {
        metrics_add(batch->env->metrics, METRIC_PARKED, (int64_t)parked);
        parking_add(batch->env->parking, bytes);
    }
}
