/* Holding against a fake publisher and a fake gather: which answer each delivery gets and when, and
 * that bodies live until their report. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "hold.h"

#include "clock.h"
#include "config.h"
#include "delivery_memory.h"
#include "directory.h"
#include "gate.h"
#include "publisher.h"
#include "shown.h"
#include "topic.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

/* ---- fakes ---- */

struct topic {
    const char *name;
    bool refuses;
    int missed;
};
struct publisher {
    struct topic hold, markers;
};

static struct publish_op *sent[16];
static struct topic *sent_to[16];
static size_t sent_count;

struct topic *publisher_topic(struct publisher *publisher, const char *name)
{
    return strcmp(name, "hold") == 0 ? &publisher->hold : &publisher->markers;
}

bool topic_admits(struct topic *topic, struct slice key)
{
    assert_true(key.len > 0);
    return !topic->refuses;
}

void topic_missed(struct topic *topic, int32_t partition, int64_t sent_us)
{
    (void)partition, (void)sent_us;
    topic->missed++;
}

void publisher_send(struct publisher *publisher, struct topic *topic,
                    const struct publish_record *record, struct publish_op *op)
{
    (void)publisher;
    assert_true((topic->name[0] == 'm') == (record->value.len == 0));
    op->topic = topic;
    sent_to[sent_count] = topic;
    sent[sent_count++] = op;
}

static void kafka_says(size_t which, enum publish_result result)
{
    struct publish_op *op = sent[which];
    sent[which] = NULL;
    op->on_report(op, result, 0, 0);
}

static enum outcome outcomes[8];
static int64_t answered_us[8];
static size_t answered;

void gather_finish(struct gather *gather, struct delivery *d, enum outcome outcome,
                   const char *detail)
{
    (void)gather;
    assert_non_null(detail);
    size_t number = (size_t)(d->body.ptr[0] - '0');
    assert_int_equal(outcomes[number], OUTCOME_NONE);
    outcomes[number] = outcome;
    answered_us[number] = clock_mono_us();
    answered++;
    delivery_release(d);
}

/* ---- the bench ---- */

static struct config config;
static struct delivery_env env;
static struct platform platform = {.name = "zoom", .topic = "webhooks.zoom"};
static struct integration integration = {.workspace = "w",
                                         .id = "00000000-0000-0000-0000-000000000000"};
static struct loop *loop;
static struct publisher publisher;
static struct metrics *metrics;
static struct gate *gate;
static struct hold *hold;

static int start(void **state)
{
    (void)state;
    config = (struct config){0};
    config.hold.topic = "hold";
    config.hold.markers = "markers";
    config.hold.age_us = 60000000;
    config.hold.bytes = 1 << 20;
    config.pipeline.queue = 4;
    config.deadlines.publish_us = 1000000;
    publisher = (struct publisher){.hold.name = "hold", .markers.name = "markers"};
    memset(outcomes, 0, sizeof outcomes);
    answered = sent_count = 0;
    loop = loop_new();
    metrics = metrics_shard_new();
    gate = gate_new();
    hold = hold_new(loop, &config, gate, NULL, &publisher, metrics);
    return 0;
}

static int finish(void **state)
{
    (void)state;
    assert_int_equal(env.held_bytes, 0); /* every body was let go */
    hold_free(hold);
    free(gate);
    loop_free(loop);
    return 0;
}

/* Its memory goes when both the fake gather and librdkafka have let go of it: ASan would tell. */
static struct delivery *make(char number, int64_t left_us)
{
    struct delivery *d = xcalloc(1, sizeof *d);
    d->magic = DELIVERY_MAGIC;
    d->env = &env;
    env.held_bytes += 4;
    d->platform = &platform;
    d->integration = &integration;
    d->workspace = slice_of("w");
    d->memory = xcalloc(1, 8);
    d->memory[0] = number;
    d->body = (struct slice){d->memory, 4};
    d->event.type = slice_of("t");
    d->event.external_id = slice_of("e");
    d->content_type = slice_of("application/json");
    d->holds = 1;
    d->deadline_us = clock_mono_us() + left_us;
    list_init(&d->node);
    list_init(&d->followers);
    return d;
}

#define DOUBLES "hookgate_possible_doubles_total{cause=\"store_lost\"} "

/* ---- tests ---- */

static void accepted_comes_with_kafkas_report(void **state)
{
    (void)state;
    hold_payload(hold, make('0', 2500000));
    hold_marker(hold, make('1', 2500000), "webhooks.zoom", 3, 7);
    loop_turn(loop, 0);
    assert_int_equal(answered, 0);
    assert_ptr_equal(sent_to[0], &publisher.hold);
    assert_ptr_equal(sent_to[1], &publisher.markers);
    kafka_says(1, PUBLISHED);
    assert_int_equal(outcomes[1], OUTCOME_ACCEPTED);
    assert_int_equal(outcomes[0], OUTCOME_NONE);
    kafka_says(0, PUBLISHED);
    assert_int_equal(outcomes[0], OUTCOME_ACCEPTED);
}

static void what_kafka_refuses_is_refused_and_a_marker_may_double(void **state)
{
    (void)state;
    int64_t before = metric(DOUBLES);
    hold_payload(hold, make('0', 2500000));
    hold_marker(hold, make('1', 2500000), "webhooks.zoom", 3, 7);
    kafka_says(0, PUBLISH_UNSENT);
    assert_int_equal(outcomes[0], OUTCOME_STORE_DOWN);
    assert_int_equal(metric(DOUBLES), before);
    kafka_says(1, PUBLISH_UNDECIDED);
    assert_int_equal(outcomes[1], OUTCOME_STORE_DOWN);
    assert_int_equal(metric(DOUBLES), before + 1);
}

static void a_deadline_answers_in_time_and_the_report_may_come_later(void **state)
{
    (void)state;
    config.deadlines.publish_us = 10000000;
    int64_t began = clock_mono_us();
    hold_payload(hold, make('0', 600000));
    hold_payload(hold, make('1', 400000)); /* older: due first */
    hold_payload(hold, make('2', 200000)); /* too late to blame Kafka */
    while (answered < 3)
        loop_turn(loop, 1000);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(outcomes[i], OUTCOME_STORE_DOWN);
        int64_t left = began + 600000 - 200000 * i - answered_us[i];
        assert_true(left > 50000 && left < 150000);
    }
    assert_int_equal(publisher.hold.missed, 2);
    for (size_t i = 0; i < 3; i++)
        kafka_says(i, PUBLISHED);
    assert_int_equal(answered, 3);
}

static void the_publish_deadline_counts_too(void **state)
{
    (void)state;
    config.deadlines.publish_us = 300000;
    int64_t began = clock_mono_us();
    hold_payload(hold, make('0', 2500000));
    while (answered == 0)
        loop_turn(loop, 1000);
    assert_true(answered_us[0] - began >= 300000 && answered_us[0] - began < 1000000);
    kafka_says(0, PUBLISH_UNSENT);
}

/* Refused, but not before hold_payload() has returned. */
static void assert_refused(char number)
{
    hold_payload(hold, make(number, 2500000));
    assert_int_equal(outcomes[number - '0'], OUTCOME_NONE);
    size_t before = sent_count;
    loop_turn(loop, 0);
    assert_int_equal(outcomes[number - '0'], OUTCOME_STORE_DOWN);
    assert_int_equal(sent_count, before);
}

static void an_open_breaker_refuses(void **state)
{
    (void)state;
    publisher.hold.refuses = true;
    assert_refused('0');
}

static void a_full_queue_refuses(void **state)
{
    (void)state;
    for (char number = '0'; number < '4'; number++)
        hold_payload(hold, make(number, 2500000));
    assert_refused('4');
    for (size_t i = 0; i < 4; i++)
        kafka_says(i, PUBLISHED);
    hold_payload(hold, make('5', 2500000));
    kafka_says(4, PUBLISHED);
    assert_int_equal(outcomes[5], OUTCOME_ACCEPTED);
}

static void age_and_bytes_are_bounded(void **state)
{
    (void)state;
    config.hold.bytes = 8; /* two bodies */
    hold_payload(hold, make('0', 2500000));
    hold_payload(hold, make('1', 2500000));
    assert_refused('2');
    config.hold.bytes = 1 << 20;
    config.hold.age_us = 0;
    assert_refused('3');
    kafka_says(0, PUBLISHED);
    kafka_says(1, PUBLISHED);
}

/* Both servers away for an hour must not use up what can be held when one is back. */
static void what_kafka_does_not_take_uses_up_no_bytes(void **state)
{
    (void)state;
    config.hold.bytes = 4; /* one body */
    hold_payload(hold, make('0', 2500000));
    assert_refused('1'); /* no room */
    kafka_says(0, PUBLISH_UNDECIDED);
    publisher.hold.refuses = true;
    assert_refused('2');
    publisher.hold.refuses = false;
    hold_payload(hold, make('3', 2500000));
    kafka_says(1, PUBLISHED);
    assert_int_equal(outcomes[3], OUTCOME_ACCEPTED);
    hold_marker(hold, make('4', 2500000), "webhooks.zoom", 3, 7);
    kafka_says(2, PUBLISH_UNSENT);
    assert_refused('5'); /* a marker took no room, and gives none back */
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, finish)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(accepted_comes_with_kafkas_report),
        TEST(what_kafka_refuses_is_refused_and_a_marker_may_double),
        TEST(a_deadline_answers_in_time_and_the_report_may_come_later),
        TEST(the_publish_deadline_counts_too),
        TEST(an_open_breaker_refuses),
        TEST(a_full_queue_refuses),
        TEST(age_and_bytes_are_bounded),
        TEST(what_kafka_does_not_take_uses_up_no_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
