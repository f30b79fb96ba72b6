/* Gather and lane against a fake store and a fake publisher: every interleaving of claim,
 * acknowledgement and commit, and which outcome each delivery gets. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "lane_bench.h"

static void accepted_comes_only_after_the_commit(void **state)
{
    struct bench *b = *state;
    deliver(b, "one");
    deliver(b, "two");
    loop_turn(b->loop, 0);
    assert_int_equal(stores[0]->claims, 1);
    assert_int_equal(stores[0]->claimed, 2); /* one batch */
    assert_int_equal(b->publisher.sent, 0);
    store_says_claimed(stores[0], CLAIM_NEW);
    assert_int_equal(b->publisher.sent, 2);
    kafka_says(&b->publisher, 0, PUBLISHED);
    assert_int_equal(stores[0]->commits, 0);
    kafka_says(&b->publisher, 1, PUBLISHED);
    assert_int_equal(stores[0]->commits, 1);
    assert_int_equal(stores[0]->receipts, 2);
    assert_int_equal(b->outcomes[0], OUTCOME_NONE);
    commit(b);
    all_are(b, OUTCOME_ACCEPTED);
}

static void known_claims_are_duplicates_and_nothing_is_sent(void **state)
{
    struct bench *b = *state;
    deliver(b, "one");
    loop_turn(b->loop, 0);
    store_says_claimed(stores[0], CLAIM_KNOWN);
    assert_int_equal(b->outcomes[0], OUTCOME_DUPLICATE);
    assert_int_equal(b->publisher.sent, 0);
    assert_int_equal(stores[0]->rollbacks, 1);
}

static void a_copy_in_flight_shares_the_outcome(void **state)
{
    struct bench *b = *state;
    claim_new(b, "one", "one", NULL);
    deliver(b, "one"); /* and one while it is being published */
    loop_turn(b->loop, 0);
    assert_int_equal(stores[0]->claims, 1);
    kafka_says(&b->publisher, 0, PUBLISHED);
    assert_int_equal(b->outcomes[1], OUTCOME_NONE);
    commit(b);
    assert_int_equal(b->outcomes[0], OUTCOME_ACCEPTED);
    assert_int_equal(b->outcomes[1], OUTCOME_DUPLICATE);
    assert_int_equal(b->outcomes[2], OUTCOME_DUPLICATE);

    claim_new(b, "two", "two", NULL);
    kafka_says(&b->publisher, 1, PUBLISH_REFUSED);
    assert_int_equal(b->outcomes[3], OUTCOME_BROKER_REFUSED);
    assert_int_equal(b->outcomes[4], OUTCOME_BROKER_REFUSED);
}

static void a_refused_record_loses_its_claim_alone(void **state)
{
    struct bench *b = *state;
    claim_new(b, "one", "two", NULL);
    struct event_id refused = stores[0]->ids[1];
    kafka_says(&b->publisher, 0, PUBLISHED);
    kafka_says(&b->publisher, 1, PUBLISH_REFUSED);
    assert_int_equal(stores[0]->receipts, 1);
    assert_int_equal(stores[0]->refused, 1);
    assert_memory_equal(&stores[0]->refused_ids[0], &refused, sizeof refused);
    commit(b);
    assert_int_equal(how_many(b, OUTCOME_ACCEPTED), 1);
    assert_int_equal(how_many(b, OUTCOME_BROKER_REFUSED), 1);
}

static void records_of_a_request_that_was_too_large_go_once_more_alone(void **state)
{
    struct bench *b = *state;
    claim_new(b, "one", "two", NULL);
    kafka_says(&b->publisher, 0, PUBLISH_TOO_LARGE);
    kafka_says(&b->publisher, 1, PUBLISH_TOO_LARGE);
    assert_int_equal(b->publisher.sent, 3); /* the first again, alone */
    kafka_says(&b->publisher, 2, PUBLISHED);
    assert_int_equal(b->publisher.sent, 4);
    kafka_says(&b->publisher, 3, PUBLISH_TOO_LARGE);
    assert_int_equal(b->publisher.sent, 4); /* not for ever */
    assert_int_equal(stores[0]->receipts, 1);
    assert_int_equal(stores[0]->refused, 1);
    commit(b);
}

static void a_connection_lost_while_claiming_holds_the_events(void **state)
{
    struct bench *b = *state;
    deliver(b, "one");
    loop_turn(b->loop, 0);
    assert_int_equal(b->publisher.sent, 0);
    lose(stores[0]);
    loop_turn(b->loop, 0);
    assert_int_equal(b->publisher.sent, 1);
    deliver(b, "two");
    assert_int_equal(b->publisher.sent, 2);
    assert_int_equal(b->outcomes[0], OUTCOME_NONE);
    kafka_says(&b->publisher, 0, PUBLISHED);
    kafka_says(&b->publisher, 1, PUBLISHED);
    all_are(b, OUTCOME_ACCEPTED);
    come_back(b, stores[0]);
    assert_int_equal(stores[0]->claims, 1);
}

static void a_blocked_claim_does_not_open_the_breaker(void **state)
{
    struct bench *b = *state;
    deliver(b, "one");
    loop_turn(b->loop, 0);
    store_fails_claim(stores[0], CLAIM_BLOCKED, "57014");
    store_says_claimed(stores[0], CLAIM_KNOWN);
    loop_turn(b->loop, 0);
    assert_int_equal(stores[0]->probes, 1);
    assert_true(gather_is_ready(b->gather));
}

static void the_next_batch_is_claimed_behind_the_commit(void **state)
{
    struct bench *b = *state;
    claim_new(b, "one", NULL);
    deliver(b, "two");
    loop_turn(b->loop, 0);
    assert_int_equal(stores[0]->claims, 1);
    kafka_says(&b->publisher, 0, PUBLISHED);
    loop_turn(b->loop, 0);
    assert_int_equal(stores[0]->claims, 2); /* before the commit was answered */
    commit(b);
    assert_int_equal(b->outcomes[0], OUTCOME_ACCEPTED);
    store_says_claimed(stores[0], CLAIM_KNOWN);
    assert_int_equal(b->outcomes[1], OUTCOME_DUPLICATE);
}

static void a_blocked_batch_is_split_and_only_the_suspect_waits(void **state)
{
    struct bench *b = *state;
    deliver(b, "one");
    deliver(b, "two");
    loop_turn(b->loop, 0);
    store_fails_claim(stores[0], CLAIM_BLOCKED, "57014");
    assert_int_equal(stores[0]->unblocked, 1);
    enum claim_verdict verdicts[] = {CLAIM_NEW, CLAIM_HELD};
    stores[0]->handler->on_claimed(stores[0]->context, CLAIMED, verdicts, NULL);
    assert_int_equal(b->publisher.sent, 1);
    loop_turn(b->loop, 0);
    assert_int_equal(stores[1]->claims, 1); /* the suspect, over its own lane */
    assert_int_equal(stores[1]->claimed, 1);
    kafka_says(&b->publisher, 0, PUBLISHED);
    commit(b);
    assert_int_equal(how_many(b, OUTCOME_ACCEPTED), 1);

    store_fails_claim(stores[1], CLAIM_BLOCKED, "57014");
    assert_int_equal(how_many(b, OUTCOME_STORE_SLOW), 1);
}

static void too_many_suspects_are_refused(void **state)
{
    struct bench *b = *state;
    lose(stores[1]);
    loop_turn(b->loop, 0);
    store_says_probed(stores[0]);
    open_gate(b);
    for (int i = 0; i < 5; i++)
        deliver(b, (const char *[]){"a", "b", "c", "d", "e"}[i]);
    loop_turn(b->loop, 0);
    store_fails_claim(stores[0], CLAIM_BLOCKED, "57014");
    store_says_claimed(stores[0], CLAIM_HELD);
    assert_int_equal(how_many(b, OUTCOME_STORE_SLOW), 3); /* two wait */
    come_back(b, stores[1]);
    store_says_claimed(stores[1], CLAIM_KNOWN);
    loop_turn(b->loop, 0);
    store_says_claimed(stores[1], CLAIM_KNOWN);
}

/* Another lane has proven that Postgres is there. */
static void without_a_connection_the_wait_is_bounded(void **state)
{
    struct bench *b = *state;
    b->config.deadlines.gather_us = 20000;
    lose(stores[0]);
    loop_turn(b->loop, 0);
    store_says_probed(stores[1]);
    open_gate(b);
    int64_t began = clock_mono_us();
    deliver(b, "one");
    loop_turn(b->loop, 0);
    assert_int_equal(b->publisher.sent, 0);
    while (b->publisher.sent == 0)
        loop_turn(b->loop, 1000);
    assert_true(clock_mono_us() - began >= 20000);
    kafka_says(&b->publisher, 0, PUBLISHED);
    all_are(b, OUTCOME_ACCEPTED);
}

/* The gate is another loop's to close as well. */
static void what_waits_is_held_when_the_gate_closes(void **state)
{
    struct bench *b = *state;
    deliver(b, "claimed");
    loop_turn(b->loop, 0);
    deliver(b, "waits");
    loop_turn(b->loop, 0);
    assert_int_equal(b->publisher.sent, 0);
    gate_close(b->gate);
    deliver(b, "new");
    assert_int_equal(b->publisher.sent, 1);
    store_says_claimed(stores[0], CLAIM_KNOWN); /* the lane is free, and wakes the queue */
    assert_int_equal(b->outcomes[0], OUTCOME_DUPLICATE);
    loop_turn(b->loop, 0);
    assert_int_equal(b->publisher.sent, 2);
    assert_int_equal(stores[0]->claims, 1);
    kafka_says(&b->publisher, 0, PUBLISHED);
    kafka_says(&b->publisher, 1, PUBLISHED);
    assert_int_equal(b->outcomes[1], OUTCOME_ACCEPTED);
    assert_int_equal(b->outcomes[2], OUTCOME_ACCEPTED);
}

static void a_refused_claim_closes_the_gate_and_holds(void **state)
{
    struct bench *b = *state;
    deliver(b, "one");
    loop_turn(b->loop, 0);
    store_fails_claim(stores[0], CLAIM_FAILED, "25006: read-only");
    assert_false(gate_is_open(b->gate));
    loop_turn(b->loop, 0);
    assert_int_equal(b->publisher.sent, 1);
    kafka_says(&b->publisher, 0, PUBLISHED);
    all_are(b, OUTCOME_ACCEPTED);
}

static void a_full_queue_refuses_the_newest(void **state)
{
    struct bench *b = *state;
    char name[8];
    for (int i = 0; i < 22; i++) {
        snprintf(name, sizeof name, "%d", i);
        deliver(b, name);
        if (i == 0)
            loop_turn(b->loop, 0); /* it keeps the lane busy */
    }
    assert_int_equal(b->outcomes[21], OUTCOME_OVERLOADED);
    assert_int_equal(b->outcomes[20], OUTCOME_NONE);
    for (int i = 0; i < 2; i++) {
        store_says_claimed(stores[0], CLAIM_KNOWN);
        loop_turn(b->loop, 0);
    }
}

static void batches_and_queue_are_bounded_in_bytes(void **state)
{
    struct bench *b = *state;
    b->config.pipeline.batch_bytes = 7;
    b->config.pipeline.queue_bytes = 12;
    deliver(b, "aaaa");
    deliver(b, "bbbb");
    deliver(b, "cccc");
    deliver(b, "dddd");
    assert_int_equal(b->outcomes[3], OUTCOME_OVERLOADED);
    for (int i = 1; i <= 3; i++) {
        loop_turn(b->loop, 0);
        assert_int_equal(stores[0]->claims, i);
        assert_int_equal(stores[0]->claimed, 1);
        store_says_claimed(stores[0], CLAIM_KNOWN);
    }
}

static void claims_that_are_not_answered_give_the_connection_up(void **state)
{
    struct bench *b = *state;
    b->config.deadlines.claim_us = 1;
    b->config.deadlines.gather_us = 1;
    deliver(b, "one");
    loop_turn(b->loop, 0);
    while (stores[0]->dropped == NULL)
        loop_turn(b->loop, 1000);
    lose(stores[0]);
    loop_turn(b->loop, 0);
    kafka_says(&b->publisher, 0, PUBLISHED);
    all_are(b, OUTCOME_ACCEPTED);
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
    struct bench *b = *state;
    size_t old = deliver_old(b, "old", 1000000);
    size_t young = deliver(b, "young");
    loop_turn(b->loop, 0);
    assert_int_equal(stores[0]->claimed, 2);
    b->config.deadlines.commit_us =
        1200000; /* what is left of the old one's deadline is not enough for both */
    store_says_claimed(stores[0], CLAIM_NEW);
    assert_int_equal(b->publisher.sent, 1);
    assert_int_equal(b->publisher.topic.misses, 0);
    kafka_says(&b->publisher, 0, PUBLISHED);
    assert_int_equal(stores[0]->refused, 1); /* its claim is taken back */
    commit(b);
    assert_int_equal(b->outcomes[old], OUTCOME_STORE_SLOW);
    assert_int_equal(b->outcomes[young], OUTCOME_ACCEPTED);
    assert_int_equal(b->publisher.purges, 0);
}

static void an_overdue_event_is_not_claimed(void **state)
{
    struct bench *b = *state;
    size_t busy = deliver(b, "busy");
    loop_turn(b->loop, 0);
    size_t old = deliver_old(b, "old", 900000);
    size_t young = deliver(b, "young");
    b->config.deadlines.claim_us = 600000; /* now the old one could not end in time any more */
    store_says_claimed(stores[0], CLAIM_KNOWN);
    loop_turn(b->loop, 0);
    assert_int_equal(b->outcomes[busy], OUTCOME_DUPLICATE);
    assert_int_equal(b->outcomes[old], OUTCOME_OVERLOADED);
    assert_int_equal(stores[0]->claims, 2);
    assert_int_equal(stores[0]->claimed, 1);
    store_says_claimed(stores[0], CLAIM_KNOWN);
    assert_int_equal(b->outcomes[young], OUTCOME_DUPLICATE);
}

static void a_split_that_times_out_opens_the_breaker_and_holds(void **state)
{
    struct bench *b = *state;
    deliver(b, "one");
    deliver(b, "two");
    loop_turn(b->loop, 0);
    store_fails_claim(stores[0], CLAIM_BLOCKED, "57014");
    assert_int_equal(stores[0]->unblocked, 1);
    store_fails_claim(stores[0], CLAIM_BLOCKED, "57014");
    assert_false(gather_is_ready(b->gather));
    loop_turn(b->loop, 0);
    assert_int_equal(stores[0]->probes, 2);
    assert_int_equal(b->publisher.sent, 2); /* to the holding topic */
    kafka_says(&b->publisher, 0, PUBLISHED);
    kafka_says(&b->publisher, 1, PUBLISHED);
    all_are(b, OUTCOME_ACCEPTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(accepted_comes_only_after_the_commit),
        TEST(known_claims_are_duplicates_and_nothing_is_sent),
        TEST(a_copy_in_flight_shares_the_outcome),
        TEST(a_refused_record_loses_its_claim_alone),
        TEST(records_of_a_request_that_was_too_large_go_once_more_alone),
        TEST(a_connection_lost_while_claiming_holds_the_events),
        TEST(a_blocked_claim_does_not_open_the_breaker),
        TEST(the_next_batch_is_claimed_behind_the_commit),
        TEST(a_blocked_batch_is_split_and_only_the_suspect_waits),
        TEST(too_many_suspects_are_refused),
        TEST(without_a_connection_the_wait_is_bounded),
        TEST(what_waits_is_held_when_the_gate_closes),
        TEST(a_refused_claim_closes_the_gate_and_holds),
        TEST(a_full_queue_refuses_the_newest),
        TEST(batches_and_queue_are_bounded_in_bytes),
        TEST(claims_that_are_not_answered_give_the_connection_up),
        TEST(an_event_that_comes_too_late_is_refused_alone),
        TEST(an_overdue_event_is_not_claimed),
        TEST(a_split_that_times_out_opens_the_breaker_and_holds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
