/* Reading back from librdkafka's mock cluster: order, bounds, headers, gaps, and what is not there.
 */
/* SPDX-License-Identifier: Apache-2.0 */
#include "clock.h"
#include "config.h"
#include "reader.h"
#include "topics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>

#define RECORDS 100
#define SECOND INT64_C(1000000)

struct broker {
    rd_kafka_t *producer;
    rd_kafka_mock_cluster_t *mock;
    struct config *config;
    struct reader *reader;
};

static void produce(struct broker *broker, int count)
{
    for (int i = 0; i < count; i++) {
        char value[32], key[] = {'k', 'e', 'y'};
        snprintf(value, sizeof value, "value %d", i);
        const char *number = value + 6;
        rd_kafka_resp_err_t err = rd_kafka_producev(
            broker->producer, RD_KAFKA_V_TOPIC("t"), RD_KAFKA_V_PARTITION(1),
            RD_KAFKA_V_KEY(key, sizeof key), RD_KAFKA_V_VALUE(value, strlen(value)),
            RD_KAFKA_V_HEADER("ce_id", "first", 5), RD_KAFKA_V_HEADER("ce_id", number, -1),
            RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END);
        assert_int_equal(err, RD_KAFKA_RESP_ERR_NO_ERROR);
    }
    assert_int_equal(rd_kafka_flush(broker->producer, 10000), RD_KAFKA_RESP_ERR_NO_ERROR);
}

static int setup(void **state)
{
    struct broker *broker = xcalloc(1, sizeof *broker);
    char text[256];
    broker->producer = rd_kafka_new(RD_KAFKA_PRODUCER, rd_kafka_conf_new(), text, sizeof text);
    broker->mock = rd_kafka_mock_cluster_new(broker->producer, 2);
    assert_int_equal(rd_kafka_mock_topic_create(broker->mock, "t", 2, 1), 0);
    assert_int_equal(rd_kafka_mock_partition_set_leader(broker->mock, "t", 1, 1), 0);
    const char *address = rd_kafka_mock_cluster_bootstraps(broker->mock);
    assert_true(rd_kafka_brokers_add(broker->producer, address) > 0);
    char yaml[1024];
    int len = snprintf(yaml, sizeof yaml,
                       "listen: {plain: '127.0.0.1:0'}\npublic_url: https://example.com\n"
                       "postgres: {conninfo: dbname=none}\nkafka: {brokers: '%s',"
                       " settings: {isolation.level: read_committed, client.rack: near}}\n"
                       "platforms: {directory: /nowhere}\n",
                       address);
    struct problems problems = {0};
    broker->config = config_read_bytes("test.yaml", yaml, (size_t)len, &problems);
    problems_print(&problems);
    assert_non_null(broker->config);
    char *reason = NULL;
    broker->reader = reader_new(broker->config, &reason);
    assert_non_null(broker->reader);
    produce(broker, RECORDS);
    *state = broker;
    return 0;
}

static int teardown(void **state)
{
    struct broker *broker = *state;
    reader_free(broker->reader);
    config_free(broker->config);
    rd_kafka_mock_cluster_destroy(broker->mock);
    rd_kafka_destroy(broker->producer);
    free(broker);
    return 0;
}

struct seen {
    int64_t first, last;
    size_t count, stop_at;
};

static bool on_record(const struct reader_record *record, void *context)
{
    struct seen *seen = context;
    char value[32];
    int len = snprintf(value, sizeof value, "value %d", (int)record->offset);
    assert_true(slice_equal(record->value, (struct slice){value, (size_t)len}));
    assert_true(slice_is(record->key, "key"));
    assert_int_equal(record->partition, 1);
    assert_true(record->wall_us > 0);
    struct slice id;
    assert_true(reader_header(record, "ce_id", &id)); /* the last of two */
    assert_true(slice_equal(id, (struct slice){value + 6, (size_t)len - 6}));
    assert_false(reader_header(record, "ce_type", &id));
    const char *name;
    assert_true(reader_header_at(record, 0, &name, &id));
    assert_string_equal(name, "ce_id");
    assert_true(slice_is(id, "first"));
    assert_false(reader_header_at(record, 2, &name, &id));
    if (seen->count++ == 0)
        seen->first = record->offset;
    else
        assert_int_equal(record->offset, seen->last + 1);
    seen->last = record->offset;
    return seen->count != seen->stop_at;
}

static void test_partitions_and_bounds(void **state)
{
    struct broker *broker = *state;
    int64_t deadline = clock_mono_us() + 10 * SECOND, low = -1, end = -1;
    int32_t count = 0;
    assert_int_equal(reader_partitions(broker->reader, "t", deadline, &count), READER_OK);
    assert_int_equal(count, 2);
    assert_int_equal(reader_bounds(broker->reader, "t", 1, deadline, &low, &end), READER_OK);
    assert_int_equal(low, 0);
    assert_int_equal(end, RECORDS);
    assert_int_equal(reader_bounds(broker->reader, "t", 0, deadline, &low, &end), READER_OK);
    assert_int_equal(end, 0);
}

static void test_replicas(void **state)
{
    struct broker *broker = *state;
    int64_t deadline = clock_mono_us() + 10 * SECOND;
    assert_int_equal(rd_kafka_mock_topic_create(broker->mock, "duo", 4, 2), 0);
    int32_t count = -1;
    struct reader_replicas *replicas = NULL;
    assert_int_equal(reader_replicas(broker->reader, "duo", deadline, &count, &replicas),
                     READER_OK);
    assert_int_equal(count, 4);
    for (int32_t i = 0; i < count; i++) {
        assert_int_equal(replicas[i].all, 2);
        assert_int_equal(replicas[i].in_sync, 2);
    }
    free(replicas);
    rd_kafka_mock_topic_set_error(broker->mock, "none", RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
    assert_int_equal(reader_replicas(broker->reader, "none", deadline, &count, &replicas),
                     READER_UNKNOWN);
    assert_int_equal(count, 0);
    assert_null(replicas);
}

static void test_reads_exactly_what_lies_between(void **state)
{
    struct broker *broker = *state;
    int64_t deadline = clock_mono_us() + 10 * SECOND;
    struct seen all = {0}, middle = {0}, none = {0}, stopped = {.stop_at = 3};
    assert_int_equal(reader_read(broker->reader, "t", 1, 0, RECORDS, deadline, on_record, &all),
                     READER_OK);
    assert_int_equal(all.count, RECORDS);
    assert_int_equal(reader_read(broker->reader, "t", 1, 40, 60, deadline, on_record, &middle),
                     READER_OK);
    assert_int_equal(middle.first, 40);
    assert_int_equal(middle.count, 20);
    assert_int_equal(reader_read(broker->reader, "t", 1, 60, 60, deadline, on_record, &none),
                     READER_OK);
    assert_int_equal(none.count, 0);
    assert_int_equal(reader_read(broker->reader, "t", 1, 10, 60, deadline, on_record, &stopped),
                     READER_OK);
    assert_int_equal(stopped.count, 3);
}

static void test_what_is_not_there(void **state)
{
    struct broker *broker = *state;
    struct seen seen = {0};
    int64_t low, end;
    assert_int_equal(reader_bounds(broker->reader, "t", 7, clock_mono_us() + SECOND, &low, &end),
                     READER_UNKNOWN);
    assert_non_null(strstr(reader_reason(broker->reader), "topic t"));
    assert_int_equal(reader_read(broker->reader, "t", 1, 5000, 6000, clock_mono_us() + 5 * SECOND,
                                 on_record, &seen),
                     READER_EXPIRED);
    assert_int_equal(seen.count, 0);
}

/* A broker that is away ends a call at its deadline, not before and not much later. */
static void test_deadline(void **state)
{
    struct broker *broker = *state;
    struct seen seen = {0};
    int64_t low, end, began = clock_mono_us();
    rd_kafka_mock_broker_set_down(broker->mock, -1);
    assert_int_equal(reader_bounds(broker->reader, "t", 1, began + SECOND, &low, &end),
                     READER_LATE);
    assert_int_equal(reader_read(broker->reader, "t", 1, 0, RECORDS, clock_mono_us() + SECOND / 2,
                                 on_record, &seen),
                     READER_LATE);
    assert_in_range(clock_mono_us() - began, SECOND, 4 * SECOND);
    rd_kafka_mock_broker_set_up(broker->mock, -1);
    assert_int_equal(
        reader_bounds(broker->reader, "t", 1, clock_mono_us() + 10 * SECOND, &low, &end),
        READER_OK);
    assert_int_equal(end, RECORDS);
}

/* All that it has is committed up to the first half, as far as it has heard. */
static void hear_of_half(struct broker *broker)
{
    produce(broker, RECORDS);
    assert_int_equal(rd_kafka_mock_partition_set_follower(broker->mock, "t", 1, 2), 0);
    assert_int_equal(rd_kafka_mock_partition_set_follower_wmarks(broker->mock, "t", 1, 0, RECORDS),
                     0);
}

static bool on_any(const struct reader_record *record, void *context)
{
    struct seen *seen = context;
    seen->last = record->offset;
    seen->count++;
    return true;
}

/* A new leader says that the partition ends before `end`, which the old one told. The mock has no
 * such leader, but a replica of that kind, to which it sends who reads. */
static void test_what_is_not_known_to_be_committed_yet_is_no_gap(void **state)
{
    struct broker *broker = *state;
    struct seen seen = {0};
    hear_of_half(broker);
    assert_int_equal(reader_read(broker->reader, "t", 1, 0, 2 * RECORDS,
                                 clock_mono_us() + 10 * SECOND, on_any, &seen),
                     READER_OK);
    assert_int_equal(seen.last, 2 * RECORDS - 1);
    assert_int_equal(seen.count, 2 * RECORDS);
}

static void test_an_end_that_does_not_come_is_late(void **state)
{
    struct broker *broker = *state;
    struct seen seen = {0};
    assert_int_equal(reader_read(broker->reader, "t", 1, 0, RECORDS + 1, clock_mono_us() + SECOND,
                                 on_any, &seen),
                     READER_LATE);
    assert_int_equal(seen.count, RECORDS);
}

static void test_settings_that_would_hide_records_are_overruled(void **state)
{
    struct broker *broker = *state;
    char *reason = NULL, value[32] = "?";
    size_t size = sizeof value;
    rd_kafka_conf_t *conf = topics_reader_conf(broker->config, &reason);
    assert_int_equal(rd_kafka_conf_get(conf, "isolation.level", value, &size), RD_KAFKA_CONF_OK);
    assert_string_equal(value, "read_uncommitted");
    size = sizeof value;
    assert_int_equal(rd_kafka_conf_get(conf, "client.rack", value, &size), RD_KAFKA_CONF_OK);
    assert_string_equal(value, "");
    rd_kafka_conf_destroy(conf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_partitions_and_bounds, setup, teardown),
        cmocka_unit_test_setup_teardown(test_replicas, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reads_exactly_what_lies_between, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_not_there, setup, teardown),
        cmocka_unit_test_setup_teardown(test_deadline, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_not_known_to_be_committed_yet_is_no_gap, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_an_end_that_does_not_come_is_late, setup, teardown),
        cmocka_unit_test_setup_teardown(test_settings_that_would_hide_records_are_overruled, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
