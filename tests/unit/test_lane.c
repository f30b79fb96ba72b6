/* Gather and lane against a fake store and a fake publisher: every interleaving of claim,
 * acknowledgement and commit, and which outcome each delivery gets. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "lane_bench.h"

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

static void a_connection_lost_while_claiming_holds_the_events(void **state)
{
    (void)state;
    struct bench b;
    start(&b);
    deliver(&b, "one");
    loop_turn(b.loop, 0);
    assert_int_equal(b.publisher.sent, 0);
    lose(stores[0]);
    loop_turn(b.loop, 0);
    assert_int_equal(b.publisher.sent, 1);
    deliver(&b, "two");
    assert_int_equal(b.publisher.sent, 2);
    assert_int_equal(b.outcomes[0], OUTCOME_NONE);
    kafka_says(&b.publisher, 0, PUBLISHED);
    kafka_says(&b.publisher, 1, PUBLISHED);
    all_are(&b, OUTCOME_ACCEPTED);
    come_back(&b, stores[0]);
    assert_int_equal(stores[0]->claims, 1);
    finish(&b);
}

static void a_blocked_claim_does_not_open_the_breaker(void **state)
{
    (void)state;
    struct bench b;
    start(&b);
    deliver(&b, "one");
    loop_turn(b.loop, 0);
    stores[0]->handler->on_claimed(stores[0]->context, CLAIM_BLOCKED, NULL, "57014");
    store_says_claimed(stores[0], CLAIM_KNOWN);
    loop_turn(b.loop, 0);
    assert_int_equal(stores[0]->probes, 1);
    assert_true(gather_is_ready(b.gather));
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
    loop_turn(b.loop, 0);
    stores[0]->handler->on_probed(stores[0]->context);
    open_gate(&b);
    for (int i = 0; i < 5; i++)
        deliver(&b, (const char *[]){"a", "b", "c", "d", "e"}[i]);
    loop_turn(b.loop, 0);
    stores[0]->handler->on_claimed(stores[0]->context, CLAIM_BLOCKED, NULL, "57014");
    store_says_claimed(stores[0], CLAIM_HELD);
    int refused = 0;
    for (int i = 0; i < 5; i++)
        refused += b.outcomes[i] == OUTCOME_STORE_SLOW;
    assert_int_equal(refused, 3); /* two wait */
    come_back(&b, stores[1]);
    store_says_claimed(stores[1], CLAIM_KNOWN);
    loop_turn(b.loop, 0);
    store_says_claimed(stores[1], CLAIM_KNOWN);
    finish(&b);
}

/* Another lane has proven that Postgres is there. */
static void without_a_connection_the_wait_is_bounded(void **state)
{
    (void)state;
    struct bench b;
    start(&b);
    b.config.deadlines.gather_us = 20000;
    lose(stores[0]);
    loop_turn(b.loop, 0);
    stores[1]->handler->on_probed(stores[1]->context);
    open_gate(&b);
    int64_t began = clock_mono_us();
    deliver(&b, "one");
    loop_turn(b.loop, 0);
    assert_int_equal(b.publisher.sent, 0);
    while (b.publisher.sent == 0)
        loop_turn(b.loop, 1000);
    assert_true(clock_mono_us() - began >= 20000);
    kafka_says(&b.publisher, 0, PUBLISHED);
    all_are(&b, OUTCOME_ACCEPTED);
    finish(&b);
}

/* The gate is another loop's to close as well. */
static void what_waits_is_held_when_the_gate_closes(void **state)
{
    (void)state;
    struct bench b;
    start(&b);
    deliver(&b, "claimed");
    loop_turn(b.loop, 0);
    deliver(&b, "waits");
    loop_turn(b.loop, 0);
    assert_int_equal(b.publisher.sent, 0);
    gate_close(b.gate);
    deliver(&b, "new");
    assert_int_equal(b.publisher.sent, 1);
    store_says_claimed(stores[0], CLAIM_KNOWN); /* the lane is free, and wakes the queue */
    assert_int_equal(b.outcomes[0], OUTCOME_DUPLICATE);
    loop_turn(b.loop, 0);
    assert_int_equal(b.publisher.sent, 2);
    assert_int_equal(stores[0]->claims, 1);
    kafka_says(&b.publisher, 0, PUBLISHED);
    kafka_says(&b.publisher, 1, PUBLISHED);
    assert_int_equal(b.outcomes[1], OUTCOME_ACCEPTED);
    assert_int_equal(b.outcomes[2], OUTCOME_ACCEPTED);
    finish(&b);
}

static void a_refused_claim_closes_the_gate_and_holds(void **state)
{
    (void)state;
    struct bench b;
    start(&b);
    deliver(&b, "one");
    loop_turn(b.loop, 0);
    stores[0]->handler->on_claimed(stores[0]->context, CLAIM_FAILED, NULL, "25006: read-only");
    assert_false(gate_is_open(b.gate));
    loop_turn(b.loop, 0);
    assert_int_equal(b.publisher.sent, 1);
    kafka_says(&b.publisher, 0, PUBLISHED);
    all_are(&b, OUTCOME_ACCEPTED);
    finish(&b);
}

static void a_full_queue_refuses_the_newest(void **state)
{
    (void)state;
    struct bench b;
    start(&b);
    char name[8];
    for (int i = 0; i < 22; i++) {
        snprintf(name, sizeof name, "%d", i);
        deliver(&b, name);
        if (i == 0)
            loop_turn(b.loop, 0); /* it keeps the lane busy */
    }
    assert_int_equal(b.outcomes[21], OUTCOME_OVERLOADED);
    assert_int_equal(b.outcomes[20], OUTCOME_NONE);
    for (int i = 0; i < 2; i++) {
        store_says_claimed(stores[0], CLAIM_KNOWN);
        loop_turn(b.loop, 0);
    }
    finish(&b);
}

static void batches_and_queue_are_bounded_in_bytes(void **state)
{
    (void)state;
    struct bench b;
    start(&b);
    b.config.pipeline.batch_bytes = 7;
    b.config.pipeline.queue_bytes = 12;
    deliver(&b, "aaaa");
    deliver(&b, "bbbb");
    deliver(&b, "cccc");
    deliver(&b, "dddd");
    assert_int_equal(b.outcomes[3], OUTCOME_OVERLOADED);
    for (int i = 1; i <= 3; i++) {
        loop_turn(b.loop, 0);
        assert_int_equal(stores[0]->claims, i);
        assert_int_equal(stores[0]->claimed, 1);
        store_says_claimed(stores[0], CLAIM_KNOWN);
    }
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
    loop_turn(b.loop, 0);
    kafka_says(&b.publisher, 0, PUBLISHED);
    all_are(&b, OUTCOME_ACCEPTED);
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
    assert_int_equal(b.publisher.topic.misses, 0);
    kafka_says(&b.publisher, 0, PUBLISHED);
    assert_int_equal(stores[0]->refused, 1); /* its claim is taken back */
    stores[0]->handler->on_committed(stores[0]->context);
    assert_int_equal(b.outcomes[old], OUTCOME_STORE_SLOW);
    assert_int_equal(b.outcomes[young], OUTCOME_ACCEPTED);
    assert_int_equal(b.publisher.purges, 0);
    finish(&b);
}

static void an_overdue_event_is_not_claimed(void **state)
{
    (void)state;
    struct bench b;
    start(&b);
    size_t busy = deliver(&b, "busy");
    loop_turn(b.loop, 0);
    size_t old = deliver_old(&b, "old", 900000);
    size_t young = deliver(&b, "young");
    b.config.deadlines.claim_us = 600000; /* now the old one could not end in time any more */
    store_says_claimed(stores[0], CLAIM_KNOWN);
    loop_turn(b.loop, 0);
    assert_int_equal(b.outcomes[busy], OUTCOME_DUPLICATE);
    assert_int_equal(b.outcomes[old], OUTCOME_OVERLOADED);
    assert_int_equal(stores[0]->claims, 2);
    assert_int_equal(stores[0]->claimed, 1);
    store_says_claimed(stores[0], CLAIM_KNOWN);
    assert_int_equal(b.outcomes[young], OUTCOME_DUPLICATE);
    finish(&b);
}

static void a_split_that_times_out_opens_the_breaker_and_holds(void **state)
{
    (void)state;
    struct bench b;
    start(&b);
    deliver(&b, "one");
    deliver(&b, "two");
    loop_turn(b.loop, 0);
    stores[0]->handler->on_claimed(stores[0]->context, CLAIM_BLOCKED, NULL, "57014");
    assert_int_equal(stores[0]->unblocked, 1);
    stores[0]->handler->on_claimed(stores[0]->context, CLAIM_BLOCKED, NULL, "57014");
    assert_false(gather_is_ready(b.gather));
    loop_turn(b.loop, 0);
    assert_int_equal(stores[0]->probes, 2);
    assert_int_equal(b.publisher.sent, 2); /* to the holding topic */
    kafka_says(&b.publisher, 0, PUBLISHED);
    kafka_says(&b.publisher, 1, PUBLISHED);
    all_are(&b, OUTCOME_ACCEPTED);
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
        cmocka_unit_test(a_connection_lost_while_claiming_holds_the_events),
        cmocka_unit_test(a_blocked_claim_does_not_open_the_breaker),
        cmocka_unit_test(the_next_batch_is_claimed_behind_the_commit),
        cmocka_unit_test(a_blocked_batch_is_split_and_only_the_suspect_waits),
        cmocka_unit_test(too_many_suspects_are_refused),
        cmocka_unit_test(without_a_connection_the_wait_is_bounded),
        cmocka_unit_test(what_waits_is_held_when_the_gate_closes),
        cmocka_unit_test(a_refused_claim_closes_the_gate_and_holds),
        cmocka_unit_test(a_full_queue_refuses_the_newest),
        cmocka_unit_test(batches_and_queue_are_bounded_in_bytes),
        cmocka_unit_test(claims_that_are_not_answered_give_the_connection_up),
        cmocka_unit_test(an_event_that_comes_too_late_is_refused_alone),
        cmocka_unit_test(an_overdue_event_is_not_claimed),
        cmocka_unit_test(a_split_that_times_out_opens_the_breaker_and_holds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
