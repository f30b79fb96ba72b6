/* The queue behind gather.h: two lists in the order of arrival, the table of events under way, and
 * one timer for the oldest that waits. Lanes are woken at the end of the loop's turn, when all
 * requests of the turn have come in. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "gather.h"

#include "admission.h"
#include "batch.h"
#include "clock.h"
#include "config.h"
#include "gate.h"
#include "hold.h"
#include "lane.h"
#include "log.h"
#include "parking.h"
#include "topic.h"

#define BUCKETS 8192 /* a power of two; about twice the queue's default bound */
#define LANES_MAX 16
#define OVERDUE "no free transaction in time"
/* What an event that starts late must still have for Kafka, and for the grace of the steps around.
 */
#define START_SPARE_US 500000
/* A batch of this size is worth a transaction before the turn's end. */
#define EARLY_BATCH 16

struct gather {
    struct gate *gate;
    struct hold *hold;
    struct batch_env env;
    bool breaker_open;             /* Postgres' breaker */
    struct admission *admission;   /* counts the fresh ones that wait */
    struct lane *lanes[LANES_MAX]; /* the last one is for suspects */
    size_t lane_count;
    struct list queues[2];
    size_t queued[2];
    size_t queued_bytes; /* of bodies, in both */
    size_t pending;      /* deliveries not finished, followers included */
    struct loop_timer overdue;
    struct loop_task wake;
    struct delivery *in_flight[BUCKETS]; /* chains by event id */
};

static struct delivery **bucket_of(struct gather *gather, struct event_id id)
{
    uint32_t hash; /* the id is a digest already */
    memcpy(&hash, id.bytes + 10, sizeof hash);
    return &gather->in_flight[hash & (BUCKETS - 1)];
}

static struct delivery *find_leader(struct gather *gather, struct event_id id)
{
    struct delivery *d = *bucket_of(gather, id);
    while (d && memcmp(d->id.bytes, id.bytes, sizeof id.bytes) != 0)
        d = d->next_in_flight;
    return d;
}

static void in_flight_add(struct gather *gather, struct delivery *d)
{
    struct delivery **bucket = bucket_of(gather, d->id);
    d->next_in_flight = *bucket;
    *bucket = d;
}

static void in_flight_remove(struct gather *gather, struct delivery *d)
{
    struct delivery **link = bucket_of(gather, d->id);
    while (*link != d) {
        assert(*link != NULL);
        link = &(*link)->next_in_flight;
    }
    *link = d->next_in_flight;
    d->next_in_flight = NULL;
}

static struct delivery *head(struct gather *gather, enum gather_queue queue)
{
    struct list *list = &gather->queues[queue];
    return list_is_empty(list) ? NULL : container_of(list->next, struct delivery, node);
}

static void dequeue(struct gather *gather, enum gather_queue queue, struct delivery *d)
{
    list_remove(&d->node);
    gather->queued[queue]--;
    gather->queued_bytes -= d->body.len;
    if (queue == GATHER_FRESH)
        admission_unqueued(gather->admission, d->share);
}

static void enqueue(struct gather *gather, enum gather_queue queue, struct delivery *d)
{
    list_append(&gather->queues[queue], &d->node);
    gather->queued[queue]++;
    gather->queued_bytes += d->body.len;
    if (queue == GATHER_FRESH)
        admission_queued(gather->admission, d->share);
}

bool gather_is_ready(const struct gather *gather)
{
    if (gather->breaker_open)
        return false;
    for (size_t i = 0; i + 1 < gather->lane_count; i++) {
        if (lane_is_ready(gather->lanes[i]))
            return true;
    }
    return false;
}

/* Without a connection an event is held soon. With one, an event waits as long as its
 * deadline leaves time for claim, publication and commit, be it behind a batch that another
 * transaction blocks. */
static int64_t latest_start_us(const struct gather *gather, const struct delivery *d)
{
    const struct config *config = gather->env.config;
    int64_t latest =
        d->deadline_us - config->deadlines.claim_us - config->deadlines.commit_us - START_SPARE_US;
    int64_t patience = d->started_us + config->deadlines.gather_us;
    return gather_is_ready(gather) || latest < patience ? latest : patience;
}

static enum outcome overdue_outcome(enum gather_queue queue)
{
    return queue == GATHER_SUSPECT ? OUTCOME_STORE_SLOW : OUTCOME_OVERLOADED;
}

static void refuse_overdue(struct gather *gather)
{
    int64_t now = clock_mono_us();
    int64_t next = 0;
    for (enum gather_queue queue = GATHER_FRESH; queue <= GATHER_SUSPECT; queue++) {
        for (struct delivery *d; (d = head(gather, queue));) {
            int64_t latest = latest_start_us(gather, d);
            if (latest > now) {
                next = next == 0 || latest < next ? latest : next;
                break;
            }
            dequeue(gather, queue, d);
            if (queue == GATHER_FRESH && !gather_is_ready(gather))
                hold_payload(gather->hold, d);
            else
                gather_finish(gather, d, overdue_outcome(queue), OVERDUE);
        }
    }
    if (next != 0)
        loop_timer_set(gather->env.loop, &gather->overdue, next);
    else
        loop_timer_clear(gather->env.loop, &gather->overdue);
}

static void on_overdue(struct loop_timer *timer)
{
    refuse_overdue(container_of(timer, struct gather, overdue));
}

static void wake_lanes(struct gather *gather)
{
    for (size_t i = 0; i < gather->lane_count; i++)
        lane_wake(gather->lanes[i]);
}

static bool must_hold(const struct gather *gather)
{
    return gather->breaker_open || !gate_is_open(gather->gate);
}

/* What waits for a transaction need not wait for Postgres. */
static void hold_waiting(struct gather *gather)
{
    for (struct delivery *d; must_hold(gather) && (d = head(gather, GATHER_FRESH));) {
        dequeue(gather, GATHER_FRESH, d);
        hold_payload(gather->hold, d);
    }
}

static void on_wake(struct loop_task *task)
{
    struct gather *gather = container_of(task, struct gather, wake);
    hold_waiting(gather);
    refuse_overdue(gather);
    wake_lanes(gather);
}

void gather_wake(struct gather *gather)
{
    loop_defer(gather->env.loop, &gather->wake);
}

void gather_record(struct gather *gather, struct delivery *d)
{
    gather->pending++;
    metrics_queue(gather->env.metrics, d->event.series, 1);
    struct delivery *leader = find_leader(gather, d->id);
    if (leader) {
        list_append(&leader->followers, &d->node);
        return;
    }
    in_flight_add(gather, d);
    if (must_hold(gather)) {
        hold_payload(gather->hold, d);
        return;
    }
    const struct config *config = gather->env.config;
    if (gather->queued[GATHER_FRESH] >= (size_t)config->pipeline.queue ||
        gather->queued_bytes + d->body.len > (size_t)config->pipeline.queue_bytes) {
        /* The oldest has waited longest and is the likeliest to be in time; the newest goes. */
        gather_finish(gather, d, OUTCOME_OVERLOADED, "the pipeline's queue is full");
        return;
    }
    if (!topic_flows(publisher_topic(gather->env.publisher, d->platform->topic)) &&
        !parking_admits(gather->env.parking)) {
        gather_finish(gather, d, OUTCOME_BROKER_DOWN,
                      "Kafka does not acknowledge, and the outbox is full or too old");
        return;
    }
    enqueue(gather, GATHER_FRESH, d);
    if (gather->queued[GATHER_FRESH] % EARLY_BATCH == 0)
        wake_lanes(gather); /* Postgres can work while the rest of the burst is read */
    else
        gather_wake(gather);
}

size_t gather_take(struct gather *gather, enum gather_queue queue, struct delivery **out,
                   size_t max)
{
    size_t taken = 0, bytes = 0;
    size_t bytes_max = (size_t)gather->env.config->pipeline.batch_bytes;
    int64_t now = clock_mono_us();
    for (struct delivery *d; taken < max && (d = head(gather, queue));) {
        bool overdue = latest_start_us(gather, d) <= now;
        if (!overdue && taken > 0 && bytes + d->body.len > bytes_max)
            break;
        dequeue(gather, queue, d);
        if (overdue) {
            gather_finish(gather, d, overdue_outcome(queue), OVERDUE);
        } else {
            bytes += d->body.len;
            out[taken++] = d;
        }
    }
    if (queue == GATHER_FRESH && taken > 0)
        admission_taken(gather->admission, taken, now);
    return taken;
}

void gather_return(struct gather *gather, struct delivery *d)
{
    /* Where it stood: the queue stays in the order of arrival, so that its head is the oldest. */
    struct list *before = gather->queues[GATHER_FRESH].next;
    while (before != &gather->queues[GATHER_FRESH] &&
           container_of(before, struct delivery, node)->started_us < d->started_us)
        before = before->next;
    list_append(before, &d->node);
    gather->queued[GATHER_FRESH]++;
    gather->queued_bytes += d->body.len;
    admission_queued(gather->admission, d->share);
    gather_wake(gather);
}

void gather_suspect(struct gather *gather, struct delivery *d)
{
    if (gather->queued[GATHER_SUSPECT] >= (size_t)gather->env.config->pipeline.suspects) {
        gather_finish(gather, d, OUTCOME_STORE_SLOW,
                      "another transaction holds this event; pipeline.suspects is full");
        return;
    }
    enqueue(gather, GATHER_SUSPECT, d);
    gather_wake(gather);
}

void gather_hold(struct gather *gather, struct delivery *d)
{
    hold_payload(gather->hold, d);
}

void gather_mark(struct gather *gather, struct delivery *d, const char *topic, int32_t partition,
                 int64_t offset)
{
    hold_marker(gather->hold, d, topic, partition, offset);
}

static void finish_one(struct gather *gather, struct delivery *d, enum outcome outcome,
                       const char *detail)
{
    gather->pending--;
    metrics_queue(gather->env.metrics, d->event.series, -1);
    delivery_finish(d, outcome, detail);
}

void gather_finish(struct gather *gather, struct delivery *d, enum outcome outcome,
                   const char *detail)
{
    in_flight_remove(gather, d);
    struct list followers;
    list_init(&followers);
    for (struct list *node; (node = list_pop(&d->followers));)
        list_append(&followers, node);
    finish_one(gather, d, outcome, detail);
    enum outcome shared = outcome == OUTCOME_ACCEPTED ? OUTCOME_DUPLICATE : outcome;
    for (struct list *node; (node = list_pop(&followers));)
        finish_one(gather, container_of(node, struct delivery, node), shared, detail);
}

void gather_store_failed(struct gather *gather, const char *reason)
{
    gate_close(gather->gate);
    if (!gather->breaker_open) {
        gather->breaker_open = true;
        metrics_set(gather->env.metrics, METRIC_STORE_BREAKER, 1);
        metrics_add(gather->env.metrics, METRIC_STORE_OPENED, 1);
        log_event(LOG_WARNING, "store_breaker_opened",
                  "nothing is claimed or published until a probe is committed: %s", reason);
    }
    gather_wake(gather); /* what waits may be overdue now; lanes that are idle probe */
}

void gather_store_proven(struct gather *gather)
{
    if (gather->breaker_open)
        log_event(LOG_INFO, "store_breaker_closed", "Postgres commits");
    gather->breaker_open = false;
    metrics_set(gather->env.metrics, METRIC_STORE_BREAKER, 0);
    gather_wake(gather);
}

bool gather_breaker_is_open(const struct gather *gather)
{
    return gather->breaker_open;
}

size_t gather_pending(const struct gather *gather)
{
    return gather->pending;
}

struct admission *gather_admission(const struct gather *gather)
{
    return gather->admission;
}

/* An event may wait as long as latest_start_us() lets it. */
static struct admission *new_admission(const struct config *config, struct metrics *metrics)
{
    int64_t patience = config->deadlines.answer_us - config->deadlines.claim_us -
                       config->deadlines.commit_us - START_SPARE_US;
    return admission_new(
        &(struct admission_limits){.queue = (size_t)config->pipeline.queue,
                                   .patience_us = patience > config->deadlines.gather_us
                                                      ? patience
                                                      : config->deadlines.gather_us},
        metrics);
}

struct gather *gather_new(struct loop *loop, const struct config *config, struct gate *gate,
                          struct publisher *publisher, struct parking *parking,
                          struct metrics *metrics)
{
    struct gather *gather = xcalloc(1, sizeof *gather);
    gather->gate = gate;
    gather->hold = hold_new(loop, config, gate, gather, publisher, metrics);
    gather->env = (struct batch_env){.loop = loop,
                                     .config = config,
                                     .gather = gather,
                                     .publisher = publisher,
                                     .parking = parking,
                                     .metrics = metrics};
    gather->breaker_open = true; /* until the first probe */
    metrics_set(metrics, METRIC_STORE_BREAKER, 1);
    gather->admission = new_admission(config, metrics);
    gather->overdue.on_due = on_overdue;
    gather->wake.run = on_wake;
    list_init(&gather->queues[GATHER_FRESH]);
    list_init(&gather->queues[GATHER_SUSPECT]);
    size_t lanes = (size_t)config->postgres.lanes;
    assert(lanes + 1 <= LANES_MAX);
    for (size_t i = 0; i <= lanes; i++) {
        enum gather_queue queue = i < lanes ? GATHER_FRESH : GATHER_SUSPECT;
        gather->lanes[gather->lane_count++] = lane_new(&gather->env, queue);
    }
    return gather;
}

void gather_free(struct gather *gather)
{
    if (gather == NULL)
        return;
    assert(gather->pending == 0);
    for (size_t i = 0; i < gather->lane_count; i++)
        lane_free(gather->lanes[i]);
    hold_free(gather->hold);
    loop_timer_clear(gather->env.loop, &gather->overdue);
    loop_cancel(&gather->wake);
    admission_free(gather->admission);
    free(gather);
}
