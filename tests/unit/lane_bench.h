/* For the tests of gather, lane and batch: fakes of store and publisher, linked instead of store.c
 * and publisher.c, and a loop with one lane. The loop and the deliveries are real. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "clock.h"
#include "config.h"
#include "delivery.h"
#include "directory.h"
#include "gate.h"
#include "gather.h"
#include "log.h"
#include "loop.h"
#include "parking.h"
#include "publisher.h"
#include "record.h"
#include "shown.h"
#include "store.h"
#include "topic.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

/* ---- fake store: the last call of each kind is kept, the test answers ---- */

struct store {
    const struct store_handler *handler;
    void *context;
    size_t claimed; /* ids of the last claim */
    struct event_id ids[64];
    struct store_place places[64]; /* of the last one that was made again */
    int claims, unblocked, commits, rollbacks, probes;
    /* of the last commit */
    size_t receipts, refused, parked;
    size_t announced[3];
    struct event_id refused_ids[64];
    struct store_parked parked_rows[64]; /* without what it points to */
    char parked_bodies[64][32];
    const char *dropped;
};

static struct store *stores[4]; /* [0] the lane's, [1] the suspects' */
static size_t store_count;

struct store *store_new(struct loop *loop, const struct store_options *options,
                        const struct store_handler *handler, void *context)
{
    (void)loop, (void)options;
    struct store *store = xcalloc(1, sizeof *store);
    store->handler = handler;
    store->context = context;
    stores[store_count++] = store;
    return store;
}

void store_free(struct store *store)
{
    free(store);
}

void store_claim(struct store *store, const struct event_id *ids, size_t count)
{
    for (size_t i = 1; i < count; i++)
        assert_true(memcmp(ids[i - 1].bytes, ids[i].bytes, 16) < 0);
    store->claims++;
    store->claimed = count;
    memcpy(store->ids, ids, count * sizeof *ids);
}

void store_claim_unblocked(struct store *store, const struct event_id *ids, size_t count)
{
    assert_true(count > 0);
    store->unblocked++;
    store->claimed = count;
    memcpy(store->ids, ids, count * sizeof *ids);
}

/* Counted with the others that do not wait. */
void store_claim_again(struct store *store, const struct event_id *ids,
                       const struct store_place *places, size_t count)
{
    memcpy(store->places, places, count * sizeof *places);
    store_claim_unblocked(store, ids, count);
}

void store_write(struct store *store, size_t published, size_t parked, size_t forgotten)
{
    store->announced[0] = published;
    store->announced[1] = parked;
    store->announced[2] = forgotten;
    store->receipts = store->refused = store->parked = 0;
}

void store_published(struct store *store, const struct store_receipt *receipt)
{
    assert_int_equal(receipt->partition, 3);
    assert_int_equal(receipt->offset, 42);
    store->receipts++;
}

void store_parked(struct store *store, const struct store_parked *parked)
{
    struct publish_record record;
    char *names;
    assert_true(record_unpack(parked->headers, &record, &names));
    assert_true(record.header_count > 5);
    assert_string_equal(record.headers[0].name, "ce_specversion");
    free(names);
    assert_string_equal(parked->receipt.topic, "webhooks.test");
    assert_true(slice_starts(parked->key, slice_of("w:")));
    snprintf(store->parked_bodies[store->parked], 32, "%.*s", (int)parked->body.len,
             parked->body.ptr);
    store->parked_rows[store->parked++] = *parked;
}

void store_forget(struct store *store, struct event_id id)
{
    store->refused_ids[store->refused++] = id;
}

void store_commit(struct store *store)
{
    assert_int_equal(store->announced[0], store->receipts);
    assert_int_equal(store->announced[1], store->parked);
    assert_int_equal(store->announced[2], store->refused);
    assert_true(store->receipts + store->parked > 0);
    store->commits++;
}

void store_probe(struct store *store)
{
    store->probes++;
}

void store_rollback(struct store *store)
{
    store->rollbacks++;
}

void store_drop(struct store *store, const char *reason)
{
    store->dropped = reason;
}

static inline void store_says_claimed(struct store *store, enum claim_verdict all)
{
    enum claim_verdict verdicts[64];
    for (size_t i = 0; i < store->claimed; i++)
        verdicts[i] = all;
    store->handler->on_claimed(store->context, CLAIMED, verdicts, NULL);
}

static inline void store_fails_claim(struct store *store, enum claim_result result, const char *why)
{
    store->handler->on_claimed(store->context, result, NULL, why);
}

static inline void store_says_probed(struct store *store)
{
    store->handler->on_probed(store->context);
}

/* ---- fake publisher ---- */

struct topic {
    bool refuses;
    int misses;
    int64_t missed_sent_us;
};
struct publisher {
    struct topic topic;
    struct publish_op *ops[64];
    struct slice values[64];
    int64_t times[64];
    size_t sent;
    int purges;
};

struct topic *publisher_topic(struct publisher *publisher, const char *name)
{
    (void)name;
    return &publisher->topic;
}

const char *topic_name(const struct topic *topic)
{
    (void)topic;
    return "webhooks.test";
}

bool topic_admits(struct topic *topic, struct slice key)
{
    assert_true(slice_starts(key, slice_of("w:")));
    return !topic->refuses;
}

bool topic_flows(const struct topic *topic)
{
    return !topic->refuses;
}

int32_t topic_partition(const struct topic *topic, struct slice key)
{
    (void)topic, (void)key;
    return 7;
}

void publisher_send(struct publisher *publisher, struct topic *topic,
                    const struct publish_record *record, struct publish_op *op)
{
    op->topic = topic;
    publisher->values[publisher->sent] = record->value;
    publisher->times[publisher->sent] = record->wall_us;
    publisher->ops[publisher->sent++] = op;
}

void topic_missed(struct topic *topic, int32_t partition, int64_t sent_us)
{
    assert_true(partition == 7 || partition == -1);
    topic->misses++;
    topic->missed_sent_us = sent_us;
}

void publisher_purge(struct publisher *publisher)
{
    publisher->purges++;
}

static inline void kafka_says(struct publisher *publisher, size_t index, enum publish_result result)
{
    struct publish_op *op = publisher->ops[index];
    publisher->ops[index] = NULL;
    op->on_report(op, result, result == PUBLISHED || result == PUBLISH_UNDECIDED ? 3 : -1,
                  result == PUBLISHED ? 42 : -1);
}

/* ---- a loop with one lane ---- */

struct bench {
    struct config config;
    struct platform platform;
    struct integration integration;
    struct loop *loop;
    struct publisher publisher;
    struct parking *parking;
    struct gate *gate;
    struct gather *gather;
    struct delivery_env env;
    enum outcome outcomes[32]; /* by the number of the delivery; NONE = not answered */
    size_t started;
};

/* What unhold.c does when Postgres is back. */
static inline void open_gate(struct bench *bench)
{
    assert_true(gate_open(bench->gate, gate_epoch(bench->gate)));
}

/* A connection, and its probe. */
static inline void come_back(struct bench *bench, struct store *store)
{
    int probes = store->probes;
    store->handler->on_ready(store->context);
    loop_turn(bench->loop, 0);
    if (store->probes > probes) {
        store_says_probed(store);
        loop_turn(bench->loop, 0);
    }
    open_gate(bench);
}

static inline void on_done(struct delivery *d, void *context)
{
    assert_int_equal(*(enum outcome *)context, OUTCOME_NONE);
    *(enum outcome *)context = d->outcome;
}

static int start(void **state)
{
    struct bench *bench = *state = xcalloc(1, sizeof *bench);
    log_set_level(LOG_ERROR + 1);
    store_count = 0;
    bench->config.postgres.lanes = 1;
    bench->config.postgres.conninfo = "";
    bench->config.pipeline.batch = 32;
    bench->config.pipeline.queue = 20;
    bench->config.pipeline.suspects = 2;
    bench->config.deadlines.answer_us = 2500000;
    bench->config.deadlines.gather_us = 300000;
    bench->config.deadlines.claim_us = 400000;
    bench->config.deadlines.publish_us = 1000000;
    bench->config.deadlines.commit_us = 500000;
    bench->platform.name = "test";
    bench->platform.topic = "webhooks.test";
    bench->integration.workspace = "w";
    bench->integration.id = "00000000-0000-0000-0000-000000000000";
    bench->loop = loop_new();
    struct metrics *metrics = metrics_shard_new();
    bench->env.metrics = metrics;
    bench->config.pipeline.batch_bytes = 1 << 20;
    bench->config.pipeline.queue_bytes = 1 << 20;
    bench->config.park.bytes = 1 << 20;
    bench->config.park.age_us = 1000000;
    bench->parking = parking_new(&bench->config);
    bench->config.hold.topic = "hold";
    bench->config.hold.markers = "markers";
    bench->config.hold.age_us = 60000000;
    bench->config.hold.bytes = 1 << 20;
    bench->gate = gate_new();
    open_gate(bench);
    bench->gather = gather_new(bench->loop, &bench->config, bench->gate, &bench->publisher,
                               bench->parking, metrics);
    come_back(bench, stores[0]);
    come_back(bench, stores[1]);
    assert_int_equal(stores[0]->probes, 1);
    return 0;
}

static int finish(void **state)
{
    struct bench *bench = *state;
    assert_int_equal(gather_pending(bench->gather), 0);
    gather_free(bench->gather);
    free(bench->gate);
    parking_free(bench->parking);
    loop_free(bench->loop);
    free(bench);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, finish)

static int64_t made_earlier_us;

/* A delivery of the event `name`, as delivery.c would hand it over. */
static inline size_t deliver(struct bench *bench, const char *name)
{
    struct delivery *d = xcalloc(1, sizeof *d);
    d->magic = DELIVERY_MAGIC;
    d->env = &bench->env;
    d->step = DELIVERY_RECORD;
    d->platform = &bench->platform;
    d->integration = &bench->integration;
    d->workspace = slice_of("w");
    d->memory = xstrdup(name);
    d->body = slice_of(d->memory);
    d->event.type = slice_of("t");
    d->event.external_id = d->body;
    d->content_type = slice_of("application/json");
    d->id = event_id_of(d->workspace, slice_of("test"), d->event.type, d->event.external_id);
    d->id_known = true;
    d->holds = 1;
    d->started_us = clock_mono_us() - made_earlier_us;
    d->received_wall_us = clock_wall_us();
    d->deadline_us = d->started_us + bench->config.deadlines.answer_us;
    d->on_done = on_done;
    d->context = &bench->outcomes[bench->started];
    list_init(&d->node);
    list_init(&d->followers);
    gather_record(bench->gather, d);
    return bench->started++;
}

/* Deliveries of these events, up to a NULL, are claimed in one batch, and none is known. */
__attribute__((sentinel)) static inline void claim_new(struct bench *bench, ...)
{
    va_list names;
    va_start(names, bench);
    for (const char *name; (name = va_arg(names, const char *)) != NULL;)
        deliver(bench, name);
    va_end(names);
    loop_turn(bench->loop, 0);
    store_says_claimed(stores[0], CLAIM_NEW);
}

static inline void lose(struct store *store)
{
    store->handler->on_lost(store->context, "gone");
}

/* hookgate_possible_doubles_total{cause="store_lost"}, of all benches so far. */
static inline long doubles(void)
{
    return metric("\nhookgate_possible_doubles_total{cause=\"store_lost\"} ");
}

static inline void commit(struct bench *bench)
{
    stores[0]->handler->on_committed(stores[0]->context);
    loop_turn(bench->loop, 0);
}

static inline void all_are(const struct bench *bench, enum outcome outcome)
{
    for (size_t i = 0; i < bench->started; i++)
        assert_int_equal(bench->outcomes[i], outcome);
}

static inline size_t how_many(const struct bench *bench, enum outcome outcome)
{
    size_t count = 0;
    for (size_t i = 0; i < bench->started; i++)
        count += bench->outcomes[i] == outcome;
    return count;
}
