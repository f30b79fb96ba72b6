/* The drainer's thread against a fake outbox, publisher and search: which topics it takes rows for,
 * how it goes on beside a partition that is dead, and how it decides what is undecided. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "drain.h"

#include "clock.h"
#include "config.h"
#include "log.h"
#include "metrics.h"
#include "outbox.h"
#include "parking.h"
#include "publisher.h"
#include "search.h"
#include "shown.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#define SECOND INT64_C(1000000)

/* ---- fake outbox: rows of some topics wait for ever ---- */

/* DYING: two partitions, of which 0 is dead. ASKED: one undecided row, once. */
enum { FORMER, GOOD, REFUSED, DYING, ASKED, TOPICS };
static const char *const names[TOPICS] = {"former", "good", "refused", "dying", "asked"};
static bool waits[TOPICS]; /* for which of them */
static _Atomic int looks, takes[TOPICS];
static _Atomic int probes, singles, shipments; /* of DYING: of partition 0; of any; of several */
static _Atomic bool asked_for, asks_ready;
static struct outbox_row undecided;
static struct outbox_verdict verdict;
static _Atomic int verdicts;
static char some; /* what fakes are made of */

struct outbox *outbox_new(struct loop *loop, const struct config *config)
{
    (void)loop, (void)config;
    return (struct outbox *)&some;
}

void outbox_free(struct outbox *outbox)
{
    (void)outbox;
}

bool outbox_is_ready(const struct outbox *outbox)
{
    (void)outbox;
    return true;
}

const char *outbox_reason(const struct outbox *outbox)
{
    (void)outbox;
    return "";
}

bool outbox_look(struct outbox *outbox, struct outbox_look *ret)
{
    (void)outbox;
    *ret = (struct outbox_look){0};
    for (int i = 0; i < TOPICS; i++) {
        if (!waits[i])
            continue;
        struct outbox_topic *topic = &ret->topics[ret->count++];
        snprintf(topic->name, sizeof topic->name, "%s", names[i]);
        topic->ready = i == ASKED ? atomic_load(&asks_ready) : 10;
        topic->undecided = i == ASKED;
    }
    atomic_fetch_add(&looks, 1);
    return true;
}

static void take_dying(const struct outbox_wanted *wanted, struct outbox_rows *ret)
{
    static const char *const keys[] = {"0", "1"};
    bool skips_0 = wanted->skipped_count > 0;
    if (wanted->partition == 0)
        atomic_fetch_add(&probes, 1);
    else if (wanted->count == 1)
        atomic_fetch_add(&singles, 1);
    else
        atomic_fetch_add(&shipments, 1);
    ret->count = wanted->count < 2 ? 1 : 2;
    ret->rows = xcalloc(ret->count, sizeof *ret->rows);
    for (size_t i = 0; i < ret->count; i++) { /* the oldest is the dead one's */
        int32_t partition = skips_0 || i > 0 ? 1 : 0;
        ret->rows[i] =
            (struct outbox_row){.key = slice_of(keys[partition]), .key_partition = partition};
    }
}

bool outbox_take(struct outbox *outbox, const struct outbox_wanted *wanted, int64_t record_wall_us,
                 struct outbox_rows *ret)
{
    (void)outbox, (void)record_wall_us;
    *ret = (struct outbox_rows){0}; /* others have them: they come again with the next look */
    for (int i = 0; i < TOPICS; i++) {
        if (strcmp(wanted->topic, names[i]) == 0)
            atomic_fetch_add(&takes[i], 1);
    }
    if (strcmp(wanted->topic, names[DYING]) == 0)
        take_dying(wanted, ret);
    return true;
}

bool outbox_take_undecided(struct outbox *outbox, const char *topic, int64_t age_us, size_t max,
                           struct outbox_rows *ret)
{
    (void)outbox, (void)age_us, (void)max;
    if (strcmp(topic, names[ASKED]) != 0 || !atomic_exchange(&asked_for, false))
        return false;
    *ret = (struct outbox_rows){.count = 1, .rows = xcalloc(1, sizeof *ret->rows)};
    ret->rows[0] = undecided;
    return true;
}

bool outbox_lock(struct outbox *outbox, const char *topic)
{
    (void)outbox, (void)topic;
    return true;
}

void outbox_unlock(struct outbox *outbox, const char *topic)
{
    (void)outbox, (void)topic;
}

bool outbox_settle(struct outbox *outbox, const struct outbox_rows *rows,
                   const struct outbox_verdict *ends, size_t *ret_gone)
{
    (void)outbox;
    *ret_gone = 0;
    if (rows->rows[0].undecided_since == undecided.undecided_since) {
        verdict = ends[0];
        atomic_fetch_add(&verdicts, 1);
    }
    return true;
}

void outbox_rows_release(struct outbox_rows *rows)
{
    free(rows->rows);
    *rows = (struct outbox_rows){0};
}

/* ---- fake search ---- */

static struct search_item item;
static enum search_result search_says;

struct search *search_start(const struct config *config, const char *topic,
                            const struct search_item *items, size_t count)
{
    (void)config;
    assert_string_equal(topic, names[ASKED]);
    assert_int_equal(count, 1);
    item = items[0];
    item.result = search_says;
    return (struct search *)&some;
}

bool search_is_done(const struct search *search)
{
    (void)search;
    return true;
}

const struct search_item *search_items(const struct search *search)
{
    (void)search;
    return &item;
}

void search_free(struct search *search)
{
    (void)search;
}

/* ---- fake publisher: partition 0 never acknowledges ---- */

static struct loop *drain_loop;

struct report {
    struct loop_task task;
    struct publish_op *op;
    enum publish_result result;
    int32_t partition;
};
static struct report dead[64]; /* what is purged */
static size_t dead_count;

static void on_due(struct loop_task *task)
{
    struct report *report = container_of(task, struct report, task);
    report->op->on_report(report->op, report->result, report->partition, 1);
    if (report < dead || report >= dead + 64)
        free(report);
}

struct publisher *publisher_new(struct loop *loop, const struct config *config,
                                struct metrics *metrics, char **ret_reason)
{
    (void)config, (void)metrics, (void)ret_reason;
    drain_loop = loop;
    return (struct publisher *)&some;
}

void publisher_free(struct publisher *publisher)
{
    (void)publisher;
}

bool publisher_is_up(const struct publisher *publisher)
{
    (void)publisher;
    return true;
}

struct topic *publisher_topic(struct publisher *publisher, const char *name)
{
    (void)publisher, (void)name;
    return NULL;
}

void publisher_send(struct publisher *publisher, struct topic *topic,
                    const struct publish_record *record, struct publish_op *op)
{
    (void)publisher, (void)topic;
    if (slice_is(record->key, "0")) {
        dead[dead_count++] = (struct report){{.run = on_due}, op, PUBLISH_UNDECIDED, 0};
        return;
    }
    struct report *report = xcalloc(1, sizeof *report);
    *report = (struct report){{.run = on_due}, op, PUBLISHED, 1};
    loop_defer(drain_loop, &report->task);
}

void publisher_purge(struct publisher *publisher)
{
    (void)publisher;
    for (size_t i = 0; i < dead_count; i++)
        loop_defer(drain_loop, &dead[i].task);
    dead_count = 0;
}

/* ---- the cases ---- */

static void on_heard(const char *topic, int32_t partition, void *context)
{
    (void)topic, (void)partition, (void)context;
}

static void reaches(_Atomic int *count, int goal)
{
    int64_t until = clock_mono_us() + 15 * SECOND;
    while (atomic_load(count) < goal && clock_mono_us() < until)
        usleep(5000);
    assert_true(atomic_load(count) >= goal);
}

/* For what goes on growing: it may have begun before. */
static void grows(_Atomic int *count, int by)
{
    reaches(count, atomic_load(count) + by);
}

static struct drain *drain;
static struct parking *parking;
static struct config config = {
    .park = {.rate = 1000000, .bytes = 1 << 20, .age_us = SECOND, .decide_after_us = 30 * SECOND}};

static int start(void **state)
{
    (void)state;
    log_set_level(LOG_ERROR + 1);
    memset(waits, 0, sizeof waits);
    for (int i = 0; i < TOPICS; i++)
        atomic_store(&takes[i], 0);
    return 0;
}

static void start_drain(void)
{
    parking = parking_new(&config);
    drain = drain_start(
        &(struct drain_options){.config = &config, .parking = parking, .on_heard = on_heard});
}

/* They stay until the process ends, and are no leaks: nobody else reads this. */
static struct drain *volatile ended[16];
static size_t ended_count;

static int stop(void **state)
{
    (void)state;
    drain_stop(drain);
    parking_free(parking);
    assert_true(ended_count < sizeof ended / sizeof *ended);
    ended[ended_count++] = drain;
    return 0;
}

static void rows_of_topics_that_nobody_names_are_sent_once_all_are_named(void **state)
{
    (void)state;
    waits[FORMER] = waits[GOOD] = waits[REFUSED] = true;
    start_drain();
    drain_topic_checked(drain, names[GOOD], 3);
    drain_topic_checked(drain, names[REFUSED], 0);
    grows(&takes[GOOD], 1);
    grows(&looks, 1);
    assert_int_equal(atomic_load(&takes[FORMER]), 0);
    drain_topics_named(drain);
    grows(&takes[FORMER], 2);
    assert_int_equal(atomic_load(&takes[REFUSED]), 0);
}

static void a_refused_topic_that_is_not_named_any_more_is_sent_to(void **state)
{
    (void)state;
    waits[GOOD] = waits[REFUSED] = true;
    start_drain();
    for (int i = 0; i < 2; i++) {
        drain_topic_checked(drain, names[REFUSED], 0);
        drain_topics_named(drain);
    }
    grows(&looks, 2);
    assert_int_equal(atomic_load(&takes[REFUSED]), 0);
    drain_topics_named(drain);
    grows(&takes[REFUSED], 1);
}

static void there_may_be_many_topics(void **state)
{
    (void)state;
    waits[GOOD] = true;
    start_drain();
    for (int i = 0; i < 100; i++) {
        char name[16];
        snprintf(name, sizeof name, "n%d", i);
        drain_topic_checked(drain, name, 3);
    }
    drain_topic_checked(drain, names[GOOD], 3);
    drain_topics_named(drain);
    grows(&takes[GOOD], 1);
    drain_topics_named(drain); /* and all are forgotten */
    grows(&looks, 2);
    grows(&takes[GOOD], 2);
}

static void a_dead_partition_stops_no_other(void **state)
{
    (void)state;
    waits[DYING] = true;
    int first = atomic_load(&singles);
    start_drain();
    drain_topic_checked(drain, names[DYING], 2);
    drain_topics_named(drain);
    reaches(&singles, first + 2); /* the first is the dead one's, the second is not */
    grows(&shipments, 1);
    grows(&probes, 1);
    int before = atomic_load(&singles);
    grows(&probes, 1);
    grows(&shipments, 2);
    assert_int_equal(atomic_load(&singles), before);
}

static long doubles(void)
{
    return metric("\nhookgate_possible_doubles_total{cause=\"drain\"} ");
}

/* Is a row of this age asked for as idle? Its fence is as told. */
static bool is_idle(int64_t age_us, int64_t record_us, int64_t marked_us, int64_t fence_us)
{
    undecided = (struct outbox_row){.record_wall_us = record_us,
                                    .undecided_since = marked_us,
                                    .undecided_us = age_us,
                                    .sent_partition = 4};
    int before = atomic_load(&verdicts);
    atomic_store(&asked_for, true);
    grows(&verdicts, 1);
    assert_int_equal(atomic_load(&verdicts), before + 1);
    assert_int_equal(item.partition, 4);
    assert_int_equal(item.wall_us, record_us);
    assert_int_equal(item.fence_us, fence_us);
    return item.idle;
}

static void what_is_undecided_waits_for_a_fence(void **state)
{
    (void)state;
    waits[ASKED] = true;
    start_drain();
    long before = doubles();
    search_says = SEARCH_UNKNOWN;
    assert_false(is_idle(90 * SECOND, 1000 * SECOND, 1001 * SECOND, 1036 * SECOND));
    assert_int_equal(verdict.end, OUTBOX_STAYS);
    search_says = SEARCH_ABSENT;
    assert_true(is_idle(91 * SECOND, 1002 * SECOND, 1001 * SECOND, 1037 * SECOND));
    assert_int_equal(verdict.end, OUTBOX_RELEASED);
    assert_int_equal(doubles(), before);
    search_says = SEARCH_LIKELY_ABSENT;
    assert_true(is_idle(91 * SECOND, 1003 * SECOND, 1000 * SECOND, 1038 * SECOND));
    assert_int_equal(verdict.end, OUTBOX_RELEASED);
    grows(&looks, 1);
    assert_int_equal(doubles(), before + 1);
    atomic_store(&asks_ready, true); /* and Kafka has not taken any */
    grows(&looks, 2);
    assert_false(is_idle(91 * SECOND, 1004 * SECOND, 1000 * SECOND, 1039 * SECOND));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)
    const struct CMUnitTest tests[] = {
        TEST(rows_of_topics_that_nobody_names_are_sent_once_all_are_named),
        TEST(a_refused_topic_that_is_not_named_any_more_is_sent_to),
        TEST(there_may_be_many_topics),
        TEST(a_dead_partition_stops_no_other),
        TEST(what_is_undecided_waits_for_a_fence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
