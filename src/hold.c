/* The sending side of hold.h. Each record has its event's deadline, and no purge when it is missed:
 * what arrives late is a copy for the claim to sort out. Bounded by age and bytes, so that an
 * outage without end becomes an honest refusal. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "hold.h"

#include "clock.h"
#include "config.h"
#include "delivery_memory.h"
#include "gate.h"
#include "held.h"
#include "publisher.h"
#include "topic.h"

/* What the answer needs after the report. */
#define ANSWER_SPARE_US 100000
/* With less time than this a healthy Kafka may miss the deadline. */
#define FAIR_US 250000

struct holding {
    struct publish_op op;
    struct hold *hold;
    struct delivery *d;    /* NULL once answered */
    struct delivery *held; /* whose body librdkafka reads */
    struct list node;      /* in hold->sent, by due_us, until answered */
    int64_t sent_us, due_us;
    bool is_marker, is_fair;
};

struct hold {
    struct loop *loop;
    const struct config *config;
    struct gate *gate;
    struct gather *gather;
    struct publisher *publisher;
    struct metrics *metrics;
    struct list sent;
    size_t sent_count;
    struct loop_timer due;
    struct loop_task refuse;
    struct list refused; /* deliveries that are answered at the end of the turn */
    const char *why;     /* of the last one: they have one cause */
};

static void answer(struct holding *holding, enum outcome outcome, const char *detail)
{
    struct delivery *d = holding->d;
    holding->d = NULL;
    list_remove(&holding->node);
    holding->hold->sent_count--;
    if (holding->is_marker && outcome != OUTCOME_ACCEPTED)
        metrics_add(holding->hold->metrics, METRIC_DOUBLES_STORE_LOST, 1);
    gather_finish(holding->hold->gather, d, outcome, detail);
}

static void give_back(struct hold *hold, const struct delivery *d)
{
    gate_count(hold->gate, -(int64_t)d->body.len);
}

/* It counts in hold.bytes until it is given back: what Kafka does not take uses nothing up. */
static bool take_bytes(struct hold *hold, const struct delivery *d)
{
    bool fits = gate_count(hold->gate, (int64_t)d->body.len) <= hold->config->hold.bytes;
    if (!fits)
        give_back(hold, d);
    return fits;
}

static void on_report(struct publish_op *op, enum publish_result result, int32_t partition,
                      int64_t offset)
{
    (void)partition, (void)offset;
    struct holding *holding = container_of(op, struct holding, op);
    struct hold *hold = holding->hold;
    if (!holding->is_marker && result != PUBLISHED)
        give_back(hold, holding->held);
    if (holding->d && result == PUBLISHED) {
        metrics_add(hold->metrics, holding->is_marker ? METRIC_HELD_MARKERS : METRIC_HELD_PAYLOADS,
                    1);
        answer(holding, OUTCOME_ACCEPTED, "held until Postgres is back");
    } else if (holding->d) {
        answer(holding, OUTCOME_STORE_DOWN, "Postgres is away, and Kafka did not take it either");
    }
    delivery_release(holding->held);
    free(holding);
}

static void set_timer(struct hold *hold)
{
    if (list_is_empty(&hold->sent))
        loop_timer_clear(hold->loop, &hold->due);
    else
        loop_timer_set(hold->loop, &hold->due,
                       container_of(hold->sent.next, struct holding, node)->due_us);
}

static void on_due(struct loop_timer *timer)
{
    struct hold *hold = container_of(timer, struct hold, due);
    int64_t now = clock_mono_us();
    list_each_safe(node, &hold->sent)
    {
        struct holding *holding = container_of(node, struct holding, node);
        if (holding->due_us > now)
            break;
        if (holding->is_fair)
            topic_missed(holding->op.topic, -1, holding->sent_us);
        answer(holding, OUTCOME_STORE_DOWN, "Postgres is away, and Kafka does not answer either");
    }
    set_timer(hold);
}

/* By due time; what is new is nearly always the last. */
static void insert(struct hold *hold, struct holding *holding)
{
    struct list *before = &hold->sent;
    while (before->prev != &hold->sent &&
           container_of(before->prev, struct holding, node)->due_us > holding->due_us)
        before = before->prev;
    list_init(&holding->node);
    list_append(before, &holding->node);
    hold->sent_count++;
    set_timer(hold);
}

static void send_record(struct hold *hold, struct delivery *d, const char *topic,
                        const struct publish_record *record, bool is_marker)
{
    int64_t now = clock_mono_us();
    struct holding *holding = xcalloc(1, sizeof *holding);
    int64_t latest = d->deadline_us - ANSWER_SPARE_US;
    int64_t patience = now + hold->config->deadlines.publish_us;
    holding->due_us = latest < patience ? latest : patience;
    holding->is_fair = holding->due_us - now >= FAIR_US;
    holding->is_marker = is_marker;
    holding->sent_us = now;
    holding->hold = hold;
    holding->d = holding->held = d;
    holding->op.on_report = on_report;
    delivery_hold(d);
    insert(hold, holding);
    publisher_send(hold->publisher, publisher_topic(hold->publisher, topic), record, &holding->op);
}

static void on_refuse(struct loop_task *task)
{
    struct hold *hold = container_of(task, struct hold, refuse);
    for (struct list *node; (node = list_pop(&hold->refused));)
        gather_finish(hold->gather, container_of(node, struct delivery, node), OUTCOME_STORE_DOWN,
                      hold->why);
}

static void refuse(struct hold *hold, struct delivery *d, const char *why)
{
    hold->why = why;
    list_append(&hold->refused, &d->node);
    loop_defer(hold->loop, &hold->refuse);
}

void hold_payload(struct hold *hold, struct delivery *d)
{
    const struct config *config = hold->config;
    const char *topic = config->hold.topic;
    int64_t closed_us = gate_closed_us(hold->gate);
    struct publish_record record;
    struct held_buffer buffer;
    if (closed_us != 0 && clock_mono_us() - closed_us > config->hold.age_us) {
        refuse(hold, d, "Postgres is away for longer than hold.age");
    } else if (hold->sent_count >= (size_t)config->pipeline.queue) {
        refuse(hold, d, "Postgres is away, and pipeline.queue is full");
    } else if (!take_bytes(hold, d)) {
        refuse(hold, d, "Postgres is away, and hold.bytes is used up");
    } else {
        held_payload(d, d->platform->topic, &record, &buffer);
        if (topic_admits(publisher_topic(hold->publisher, topic), record.key)) {
            send_record(hold, d, topic, &record, false);
        } else {
            give_back(hold, d);
            refuse(hold, d, "Postgres is away, and Kafka does not take it either");
        }
    }
}

void hold_marker(struct hold *hold, struct delivery *d, const char *topic, int32_t partition,
                 int64_t offset)
{
    struct publish_record record;
    struct held_buffer buffer;
    held_marker(d, topic, partition, offset, &record, &buffer);
    send_record(hold, d, hold->config->hold.markers, &record, true);
}

struct hold *hold_new(struct loop *loop, const struct config *config, struct gate *gate,
                      struct gather *gather, struct publisher *publisher, struct metrics *metrics)
{
    struct hold *hold = xcalloc(1, sizeof *hold);
    hold->loop = loop;
    hold->config = config;
    hold->gate = gate;
    hold->gather = gather;
    hold->publisher = publisher;
    hold->metrics = metrics;
    hold->due.on_due = on_due;
    hold->refuse.run = on_refuse;
    list_init(&hold->sent);
    list_init(&hold->refused);
    return hold;
}

void hold_free(struct hold *hold)
{
    if (hold == NULL)
        return;
    assert(list_is_empty(&hold->sent) && list_is_empty(&hold->refused));
    loop_timer_clear(hold->loop, &hold->due);
    loop_cancel(&hold->refuse);
    free(hold);
}
