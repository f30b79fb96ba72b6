/* Gather, lane and batch against a fake store and a fake publisher when something fails: what is
 * parked, what is claimed again, what is refused, and when the breakers let through. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "lane_bench.h"

static void a_missed_publish_deadline_purges_and_parks_the_rest(void **state)
{
    struct bench *b = *state;
    b->config.deadlines.publish_us = 20000;
    claim_new(b, "one", "two", "three", NULL);
    kafka_says(&b->publisher, 0, PUBLISHED);
    while (b->publisher.purges == 0)
        loop_turn(b->loop, 1000);
    assert_int_equal(b->publisher.topic.misses, 2);
    kafka_says(&b->publisher, 1, PUBLISH_UNSENT);
    assert_int_equal(stores[0]->commits, 0);
    kafka_says(&b->publisher, 2, PUBLISH_UNDECIDED);
    assert_int_equal(stores[0]->receipts, 1);
    assert_int_equal(stores[0]->refused, 0);
    assert_int_equal(stores[0]->parked, 2);
    const struct store_parked *unsent = &stores[0]->parked_rows[0],
                              *undecided = &stores[0]->parked_rows[1];
    assert_false(unsent->undecided);
    assert_int_equal(unsent->key_partition, 7);
    assert_true(undecided->undecided);
    assert_int_equal(undecided->sent_partition, 3); /* as reported, not as the key says */
    assert_int_equal(undecided->record_wall_us, b->publisher.times[2]);
    assert_true(slice_is(b->publisher.values[2], stores[0]->parked_bodies[1]));
    assert_true(parking_admits(b->parking));
    commit(b);
    all_are(b, OUTCOME_ACCEPTED);
    assert_true(parking_take_news(b->parking)); /* the drainer is told */
}

static void without_room_to_park_what_was_not_acknowledged_is_refused(void **state)
{
    struct bench *b = *state;
    b->config.deadlines.publish_us = 10000;
    claim_new(b, "one", "two", "three", NULL);
    kafka_says(&b->publisher, 0, PUBLISHED);
    parking_set(b->parking, 0, 2000000); /* older than park.age */
    while (b->publisher.purges == 0)
        loop_turn(b->loop, 1000);
    kafka_says(&b->publisher, 1, PUBLISH_UNSENT);
    kafka_says(&b->publisher, 2, PUBLISH_UNDECIDED);
    assert_int_equal(stores[0]->receipts, 1);
    assert_int_equal(stores[0]->parked, 0);
    assert_int_equal(stores[0]->refused, 2);
    commit(b);
    assert_int_equal(how_many(b, OUTCOME_ACCEPTED), 1);
    assert_int_equal(how_many(b, OUTCOME_BROKER_DOWN), 2);
}

static void while_the_breaker_is_open_events_are_parked_at_once(void **state)
{
    struct bench *b = *state;
    b->publisher.topic.refuses = true;
    claim_new(b, "one", "two", NULL);
    assert_int_equal(b->publisher.sent, 0);
    assert_int_equal(stores[0]->commits, 1);
    assert_int_equal(stores[0]->parked, 2);
    assert_false(stores[0]->parked_rows[0].undecided || stores[0]->parked_rows[1].undecided);
    assert_int_equal(b->outcomes[0], OUTCOME_NONE); /* not before it is committed */
    commit(b);
    all_are(b, OUTCOME_ACCEPTED);
}

static void a_topic_that_is_gone_parks(void **state)
{
    struct bench *b = *state;
    claim_new(b, "one", NULL);
    kafka_says(&b->publisher, 0, PUBLISH_NO_TOPIC);
    assert_int_equal(stores[0]->parked, 1);
    assert_false(stores[0]->parked_rows[0].undecided);
    commit(b);
    all_are(b, OUTCOME_ACCEPTED);
}

static void a_report_that_never_comes_does_not_hold_the_batch(void **state)
{
    struct bench *b = *state;
    b->config.deadlines.publish_us = 10000;
    claim_new(b, "one", NULL);
    while (stores[0]->commits == 0)
        loop_turn(b->loop, 1000);
    assert_true(stores[0]->parked_rows[0].undecided);
    assert_int_equal(stores[0]->parked_rows[0].sent_partition, -1);
    commit(b);
    all_are(b, OUTCOME_ACCEPTED);
    assert_memory_equal(b->publisher.values[0].ptr, "one", 3); /* librdkafka may still read it */
    kafka_says(&b->publisher, 0, PUBLISHED); /* too late, but the memory goes now */
}

static void a_report_that_comes_while_committing_changes_nothing(void **state)
{
    struct bench *b = *state;
    b->config.deadlines.publish_us = 10000;
    claim_new(b, "one", "two", NULL);
    kafka_says(&b->publisher, 0, PUBLISHED);
    while (stores[0]->commits == 0)
        loop_turn(b->loop, 1000);
    kafka_says(&b->publisher, 1, PUBLISHED); /* it was called undecided, and is parked as such */
    assert_int_equal(stores[0]->commits, 1);
    assert_int_equal(stores[0]->receipts, 1);
    assert_int_equal(stores[0]->parked, 1);
    commit(b);
    all_are(b, OUTCOME_ACCEPTED);
}

static void what_is_acknowledged_is_claimed_again_over_the_next_connection(void **state)
{
    struct bench *b = *state;
    claim_new(b, "one", "two", NULL);
    kafka_says(&b->publisher, 0, PUBLISHED);
    char in_flight[3];
    memcpy(in_flight, b->publisher.values[1].ptr, 3);
    lose(stores[0]);
    assert_memory_equal(b->publisher.values[1].ptr, in_flight, 3);
    come_back(b, stores[0]);
    assert_int_equal(stores[0]->unblocked, 0); /* one is still in flight */
    deliver(b, "three");
    loop_turn(b->loop, 0);
    assert_int_equal(stores[0]->claims, 1); /* nothing new before the orphan */
    kafka_says(&b->publisher, 1, PUBLISHED);
    loop_turn(b->loop, 0);
    assert_int_equal(stores[0]->unblocked, 1);
    assert_int_equal(stores[0]->claimed, 2);
    store_says_claimed(stores[0], CLAIM_NEW);
    assert_int_equal(stores[0]->commits, 1);
    assert_int_equal(stores[0]->receipts, 2);
    assert_int_equal(b->publisher.sent, 2); /* and not once more */
    commit(b);
    assert_int_equal(b->outcomes[0], OUTCOME_ACCEPTED);
    assert_int_equal(b->outcomes[1], OUTCOME_ACCEPTED);
    assert_int_equal(stores[0]->claims, 2);
    store_says_claimed(stores[0], CLAIM_KNOWN);
}

/* Acknowledged: a marker; surely unsent: held; in flight: refused. */
static void an_orphan_whose_time_is_over_is_held_by_what_kafka_has_of_it(void **state)
{
    struct bench *b = *state;
    claim_new(b, "one", "two", "three", NULL);
    assert_int_equal(b->publisher.sent, 3);
    b->config.deadlines.claim_us = 1950000; /* claiming again must begin within 50 ms */
    lose(stores[0]);
    kafka_says(&b->publisher, 0, PUBLISHED);
    kafka_says(&b->publisher, 1, PUBLISH_UNSENT);
    struct slice unsent = b->publisher.values[1];
    while (b->publisher.sent < 5)
        loop_turn(b->loop, 1000);
    bool marker_first = b->publisher.values[3].len == 0;
    assert_int_equal(b->publisher.values[marker_first ? 3 : 4].len, 0);
    assert_true(slice_equal(b->publisher.values[marker_first ? 4 : 3], unsent));
    assert_int_equal(how_many(b, OUTCOME_STORE_DOWN), 1);
    kafka_says(&b->publisher, 3, PUBLISHED);
    kafka_says(&b->publisher, 4, PUBLISHED);
    assert_int_equal(how_many(b, OUTCOME_ACCEPTED), 2);
    come_back(b, stores[0]);
    assert_int_equal(stores[0]->unblocked, 0);
    kafka_says(&b->publisher, 2, PUBLISHED); /* late: its bytes have lived until now */
}

static void an_orphan_whose_key_a_copy_took_is_told_so(void **state)
{
    struct bench *b = *state;
    long before = doubles();
    claim_new(b, "one", "two", "three", NULL);
    for (size_t i = 0; i < 3; i++)
        kafka_says(&b->publisher, i, PUBLISHED);
    assert_int_equal(stores[0]->commits, 1);
    lose(stores[0]); /* while committing */
    come_back(b, stores[0]);
    enum claim_verdict verdicts[] = {CLAIM_NEW, CLAIM_KNOWN, CLAIM_HELD};
    stores[0]->handler->on_claimed(stores[0]->context, CLAIMED, verdicts, NULL);
    assert_int_equal(stores[0]->commits, 2);
    assert_int_equal(stores[0]->receipts, 1);
    commit(b);
    assert_int_equal(how_many(b, OUTCOME_ACCEPTED), 1);
    assert_int_equal(how_many(b, OUTCOME_STORE_SLOW), 1);
    assert_int_equal(how_many(b, OUTCOME_DUPLICATE), 1); /* COMMIT was sent, but never executed */
    assert_int_equal(doubles() - before, 2);
}

static void an_orphan_whose_own_commit_came_through_doubles_nothing(void **state)
{
    struct bench *b = *state;
    long before = doubles();
    b->config.deadlines.publish_us = 20000;
    claim_new(b, "one", "two", NULL);
    kafka_says(&b->publisher, 0, PUBLISHED);
    while (b->publisher.purges == 0)
        loop_turn(b->loop, 1000);
    kafka_says(&b->publisher, 1, PUBLISH_UNDECIDED);
    assert_int_equal(stores[0]->parked, 1);
    lose(stores[0]); /* while committing */
    come_back(b, stores[0]);
    /* Asked for as they were to be written down: one published, the other parked, by its time. */
    const struct store_place *published = &stores[0]->places[0], *parked = &stores[0]->places[1];
    assert_int_equal(published->partition, 3);
    assert_int_equal(published->offset, 42);
    assert_int_equal(parked->partition, -1);
    assert_int_equal(parked->offset, -1);
    assert_true(published->received_wall_us > 0 && parked->received_wall_us > 0);
    store_says_claimed(stores[0], CLAIM_OWN);
    all_are(b, OUTCOME_ACCEPTED);
    assert_int_equal(stores[0]->commits, 1);
    assert_int_equal(stores[0]->rollbacks, 1);
    assert_int_equal(doubles(), before);
}

static void an_orphan_parks_what_kafka_does_not_take(void **state)
{
    struct bench *b = *state;
    b->config.deadlines.publish_us = 20000;
    claim_new(b, "one", NULL);
    lose(stores[0]);
    while (b->publisher.purges == 0)
        loop_turn(b->loop, 1000);
    kafka_says(&b->publisher, 0, PUBLISH_UNDECIDED);
    come_back(b, stores[0]);
    assert_int_equal(stores[0]->unblocked, 1);
    store_says_claimed(stores[0], CLAIM_NEW);
    assert_int_equal(stores[0]->parked, 1);
    assert_true(stores[0]->parked_rows[0].undecided);
    commit(b);
    all_are(b, OUTCOME_ACCEPTED);
}

static void a_second_loss_claims_once_more(void **state)
{
    struct bench *b = *state;
    claim_new(b, "one", NULL);
    kafka_says(&b->publisher, 0, PUBLISHED);
    lose(stores[0]);
    come_back(b, stores[0]);
    lose(stores[0]); /* while claiming again */
    come_back(b, stores[0]);
    assert_int_equal(stores[0]->unblocked, 2);
    store_says_claimed(stores[0], CLAIM_NEW);
    lose(stores[0]); /* while committing that */
    come_back(b, stores[0]);
    assert_int_equal(stores[0]->unblocked, 3);
    store_says_claimed(stores[0], CLAIM_NEW);
    commit(b);
    all_are(b, OUTCOME_ACCEPTED);
    assert_int_equal(b->publisher.sent, 1);
}

static void while_postgres_breaker_is_open_nothing_is_claimed(void **state)
{
    struct bench *b = *state;
    lose(stores[0]);
    stores[0]->handler->on_ready(stores[0]->context);
    open_gate(b);      /* Postgres is there for others, but this loop has not proven it */
    deliver(b, "one"); /* held */
    loop_turn(b->loop, 0);
    kafka_says(&b->publisher, 0, PUBLISHED);
    all_are(b, OUTCOME_ACCEPTED);
    assert_int_equal(stores[0]->claims, 0);
    assert_int_equal(stores[0]->probes, 2);
    assert_false(gather_is_ready(b->gather));
    assert_int_equal(stores[1]->probes, 1); /* any connection may probe */
    store_says_probed(stores[1]);
    open_gate(b);
    deliver(b, "two");
    loop_turn(b->loop, 0);
    assert_int_equal(stores[0]->claims, 0); /* its own probe is under way */
    store_says_probed(stores[0]);
    loop_turn(b->loop, 0);
    assert_true(gather_is_ready(b->gather));
    assert_int_equal(stores[0]->claims, 1);
    store_says_claimed(stores[0], CLAIM_KNOWN);
}

static void claims_that_fail_open_the_breaker(void **state)
{
    struct bench *b = *state;
    deliver(b, "one");
    deliver(b, "two");
    loop_turn(b->loop, 0);
    store_fails_claim(stores[0], CLAIM_FAILED, "53100: disk full");
    deliver(b, "three");
    loop_turn(b->loop, 0);
    for (size_t i = 0; i < 3; i++) /* held */
        kafka_says(&b->publisher, i, PUBLISHED);
    all_are(b, OUTCOME_ACCEPTED);
    assert_int_equal(stores[0]->claims, 1);
    assert_int_equal(stores[0]->probes, 2);
    store_says_probed(stores[0]);
    open_gate(b);
    deliver(b, "four");
    loop_turn(b->loop, 0);
    assert_int_equal(stores[0]->claims, 2);
    store_says_claimed(stores[0], CLAIM_KNOWN);
}

static void a_connection_lost_while_committing_claims_again(void **state)
{
    struct bench *b = *state;
    claim_new(b, "one", NULL);
    kafka_says(&b->publisher, 0, PUBLISHED);
    deliver(b, "two"); /* claimed behind the commit */
    loop_turn(b->loop, 0);
    assert_int_equal(stores[0]->claims, 2);
    lose(stores[0]);
    assert_int_equal(b->outcomes[0], OUTCOME_NONE);
    loop_turn(b->loop, 0);
    kafka_says(&b->publisher, 1, PUBLISHED); /* nothing of it went to Kafka: it is held */
    assert_int_equal(b->outcomes[1], OUTCOME_ACCEPTED);
    come_back(b, stores[0]);
    assert_int_equal(stores[0]->claims, 2);
    assert_int_equal(stores[0]->unblocked, 1);
    store_says_claimed(stores[0], CLAIM_NEW);
    commit(b);
    assert_int_equal(b->outcomes[0], OUTCOME_ACCEPTED);
}

static void an_open_breaker_without_room_to_park_refuses_at_once(void **state)
{
    struct bench *b = *state;
    b->publisher.topic.refuses = true;
    parking_set(b->parking, 1 << 20, 0);
    deliver(b, "one");
    assert_int_equal(b->outcomes[0], OUTCOME_BROKER_DOWN);
}

static void what_is_parked_counts_before_the_drainer_looks(void **state)
{
    struct bench *b = *state;
    b->publisher.topic.refuses = true;
    parking_set(b->parking, (1 << 20) - 3, 0);
    claim_new(b, "one", NULL);
    commit(b);
    assert_int_equal(b->outcomes[0], OUTCOME_ACCEPTED);
    deliver(b, "two");
    assert_int_equal(b->outcomes[1], OUTCOME_BROKER_DOWN);
}

/* Kafka refused it while its session was lost: there is nothing to claim again. */
static void an_orphan_of_which_nothing_is_left_is_over(void **state)
{
    struct bench *b = *state;
    claim_new(b, "one", NULL);
    lose(stores[0]);
    kafka_says(&b->publisher, 0, PUBLISH_TOO_LARGE);
    assert_int_equal(b->outcomes[0], OUTCOME_BROKER_REFUSED);
    come_back(b, stores[0]);
    assert_int_equal(stores[0]->unblocked, 0);
    deliver(b, "two");
    loop_turn(b->loop, 0);
    assert_int_equal(stores[0]->claims, 2);
    store_says_claimed(stores[0], CLAIM_KNOWN);
    assert_int_equal(b->outcomes[1], OUTCOME_DUPLICATE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_missed_publish_deadline_purges_and_parks_the_rest),
        TEST(without_room_to_park_what_was_not_acknowledged_is_refused),
        TEST(while_the_breaker_is_open_events_are_parked_at_once),
        TEST(a_topic_that_is_gone_parks),
        TEST(a_report_that_never_comes_does_not_hold_the_batch),
        TEST(a_report_that_comes_while_committing_changes_nothing),
        TEST(what_is_acknowledged_is_claimed_again_over_the_next_connection),
        TEST(an_orphan_whose_time_is_over_is_held_by_what_kafka_has_of_it),
        TEST(an_orphan_whose_key_a_copy_took_is_told_so),
        TEST(an_orphan_whose_own_commit_came_through_doubles_nothing),
        TEST(an_orphan_parks_what_kafka_does_not_take),
        TEST(a_second_loss_claims_once_more),
        TEST(while_postgres_breaker_is_open_nothing_is_claimed),
        TEST(claims_that_fail_open_the_breaker),
        TEST(a_connection_lost_while_committing_claims_again),
        TEST(an_open_breaker_without_room_to_park_refuses_at_once),
        TEST(what_is_parked_counts_before_the_drainer_looks),
        TEST(an_orphan_of_which_nothing_is_left_is_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
