/* Rows on their way, against a fake publisher: each ends as it is reported, and what comes too late
 * to be sent is not. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "shipment.h"

#include "clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#define ROWS 3
#define SECOND INT64_C(1000000)

/* ---- fakes ---- */

static enum publish_result results[8]; /* of the sendings in turn; NOT_TRIED = no report */
static struct publish_op *sent[8];
static size_t sent_count, purges, released;
static int64_t send_takes_us;

struct report {
    struct loop_task task;
    struct publish_op *op;
    enum publish_result result;
};
static struct report reports[8];
static struct loop *loop;

static void on_due(struct loop_task *task)
{
    struct report *report = container_of(task, struct report, task);
    report->op->on_report(report->op, report->result, 1, 7);
}

void publisher_send(struct publisher *publisher, struct topic *topic,
                    const struct publish_record *record, struct publish_op *op)
{
    (void)publisher, (void)topic, (void)record;
    usleep((useconds_t)send_takes_us);
    size_t at = sent_count++;
    sent[at] = op;
    reports[at] = (struct report){.task.run = on_due, .op = op, .result = results[at]};
    if (results[at] != PUBLISH_NOT_TRIED)
        loop_defer(loop, &reports[at].task);
}

void publisher_purge(struct publisher *publisher)
{
    (void)publisher;
    purges++;
}

void outbox_rows_release(struct outbox_rows *rows)
{
    (void)rows;
    released++;
}

/* ---- the bench ---- */

static struct outbox_row stored[ROWS];

static struct shipment *make(void)
{
    struct outbox_rows rows = {.count = ROWS, .rows = stored};
    struct shipment *shipment = shipment_new(loop, NULL, NULL, &rows);
    assert_int_equal(rows.count, 0);
    return shipment;
}

static int start(void **state)
{
    (void)state;
    memset(results, 0, sizeof results); /* PUBLISHED */
    sent_count = purges = released = 0;
    send_takes_us = 0;
    loop = loop_new();
    return 0;
}

static int finish(void **state)
{
    (void)state;
    assert_int_equal(released, 1);
    loop_free(loop);
    return 0;
}

static enum publish_result end(const struct shipment *shipment, size_t row)
{
    return shipment_ends(shipment)[row].result;
}

/* ---- the cases ---- */

static void each_row_ends_as_it_is_reported(void **state)
{
    (void)state;
    results[1] = PUBLISH_UNSENT;
    struct shipment *shipment = make();
    shipment_send(shipment, clock_mono_us() + SECOND, SECOND);
    assert_int_equal(end(shipment, 0), PUBLISHED);
    assert_int_equal(end(shipment, 1), PUBLISH_UNSENT);
    assert_int_equal(end(shipment, 2), PUBLISHED);
    assert_int_equal(shipment_ends(shipment)[2].offset, 7);
    assert_false(shipment_is_late(shipment));
    shipment_free(shipment);
}

static void what_is_not_reported_is_purged_and_undecided(void **state)
{
    (void)state;
    results[2] = PUBLISH_NOT_TRIED;
    struct shipment *shipment = make();
    shipment_send(shipment, clock_mono_us() + SECOND, SECOND / 10);
    assert_int_equal(end(shipment, 2), PUBLISH_UNDECIDED);
    assert_int_equal(purges, 1);
    assert_true(shipment_is_late(shipment));
    shipment_free(shipment);
    assert_int_equal(released, 0); /* librdkafka still has the body */
    sent[2]->on_report(sent[2], PUBLISHED, 1, 8);
}

static void what_was_too_large_together_goes_alone(void **state)
{
    (void)state;
    results[0] = results[1] = results[2] = PUBLISH_TOO_LARGE;
    results[4] = PUBLISH_TOO_LARGE;
    struct shipment *shipment = make();
    shipment_send(shipment, clock_mono_us() + SECOND, SECOND);
    assert_int_equal(sent_count, 6);
    assert_int_equal(end(shipment, 0), PUBLISHED);
    assert_int_equal(end(shipment, 1), PUBLISH_TOO_LARGE);
    assert_int_equal(end(shipment, 2), PUBLISHED);
    shipment_free(shipment);
}

/* Whether it is too large by itself is found out by the next shipment. */
static void what_was_too_large_together_is_not_when_others_are_late(void **state)
{
    (void)state;
    results[0] = PUBLISH_TOO_LARGE;
    results[1] = PUBLISH_NOT_TRIED;
    struct shipment *shipment = make();
    shipment_send(shipment, clock_mono_us() + SECOND, SECOND / 10);
    assert_int_equal(sent_count, 3);
    assert_int_equal(end(shipment, 0), PUBLISH_NOT_TRIED);
    assert_int_equal(end(shipment, 1), PUBLISH_UNDECIDED);
    shipment_free(shipment);
    sent[1]->on_report(sent[1], PUBLISH_UNDECIDED, 1, -1);
}

static void who_is_late_alone_leaves_the_others_untried(void **state)
{
    (void)state;
    results[0] = results[1] = PUBLISH_TOO_LARGE;
    results[3] = PUBLISH_NOT_TRIED; /* the first one, alone */
    struct shipment *shipment = make();
    shipment_send(shipment, clock_mono_us() + SECOND, SECOND / 10);
    assert_int_equal(sent_count, 4);
    assert_int_equal(end(shipment, 0), PUBLISH_UNDECIDED);
    assert_int_equal(end(shipment, 1), PUBLISH_NOT_TRIED);
    assert_int_equal(end(shipment, 2), PUBLISHED);
    shipment_free(shipment);
    sent[3]->on_report(sent[3], PUBLISH_UNDECIDED, 1, -1);
}

static void nothing_is_sent_when_others_may_look_for_it(void **state)
{
    (void)state;
    struct shipment *shipment = make();
    shipment_send(shipment, clock_mono_us() - 1, SECOND);
    assert_int_equal(sent_count, 0);
    for (size_t i = 0; i < ROWS; i++)
        assert_int_equal(end(shipment, i), PUBLISH_NOT_TRIED);
    shipment_free(shipment);
}

static void the_clock_is_looked_at_before_each(void **state)
{
    (void)state;
    send_takes_us = SECOND / 5; /* stopped in the first sending */
    struct shipment *shipment = make();
    shipment_send(shipment, clock_mono_us() + SECOND / 10, SECOND);
    assert_int_equal(sent_count, 1);
    assert_int_equal(end(shipment, 0), PUBLISHED);
    assert_int_equal(end(shipment, 1), PUBLISH_NOT_TRIED);
    assert_int_equal(end(shipment, 2), PUBLISH_NOT_TRIED);
    shipment_free(shipment);
}

static void too_late_to_go_alone_is_not_too_large(void **state)
{
    (void)state;
    results[0] = PUBLISH_TOO_LARGE;
    send_takes_us = SECOND / 10;
    struct shipment *shipment = make();
    shipment_send(shipment, clock_mono_us() + SECOND / 4, SECOND);
    assert_int_equal(sent_count, 3);
    assert_int_equal(end(shipment, 0), PUBLISH_NOT_TRIED);
    shipment_free(shipment);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, finish)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(each_row_ends_as_it_is_reported),
        TEST(what_is_not_reported_is_purged_and_undecided),
        TEST(what_was_too_large_together_goes_alone),
        TEST(what_was_too_large_together_is_not_when_others_are_late),
        TEST(who_is_late_alone_leaves_the_others_untried),
        TEST(nothing_is_sent_when_others_may_look_for_it),
        TEST(the_clock_is_looked_at_before_each),
        TEST(too_late_to_go_alone_is_not_too_large),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
