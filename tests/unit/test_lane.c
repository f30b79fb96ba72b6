/* Gather and lane against a fake store and a fake publisher: every interleaving of claim,
 * acknowledgement, commit and loss, and which outcome each delivery gets. The fakes are linked
 * instead of store.c and publisher.c; the loop and the deliveries are real. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "clock.h"
#include "config.h"
#include "delivery.h"
#include "directory.h"
#include "gather.h"
#include "log.h"
#include "loop.h"
#include "publisher.h"
#include "store.h"

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
    int claims, unblocked, commits, rollbacks;
    size_t receipts, refused;
    struct event_id refused_ids[64];
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
    store->unblocked++;
    store->claimed = count;
    memcpy(store->ids, ids, count * sizeof *ids);
}

void store_commit(struct store *store, const struct store_receipt *receipts, size_t count,
                  const struct event_id *refused, size_t refused_count)
{
    assert_int_equal(receipts[0].partition, 3);
    store->commits++;
    store->receipts = count;
    store->refused = refused_count;
    memcpy(store->refused_ids, refused, refused_count * sizeof *refused);
}

void store_rollback(struct store *store)
{
    store->rollbacks++;
}

void store_drop(struct store *store, const char *reason)
{
    store->dropped = reason;
}

static void store_says_claimed(struct store *store, enum claim_verdict all)
{
    enum claim_verdict verdicts[64];
    for (size_t i = 0; i < store->claimed; i++)
        verdicts[i] = all;
    store->handler->on_claimed(store->context, CLAIMED, verdicts, NULL);
}

/* ---- fake publisher ---- */

struct topic {
    bool refuses;
};
struct publisher {
    struct topic topic;
    struct publish_op *ops[64];
    struct slice values[64];
    size_t sent;
    int misses, purges;
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

bool topic_admits(struct topic *topic)
{
    return !topic->refuses;
}

void publisher_send(struct publisher *publisher, struct topic *topic,
                    const struct publish_record *record, struct publish_op *op)
{
    op->topic = topic;
    publisher->values[publisher->sent] = record->value;
    publisher->ops[publisher->sent++] = op;
}

void topic_probe_unused(struct topic *topic)
{
    (void)topic;
}

void publisher_miss(struct publisher *publisher, struct topic *topic)
{
    (void)topic;
    publisher->misses++;
}

void publisher_purge(struct publisher *publisher)
{
    publisher->purges++;
}

static void kafka_says(struct publisher *publisher, size_t index, enum publish_result result)
{
    struct publish_op *op = publisher->ops[index];
    publisher->ops[index] = NULL;
    op->on_report(op, result, result == PUBLISHED ? 3 : -1, result == PUBLISHED ? 42 : -1);
}

/* ---- a loop with one lane ---- */

struct bench {
    struct config config;
    struct platform platform;
    struct integration integration;
    struct loop *loop;
    struct publisher publisher;
    struct gather *gather;
    struct delivery_env env;
    enum outcome outcomes[32]; /* by the number of the delivery; NONE = not answered */
    size_t started;
};

static void on_done(struct delivery *d, void *context)
{
    assert_int_equal(*(enum outcome *)context, OUTCOME_NONE);
    *(enum outcome *)context = d->outcome;
}

static void start(struct bench *bench)
{
    log_set_level(LOG_ERROR + 1);
    memset(bench, 0, sizeof *bench);
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
    bench->gather = gather_new(bench->loop, &bench->config, &bench->publisher, metrics);
    stores[0]->handler->on_ready(stores[0]->context);
    stores[1]->handler->on_ready(stores[1]->context);
    loop_turn(bench->loop, 0);
}

static void finish(struct bench *bench)
{
    assert_int_equal(gather_pending(bench->gather), 0);
    gather_free(bench->gather);
    loop_free(bench->loop);
}

static int64_t made_earlier_us;

/* A delivery of the event `name`, as delivery.c would hand it over. */
static size_t deliver(struct bench *bench, const char *name)
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
    d->deadline_us = d->started_us + bench->config.deadlines.answer_us;
    d->on_done = on_done;
    d->context = &bench->outcomes[bench->started];
    list_init(&d->node);
    list_init(&d->followers);
    gather_record(bench->gather, d);
    return bench->started++;
}

static void lose(struct store *store)
{
    store->handler->on_lost(store->context, "gone");
}

static void wait_until(struct bench *bench, const enum outcome *outcome)
{
    while (*outcome == OUTCOME_NONE)
        loop_turn(bench->loop, 1000);
}

/* ---- the tests ---- */

static void accepted_comes_only_after_the_commit(void **state)
{
    (void)state;
    struct bench b;
    start(&b);
    deliver(&b, "one");
    deliver(&b, "two");
    loop_turn(b.loop, 0);
    assert_int_equal(stores[0]->claims, 1);
    assert_int_equal(stores[0]->claimed, 2); /* one batch */
    assert_int_equal(b.publisher.sent, 0);
    store_says_claimed(stores[0], CLAIM_NEW);
    assert_int_equal(b.publisher.sent, 2);
    kafka_says(&b.publisher, 0, PUBLISHED);
    assert_int_equal(stores[0]->commits, 0);
    kafka_says(&b.publisher, 1, PUBLISHED);
    assert_int_equal(stores[0]->commits, 1);
    assert_int_equal(stores[0]->receipts, 2);
    assert_int_equal(b.outcomes[0], OUTCOME_NONE);
    stores[0]->handler->on_committed(stores[0]->context);
    assert_int_equal(b.outcomes[0], OUTCOME_ACCEPTED);
    assert_int_equal(b.outcomes[1], OUTCOME_ACCEPTED);
    finish(&b);
}

static void known_claims_are_duplicates_and_nothing_is_sent(void **state)
{
    (void)state;
    struct bench b;
    start(&b);
    deliver(&b, "one");
    loop_turn(b.loop, 0);
    store_says_claimed(stores[0], CLAIM_KNOWN);
    assert_int_equal(b.outcomes[0], OUTCOME_DUPLICATE);
    assert_int_equal(b.publisher.sent, 0);
    assert_int_equal(stores[0]->rollbacks, 1);
    finish(&b);
}

static void a_copy_in_flight_shares_the_outcome(void **state)
{
    (void)state;
    struct bench b;
    start(&b);
    deliver(&b, "one");
    deliver(&b, "one");
    loop_turn(b.loop, 0);
    store_says_claimed(stores[0], CLAIM_NEW);
    deliver(&b, "one"); /* and one while it is being published */
    loop_turn(b.loop, 0);
    assert_int_equal(stores[0]->claims, 1);
    kafka_says(&b.publisher, 0, PUBLISHED);
    assert_int_equal(b.outcomes[1], OUTCOME_NONE);
    stores[0]->handler->on_committed(stores[0]->context);
    assert_int_equal(b.outcomes[0], OUTCOME_ACCEPTED);
    assert_int_equal(b.outcomes[1], OUTCOME_DUPLICATE);
    assert_int_equal(b.outcomes[2], OUTCOME_DUPLICATE);

    deliver(&b, "two");
    deliver(&b, "two");
    loop_turn(b.loop, 0);
    store_says_claimed(stores[0], CLAIM_NEW);
    kafka_says(&b.publisher, 1, PUBLISH_REFUSED);
    assert_int_equal(b.outcomes[3], OUTCOME_BROKER_REFUSED);
    assert_int_equal(b.outcomes[4], OUTCOME_BROKER_REFUSED);
    finish(&b);
}

static void a_refused_record_loses_its_claim_alone(void **state)
{
    (void)state;
    struct bench b;
    start(&b);
    deliver(&b, "one");
    deliver(&b, "two");
    loop_turn(b.loop, 0);
    store_says_claimed(stores[0], CLAIM_NEW);
    struct event_id refused = stores[0]->ids[1];
    kafka_says(&b.publisher, 0, PUBLISHED);
    kafka_says(&b.publisher, 1, PUBLISH_REFUSED);
    assert_int_equal(stores[0]->receipts, 1);
    assert_int_equal(stores[0]->refused, 1);
    assert_memory_equal(&stores[0]->refused_ids[0], &refused, sizeof refused);
    stores[0]->handler->on_committed(stores[0]->context);
    assert_int_equal((b.outcomes[0] == OUTCOME_ACCEPTED) + (b.outcomes[1] == OUTCOME_ACCEPTED), 1);
    assert_int_equal(
        (b.outcomes[0] == OUTCOME_BROKER_REFUSED) + (b.outcomes[1] == OUTCOME_BROKER_REFUSED), 1);
    finish(&b);
}

static void records_of_a_request_that_was_too_large_go_once_more_alone(void **state)
{
    (void)state;
    struct bench b;
    start(&b);
    deliver(&b, "one");
    deliver(&b, "two");
    loop_turn(b.loop, 0);
    store_says_claimed(stores[0], CLAIM_NEW);
    kafka_says(&b.publisher, 0, PUBLISH_TOO_LARGE);
    kafka_says(&b.publisher, 1, PUBLISH_TOO_LARGE);
    assert_int_equal(b.publisher.sent, 3); /* the first again, alone */
    kafka_says(&b.publisher, 2, PUBLISHED);
    assert_int_equal(b.publisher.sent, 4);
    kafka_says(&b.publisher, 3, PUBLISH_TOO_LARGE);
    assert_int_equal(b.publisher.sent, 4); /* not for ever */
    assert_int_equal(stores[0]->receipts, 1);
    assert_int_equal(stores[0]->refused, 1);
    stores[0]->handler->on_committed(stores[0]->context);
    finish(&b);
}

static void a_missed_publish_deadline_purges_and_commits_what_was_acknowledged(void **state)
{
    (void)state;
    struct bench b;
    start(&b);
    b.config.deadlines.publish_us = 20000;
    deliver(&b, "one");
    deliver(&b, "two");
    deliver(&b, "three");
    loop_turn(b.loop, 0);
    store_says_claimed(stores[0], CLAIM_NEW);
    kafka_says(&b.publisher, 0, PUBLISHED);
    while (b.publisher.purges == 0)
        loop_turn(b.loop, 1000);
    assert_int_equal(b.publisher.misses, 2);
    kafka_says(&b.publisher, 1, PUBLISH_UNSENT);
    assert_int_equal(stores[0]->commits, 0);
    kafka_says(&b.publisher, 2, PUBLISH_UNDECIDED);
    assert_int_equal(stores[0]->receipts, 1);
    assert_int_equal(stores[0]->refused, 2);
    stores[0]->handler->on_committed(stores[0]->context);
    int accepted = 0, down = 0;
    for (int i = 0; i < 3; i++) {
        accepted += b.outcomes[i] == OUTCOME_ACCEPTED;
        down += b.outcomes[i] == OUTCOME_BROKER_DOWN;
    }
    assert_int_equal(accepted, 1);
    assert_int_equal(down, 2);
    finish(&b);
}

static void a_report_that_never_comes_does_not_hold_the_batch(void **state)
{
    (void)state;
    struct bench b;
    start(&b);
    b.config.deadlines.publish_us = 10000;
    deliver(&b, "one");
    loop_turn(b.loop, 0);
    store_says_claimed(stores[0], CLAIM_NEW);
    wait_until(&b, &b.outcomes[0]);
    assert_int_equal(b.outcomes[0], OUTCOME_BROKER_DOWN);
    assert_int_equal(stores[0]->rollbacks, 1);
    assert_memory_equal(b.publisher.values[0].ptr, "one", 3); /* librdkafka may still read it */
    kafka_says(&b.publisher, 0, PUBLISHED); /* too late, but the memory goes now */
    finish(&b);
}

static void a_report_that_comes_while_committing_changes_nothing(void **state)
{
    (void)state;
    struct bench b;
    start(&b);
    b.config.deadlines.publish_us = 10000;
    deliver(&b, "one");
    deliver(&b, "two");
    loop_turn(b.loop, 0);
    store_says_claimed(stores[0], CLAIM_NEW);
    kafka_says(&b.publisher, 0, PUBLISHED);
    while (stores[0]->commits == 0)
        loop_turn(b.loop, 1000);
    kafka_says(&b.publisher, 1,
               PUBLISHED); /* it was called undecided, and its claim is taken back */
    assert_int_equal(stores[0]->commits, 1);
    assert_int_equal(stores[0]->refused, 1);
    stores[0]->handler->on_committed(stores[0]->context);
    assert_int_equal((b.outcomes[0] == OUTCOME_ACCEPTED) + (b.outcomes[1] == OUTCOME_ACCEPTED), 1);
    assert_int_equal(
        (b.outcomes[0] == OUTCOME_BROKER_DOWN) + (b.outcomes[1] == OUTCOME_BROKER_DOWN), 1);
    finish(&b);
}

static void a_connection_lost_while_claiming_tries_again(void **state)
{
    (void)state;
    struct bench b;
    start(&b);
    deliver(&b, "one");
    loop_turn(b.loop, 0);
    lose(stores[0]);
    assert_int_equal(b.outcomes[0], OUTCOME_NONE);
    stores[0]->handler->on_ready(stores[0]->context);
    loop_turn(b.loop, 0);
    assert_int_equal(stores[0]->claims, 2);
    store_says_claimed(stores[0], CLAIM_NEW);
    kafka_says(&b.publisher, 0, PUBLISHED);
    stores[0]->handler->on_committed(stores[0]->context);
    assert_int_equal(b.outcomes[0], OUTCOME_ACCEPTED);
    finish(&b);
}

static void a_connection_lost_over_the_acknowledgement_refuses_and_keeps_the_bytes(void **state)
{
    (void)state;
    struct bench b;
    start(&b);
    deliver(&b, "one");
    loop_turn(b.loop, 0);
    store_says_claimed(stores[0], CLAIM_NEW);
    lose(stores[0]);
    assert_int_equal(b.outcomes[0], OUTCOME_STORE_DOWN);
    assert_memory_equal(b.publisher.values[0].ptr, "one", 3);
    kafka_says(&b.publisher, 0, PUBLISHED);
    finish(&b);
}

static void a_connection_lost_while_committing_refuses(void **state)
{
    (void)state;
    struct bench b;
    start(&b);
    deliver(&b, "one");
    loop_turn(b.loop, 0);
    store_says_claimed(stores[0], CLAIM_NEW);
    kafka_says(&b.publisher, 0, PUBLISHED);
    deliver(&b, "two"); /* claimed behind the commit */
    loop_turn(b.loop, 0);
    assert_int_equal(stores[0]->claims, 2);
    lose(stores[0]);
    assert_int_equal(b.outcomes[0], OUTCOME_STORE_DOWN);
    assert_int_equal(b.outcomes[1], OUTCOME_NONE); /* nothing of it went to Kafka: it tries again */
    stores[0]->handler->on_ready(stores[0]->context);
    loop_turn(b.loop, 0);
    store_says_claimed(stores[0], CLAIM_NEW);
    kafka_says(&b.publisher, 1, PUBLISHED);
    stores[0]->handler->on_committed(stores[0]->context);
    assert_int_equal(b.outcomes[1], OUTCOME_ACCEPTED);
    finish(&b);
}

static void the_next_batch_is_claimed_behind_the_commit(void **state)
{
    (void)state;
    struct bench b;
    start(&b);
    deliver(&b, "one");
    loop_turn(b.loop, 0);
    store_says_claimed(stores[0], CLAIM_NEW);
    deliver(&b, "two");
    loop_turn(b.loop, 0);
    assert_int_equal(stores[0]->claims, 1);
    kafka_says(&b.publisher, 0, PUBLISHED);
    loop_turn(b.loop, 0);
    assert_int_equal(stores[0]->claims, 2); /* before the commit was answered */
    stores[0]->handler->on_committed(stores[0]->context);
    assert_int_equal(b.outcomes[0], OUTCOME_ACCEPTED);
    store_says_claimed(stores[0], CLAIM_KNOWN);
    assert_int_equal(b.outcomes[1], OUTCOME_DUPLICATE);
    finish(&b);
}

static void a_blocked_batch_is_split_and_only_the_suspect_waits(void **state)
{
    (void)state;
    struct bench b;
    start(&b);
    deliver(&b, "one");
    deliver(&b, "two");
    loop_turn(b.loop, 0);
    stores[0]->handler->on_claimed(stores[0]->context, CLAIM_BLOCKED, NULL, "57014");
    assert_int_equal(stores[0]->unblocked, 1);
    enum claim_verdict verdicts[] = {CLAIM_NEW, CLAIM_HELD};
    stores[0]->handler->on_claimed(stores[0]->context, CLAIMED, verdicts, NULL);
    assert_int_equal(b.publisher.sent, 1);
    loop_turn(b.loop, 0);
    assert_int_equal(stores[1]->claims, 1); /* the suspect, over its own lane */
    assert_int_equal(stores[1]->claimed, 1);
    kafka_says(&b.publisher, 0, PUBLISHED);
    stores[0]->handler->on_committed(stores[0]->context);
    assert_int_equal((b.outcomes[0] == OUTCOME_ACCEPTED) + (b.outcomes[1] == OUTCOME_ACCEPTED), 1);

    stores[1]->handler->on_claimed(stores[1]->context, CLAIM_BLOCKED, NULL, "57014");
    assert_int_equal((b.outcomes[0] == OUTCOME_STORE_SLOW) + (b.outcomes[1] == OUTCOME_STORE_SLOW),
                     1);
    finish(&b);
}

static void too_many_suspects_are_refused(void **state)
{
    (void)state;
    struct bench b;
    start(&b);
    lose(stores[1]);
    for (int i = 0; i < 5; i++)
        deliver(&b, (const char *[]){"a", "b", "c", "d", "e"}[i]);
    loop_turn(b.loop, 0);
    stores[0]->handler->on_claimed(stores[0]->context, CLAIM_BLOCKED, NULL, "57014");
    store_says_claimed(stores[0], CLAIM_HELD);
    int refused = 0;
    for (int i = 0; i < 5; i++)
        refused += b.outcomes[i] == OUTCOME_STORE_SLOW;
    assert_int_equal(refused, 3); /* two wait */
    stores[1]->handler->on_ready(stores[1]->context);
    loop_turn(b.loop, 0);
    store_says_claimed(stores[1], CLAIM_KNOWN);
    loop_turn(b.loop, 0);
    store_says_claimed(stores[1], CLAIM_KNOWN);
    finish(&b);
}

static void without_a_connection_the_wait_is_bounded(void **state)
{
    (void)state;
    struct bench b;
    start(&b);
    b.config.deadlines.gather_us = 20000;
    lose(stores[0]);
    int64_t began = clock_mono_us();
    deliver(&b, "one");
    wait_until(&b, &b.outcomes[0]);
    assert_int_equal(b.outcomes[0], OUTCOME_STORE_DOWN);
    assert_true(clock_mono_us() - began >= 20000);
    finish(&b);
}

static void a_full_queue_refuses_the_newest(void **state)
{
    (void)state;
    struct bench b;
    start(&b);
    lose(stores[0]);
    char name[8];
    for (int i = 0; i < 21; i++) {
        snprintf(name, sizeof name, "%d", i);
        deliver(&b, name);
    }
    assert_int_equal(b.outcomes[20], OUTCOME_OVERLOADED);
    assert_int_equal(b.outcomes[19], OUTCOME_NONE);
    stores[0]->handler->on_ready(stores[0]->context);
    loop_turn(b.loop, 0);
    store_says_claimed(stores[0], CLAIM_KNOWN);
    finish(&b);
}

static void an_open_breaker_refuses_at_once(void **state)
{
    (void)state;
    struct bench b;
    start(&b);
    b.publisher.topic.refuses = true;
    deliver(&b, "one");
    assert_int_equal(b.outcomes[0], OUTCOME_BROKER_DOWN);
    finish(&b);
}

static void claims_that_are_not_answered_give_the_connection_up(void **state)
{
    (void)state;
    struct bench b;
    start(&b);
    b.config.deadlines.claim_us = 1;
    b.config.deadlines.gather_us = 1;
    deliver(&b, "one");
    loop_turn(b.loop, 0);
    while (stores[0]->dropped == NULL)
        loop_turn(b.loop, 1000);
    lose(stores[0]);
    wait_until(&b, &b.outcomes[0]);
    assert_int_equal(b.outcomes[0], OUTCOME_STORE_DOWN);
    finish(&b);
}

/* Makes the delivery as old as if it had come `us` ago. The test's deliveries are in the queue's
 * order of arrival. */
static size_t deliver_old(struct bench *bench, const char *name, int64_t us)
{
    made_earlier_us = us;
    size_t number = deliver(bench, name);
    made_earlier_us = 0;
    return number;
}

static void an_event_that_comes_too_late_is_refused_alone(void **state)
{
    (void)state;
    struct bench b;
    start(&b);
    size_t old = deliver_old(&b, "old", 1000000);
    size_t young = deliver(&b, "young");
    loop_turn(b.loop, 0);
    assert_int_equal(stores[0]->claimed, 2);
    b.config.deadlines.commit_us =
        1200000; /* what is left of the old one's deadline is not enough for both */
    store_says_claimed(stores[0], CLAIM_NEW);
    assert_int_equal(b.publisher.sent, 1);
    assert_int_equal(b.publisher.misses, 0);
    kafka_says(&b.publisher, 0, PUBLISHED);
    assert_int_equal(stores[0]->refused, 1); /* its claim is taken back */
    stores[0]->handler->on_committed(stores[0]->context);
    assert_int_equal(b.outcomes[old], OUTCOME_STORE_SLOW);
    assert_int_equal(b.outcomes[young], OUTCOME_ACCEPTED);
    assert_int_equal(b.publisher.purges, 0);
    finish(&b);
}

static void an_overdue_event_is_not_claimed_again(void **state)
{
    (void)state;
    struct bench b;
    start(&b);
    size_t old = deliver_old(&b, "old", 900000);
    size_t young = deliver(&b, "young");
    loop_turn(b.loop, 0);
    assert_int_equal(stores[0]->claims, 1);
    b.config.deadlines.claim_us = 600000; /* now the old one could not end in time any more */
    lose(stores[0]);
    stores[0]->handler->on_ready(stores[0]->context);
    loop_turn(b.loop, 0);
    assert_int_equal(b.outcomes[old], OUTCOME_OVERLOADED);
    assert_int_equal(stores[0]->claims, 2);
    assert_int_equal(stores[0]->claimed, 1);
    store_says_claimed(stores[0], CLAIM_KNOWN);
    assert_int_equal(b.outcomes[young], OUTCOME_DUPLICATE);
    finish(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepted_comes_only_after_the_commit),
        cmocka_unit_test(known_claims_are_duplicates_and_nothing_is_sent),
        cmocka_unit_test(a_copy_in_flight_shares_the_outcome),
        cmocka_unit_test(a_refused_record_loses_its_claim_alone),
        cmocka_unit_test(records_of_a_request_that_was_too_large_go_once_more_alone),
        cmocka_unit_test(a_missed_publish_deadline_purges_and_commits_what_was_acknowledged),
        cmocka_unit_test(a_report_that_never_comes_does_not_hold_the_batch),
        cmocka_unit_test(a_report_that_comes_while_committing_changes_nothing),
        cmocka_unit_test(a_connection_lost_while_claiming_tries_again),
        cmocka_unit_test(a_connection_lost_over_the_acknowledgement_refuses_and_keeps_the_bytes),
        cmocka_unit_test(a_connection_lost_while_committing_refuses),
        cmocka_unit_test(the_next_batch_is_claimed_behind_the_commit),
        cmocka_unit_test(a_blocked_batch_is_split_and_only_the_suspect_waits),
        cmocka_unit_test(too_many_suspects_are_refused),
        cmocka_unit_test(without_a_connection_the_wait_is_bounded),
        cmocka_unit_test(a_full_queue_refuses_the_newest),
        cmocka_unit_test(an_open_breaker_refuses_at_once),
        cmocka_unit_test(claims_that_are_not_answered_give_the_connection_up),
        cmocka_unit_test(an_event_that_comes_too_late_is_refused_alone),
        cmocka_unit_test(an_overdue_event_is_not_claimed_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
