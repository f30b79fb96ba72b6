/* The publisher against librdkafka's mock cluster: reports, breakers, and the way back from each
 * state that librdkafka calls fatal. The source itself is included, so that a test can reach the
 * handle. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "../../src/publisher.c"
#include "topic.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <librdkafka/rdkafka_mock.h>

#define INIT_PRODUCER_ID 22 /* Kafka protocol: API key */
#define PARTITIONS 4
#define OPS 16

static struct {
    rd_kafka_t *owner;
    rd_kafka_mock_cluster_t *mock;
    struct config config;
    struct loop *loop;
    struct publisher *publisher;
    struct topic *topic;
} b;

struct sent {
    struct publish_op op;
    bool reported;
    enum publish_result result;
    int32_t partition;
    int64_t offset;
};
static struct sent sent[OPS];
static size_t sent_count;

static void on_report(struct publish_op *op, enum publish_result result, int32_t partition,
                      int64_t offset)
{
    struct sent *one = container_of(op, struct sent, op);
    assert_false(one->reported);
    one->reported = true;
    one->result = result;
    one->partition = partition;
    one->offset = offset;
}

static struct sent *send_record(const char *key)
{
    struct sent *one = &sent[sent_count++];
    *one = (struct sent){.op.on_report = on_report};
    const struct publish_record record = {.key = slice_of(key),
                                          .value = slice_of("{}"),
                                          .headers = {{"ce_id", slice_of("1")}},
                                          .header_count = 1,
                                          .wall_us = clock_wall_us()};
    publisher_send(b.publisher, b.topic, &record, &one->op);
    return one;
}

static bool turn_until(const bool *done, int64_t us)
{
    for (int64_t until = clock_mono_us() + us; !*done && clock_mono_us() < until;)
        loop_turn(b.loop, 10);
    return *done;
}

static enum publish_result result_of_sending(const char *key)
{
    struct sent *one = send_record(key);
    assert_true(turn_until(&one->reported, 5000000));
    return one->result;
}

static int setup(void **state)
{
    (void)state;
    log_set_level(LOG_ERROR + 1);
    memset(&b, 0, sizeof b);
    sent_count = 0;
    char text[256];
    b.owner = rd_kafka_new(RD_KAFKA_PRODUCER, rd_kafka_conf_new(), text, sizeof text);
    b.mock = rd_kafka_mock_cluster_new(b.owner, 1);
    assert_int_equal(rd_kafka_mock_topic_create(b.mock, "t", PARTITIONS, 1), 0);
    b.config.kafka.brokers = rd_kafka_mock_cluster_bootstraps(b.mock);
    b.config.listen.body = 1 << 20;
    b.loop = loop_new();
    char *reason = NULL;
    b.publisher = publisher_new(b.loop, &b.config, metrics_shard_new(), &reason);
    assert_non_null(b.publisher);
    b.topic = publisher_topic(b.publisher, "t");
    assert_false(topic_admits(b.topic, slice_of("k"))); /* nobody has checked it yet */
    topic_checked(b.topic, PARTITIONS);
    assert_true(topic_admits(b.topic, slice_of("k")));
    assert_int_equal(result_of_sending("k"), PUBLISHED);
    assert_true(turn_until(&b.publisher->producer->warm, 3000000));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    publisher_free(b.publisher);
    loop_free(b.loop);
    rd_kafka_mock_cluster_destroy(b.mock);
    rd_kafka_destroy(b.owner);
    return 0;
}

static void what_lay_in_the_queue_for_too_long_is_not_sent_any_more(void **state)
{
    (void)state;
    int32_t partition = topic_partition(b.topic, slice_of("k"));
    rd_kafka_mock_partition_set_leader(b.mock, "t", partition, -1);
    struct sent *one = send_record("k");
    assert_false(turn_until(&one->reported, 4000000));
    assert_true(turn_until(&one->reported, 4000000));
    assert_int_equal(one->result, PUBLISH_UNDECIDED); /* the broker refused it once */
}

static void records_go_where_the_key_leads(void **state)
{
    (void)state;
    static const char *const keys[] = {"w:1", "w:2", "w:3", "w:4", "w:5", "another one"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        assert_int_equal(result_of_sending(keys[i]), PUBLISHED);
        assert_int_equal(sent[sent_count - 1].partition,
                         topic_partition(b.topic, slice_of(keys[i])));
    }
    assert_int_equal(topic_partition(b.topic, (struct slice){0}), -1);
}

static void what_is_purged_is_undecided_or_unsent_and_the_next_producer_works(void **state)
{
    (void)state;
    rd_kafka_mock_broker_set_rtt(b.mock, 1, 3000);
    struct sent *one = send_record("k");
    assert_false(turn_until(&one->reported, 300000));
    int64_t sent_us = clock_mono_us();
    topic_missed(b.topic, topic_partition(b.topic, slice_of("k")), sent_us);
    publisher_purge(b.publisher);
    assert_true(turn_until(&one->reported, 1000000));
    assert_int_equal(one->result, PUBLISH_UNDECIDED);
    assert_int_equal(one->partition, topic_partition(b.topic, slice_of("k")));
    assert_false(topic_flows(b.topic));
    assert_false(topic_admits(b.topic, slice_of("another")));

    topic_heard(b.topic, 0); /* but our own producer can't send yet */
    assert_false(publisher_is_up(b.publisher));
    assert_false(topic_admits(b.topic, slice_of("k")));
    rd_kafka_mock_broker_set_rtt(b.mock, 1, 0);
    assert_true(turn_until(&b.publisher->producer->warm, 8000000));
    assert_true(topic_admits(b.topic, slice_of("k")));
    assert_int_equal(result_of_sending("k"), PUBLISHED);
}

/* As a broker says that is being stopped, also of what it has appended just before. */
static void what_a_broker_refused_as_not_the_leader_any_more_is_undecided(void **state)
{
    (void)state;
    for (int i = 0; i < 100; i++)
        rd_kafka_mock_push_request_errors(b.mock, API_PRODUCE, 1,
                                          RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION);
    struct sent *one = send_record("k");
    assert_false(turn_until(&one->reported, 300000));
    publisher_purge(b.publisher);
    assert_true(turn_until(&one->reported, 1000000));
    assert_int_equal(one->result, PUBLISH_UNDECIDED);
}

static void what_never_left_is_unsent(void **state)
{
    (void)state;
    rd_kafka_mock_partition_set_leader(b.mock, "t", topic_partition(b.topic, slice_of("k")), -1);
    rd_kafka_mock_push_request_errors(b.mock, API_PRODUCE, 1,
                                      RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION);
    struct sent *first = send_record("k"); /* teaches librdkafka that there is no leader */
    assert_false(turn_until(&first->reported, 300000));
    struct sent *second = send_record("k");
    assert_false(turn_until(&second->reported, 300000));
    publisher_purge(b.publisher);
    assert_true(turn_until(&second->reported, 1000000));
    assert_int_equal(second->result, PUBLISH_UNSENT);
}

static void an_acknowledgement_closes_the_breaker(void **state)
{
    (void)state;
    topic_missed(b.topic, -1, clock_mono_us());
    assert_false(topic_flows(b.topic));
    assert_int_equal(result_of_sending("k"), PUBLISHED);
    assert_true(topic_flows(b.topic));
    topic_missed(b.topic, -1, clock_mono_us());
    topic_heard(b.topic, 2); /* and so does somebody else's */
    assert_true(topic_flows(b.topic));
}

/* Which of some keys leads to this partition. */
static const char *key_of(int32_t partition)
{
    static const char *const keys[] = {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (topic_partition(b.topic, slice_of(keys[i])) == partition)
            return keys[i];
    }
    fail();
    return NULL;
}

static void a_partition_without_a_leader_stops_no_other(void **state)
{
    (void)state;
    const char *bad = key_of(1), *good = key_of(2);
    rd_kafka_mock_partition_set_leader(b.mock, "t", 1, -1);
    int64_t sent_us = clock_mono_us();
    struct sent *late = send_record(bad);
    assert_int_equal(result_of_sending(good), PUBLISHED);
    assert_false(late->reported);
    topic_missed(b.topic, 1, sent_us);
    publisher_purge(b.publisher);
    assert_true(turn_until(&late->reported, 1000000));
    assert_true(topic_flows(b.topic));
    assert_true(topic_admits(b.topic, slice_of(good)));
    assert_false(topic_admits(b.topic, slice_of(bad)));
    assert_int_equal(result_of_sending(good), PUBLISHED);
    assert_false(topic_admits(b.topic, slice_of(bad)));
    rd_kafka_mock_partition_set_leader(b.mock, "t", 1, 1);
    assert_true(turn_until(&b.publisher->producer->warm, 3000000));
    topic_heard(b.topic, 1);
    assert_true(topic_admits(b.topic, slice_of(bad)));
    assert_int_equal(result_of_sending(bad), PUBLISHED);
}

static void an_emptied_outbox_closes_all_but_not_what_just_opened(void **state)
{
    (void)state;
    topic_missed(b.topic, -1, clock_mono_us());
    topic_heard(b.topic, -1);
    assert_false(topic_flows(b.topic)); /* what it parked may not be committed yet */
    b.topic->opened_us -= 3000000;
    topic_heard(b.topic, -1);
    assert_true(topic_flows(b.topic));
}

static void after_a_fatal_error_the_next_producer_works(void **state)
{
    (void)state;
    struct producer *old = b.publisher->producer;
    assert_int_equal(rd_kafka_test_fatal_error(old->handle,
                                               RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,
                                               "sequence numbers desynchronised"),
                     RD_KAFKA_RESP_ERR_NO_ERROR);
    /* Sent before anybody has read the event: refused, but surely not written. */
    assert_int_equal(result_of_sending("k"), PUBLISH_UNSENT);
    for (int i = 0; i < 100 && b.publisher->producer == old; i++)
        loop_turn(b.loop, 10);
    assert_ptr_not_equal(b.publisher->producer, old);
    assert_int_equal(result_of_sending("k"), PUBLISHED);
    assert_true(topic_flows(b.topic));
}

static void a_fenced_producer_is_replaced(void **state)
{
    (void)state;
    struct producer *old = b.publisher->producer;
    rd_kafka_mock_push_request_errors(b.mock, API_PRODUCE, 1,
                                      RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH);
    assert_int_equal(result_of_sending("k"), PUBLISH_UNDECIDED);
    for (int i = 0; i < 100 && b.publisher->producer == old; i++)
        loop_turn(b.loop, 10);
    assert_int_equal(result_of_sending("k"), PUBLISHED);
}

static void too_large_concerns_that_record_alone(void **state)
{
    (void)state;
    rd_kafka_mock_push_request_errors(b.mock, API_PRODUCE, 1, RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE);
    assert_int_equal(result_of_sending("k"), PUBLISH_TOO_LARGE);
    assert_true(topic_flows(b.topic));
    assert_int_equal(result_of_sending("k"), PUBLISHED);
}

static void rights_that_are_lost_open_the_breaker_until_they_are_back(void **state)
{
    (void)state;
    rd_kafka_mock_push_request_errors(b.mock, API_PRODUCE, 1,
                                      RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
    assert_int_equal(result_of_sending("k"), PUBLISH_NO_TOPIC);
    assert_false(topic_flows(b.topic));
    for (int i = 0; i < 5; i++) /* the producer is replaced: librdkafka would remember */
        loop_turn(b.loop, 10);
    assert_int_equal(result_of_sending("k"), PUBLISHED);
    assert_true(topic_flows(b.topic));
}

/* What the first request did is not known: the second one's answer says nothing of it. */
static void a_topic_that_is_lost_behind_a_repetition_leaves_its_record_undecided(void **state)
{
    (void)state;
    rd_kafka_mock_push_request_errors(b.mock, API_PRODUCE, 2, RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
                                      RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
    assert_int_equal(result_of_sending("k"), PUBLISH_UNDECIDED);
    assert_false(topic_flows(b.topic));
    for (int i = 0; i < 5; i++) /* the producer is replaced all the same */
        loop_turn(b.loop, 10);
    assert_int_equal(result_of_sending("k"), PUBLISHED);
}

/* Without any right to write Kafka gives out no producer id, which librdkafka calls fatal: a new
 * producer would fail the same way at once, and its successor. */
static void a_producer_that_may_not_write_anywhere_is_replaced_now_and_then(void **state)
{
    (void)state;
    for (int i = 0; i < 100; i++)
        rd_kafka_mock_push_request_errors(b.mock, INIT_PRODUCER_ID, 1,
                                          RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED);
    publisher_purge(b.publisher);
    struct producer *last = b.publisher->producer;
    int replaced = 0;
    for (int64_t until = clock_mono_us() + 3000000; clock_mono_us() < until;) {
        loop_turn(b.loop, 10);
        replaced += b.publisher->producer != last;
        last = b.publisher->producer;
        assert_false(publisher_is_up(b.publisher));
    }
    assert_in_range(replaced, 2, 4);
    assert_int_equal(result_of_sending("k"), PUBLISH_UNSENT);
    rd_kafka_mock_clear_request_errors(b.mock, INIT_PRODUCER_ID);
    for (int i = 0; i < 300 && !publisher_is_up(b.publisher); i++)
        loop_turn(b.loop, 10);
    assert_int_equal(result_of_sending("k"), PUBLISHED);
}

static void a_topic_that_must_not_be_used_admits_nothing(void **state)
{
    (void)state;
    topic_checked(b.topic, 0);
    assert_false(topic_admits(b.topic, slice_of("k")));
    assert_false(topic_flows(b.topic));
    topic_checked(b.topic, PARTITIONS);
    assert_true(topic_admits(b.topic, slice_of("k")));
}

static void after_a_long_time_an_event_tries(void **state)
{
    (void)state;
    topic_missed(b.topic, -1, clock_mono_us());
    assert_false(topic_admits(b.topic, slice_of("k")));
    b.topic->breaker.probe_us = clock_mono_us();
    assert_true(topic_admits(b.topic, slice_of("k")));
    assert_false(topic_admits(b.topic, slice_of("k"))); /* one */
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(what_lay_in_the_queue_for_too_long_is_not_sent_any_more),
        TEST(records_go_where_the_key_leads),
        TEST(what_is_purged_is_undecided_or_unsent_and_the_next_producer_works),
        TEST(what_a_broker_refused_as_not_the_leader_any_more_is_undecided),
        TEST(what_never_left_is_unsent),
        TEST(an_acknowledgement_closes_the_breaker),
        TEST(a_partition_without_a_leader_stops_no_other),
        TEST(an_emptied_outbox_closes_all_but_not_what_just_opened),
        TEST(after_a_fatal_error_the_next_producer_works),
        TEST(a_fenced_producer_is_replaced),
        TEST(too_large_concerns_that_record_alone),
        TEST(rights_that_are_lost_open_the_breaker_until_they_are_back),
        TEST(a_topic_that_is_lost_behind_a_repetition_leaves_its_record_undecided),
        TEST(a_producer_that_may_not_write_anywhere_is_replaced_now_and_then),
        TEST(a_topic_that_must_not_be_used_admits_nothing),
        TEST(after_a_long_time_an_event_tries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
