/* The drainer's thread against a fake outbox and a fake publisher: which topics it takes rows for.
 */
/* SPDX-License-Identifier: Apache-2.0 */
#include "drain.h"

#include "clock.h"
#include "config.h"
#include "log.h"
#include "outbox.h"
#include "parking.h"
#include "publisher.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#define SECOND INT64_C(1000000)

/* ---- fake outbox: rows of three topics wait for ever ---- */

enum { FORMER, GOOD, REFUSED, TOPICS };
static const char *const names[TOPICS] = {"former", "good", "refused"};
static _Atomic int looks, takes[TOPICS];
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
    *ret = (struct outbox_look){.count = TOPICS};
    for (int i = 0; i < TOPICS; i++) {
        snprintf(ret->topics[i].name, sizeof ret->topics[i].name, "%s", names[i]);
        ret->topics[i].ready = 1;
    }
    atomic_fetch_add(&looks, 1);
    return true;
}

bool outbox_take(struct outbox *outbox, const struct outbox_wanted *wanted, int64_t record_wall_us,
                 struct outbox_rows *ret)
{
    (void)outbox, (void)record_wall_us;
    for (int i = 0; i < TOPICS; i++) {
        if (strcmp(wanted->topic, names[i]) == 0)
            atomic_fetch_add(&takes[i], 1);
    }
    *ret = (struct outbox_rows){0};
    return true; /* others have them: they come again with the next look */
}

bool outbox_take_undecided(struct outbox *outbox, const char *topic, int64_t age_us, size_t max,
                           struct outbox_rows *ret)
{
    (void)outbox, (void)topic, (void)age_us, (void)max, (void)ret;
    return false;
}

bool outbox_lock(struct outbox *outbox, const char *topic)
{
    (void)outbox, (void)topic;
    return false;
}

void outbox_unlock(struct outbox *outbox, const char *topic)
{
    (void)outbox, (void)topic;
}

bool outbox_settle(struct outbox *outbox, const struct outbox_rows *rows,
                   const struct outbox_verdict *verdicts, size_t *ret_gone)
{
    (void)outbox, (void)rows, (void)verdicts, (void)ret_gone;
    return false;
}

void outbox_rows_release(struct outbox_rows *rows)
{
    (void)rows;
}

/* ---- fake publisher ---- */

struct publisher *publisher_new(struct loop *loop, const struct config *config,
                                struct metrics *metrics, char **ret_reason)
{
    (void)loop, (void)config, (void)metrics, (void)ret_reason;
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
    (void)publisher, (void)topic, (void)record, (void)op;
}

void publisher_purge(struct publisher *publisher)
{
    (void)publisher;
}

/* ---- the case ---- */

static void on_heard(const char *topic, int32_t partition, void *context)
{
    (void)topic, (void)partition, (void)context;
}

static void grows(_Atomic int *count, int by)
{
    int before = atomic_load(count);
    int64_t until = clock_mono_us() + 10 * SECOND;
    while (atomic_load(count) < before + by && clock_mono_us() < until)
        usleep(5000);
    assert_true(atomic_load(count) >= before + by);
}

static struct drain *drain; /* it stays until the process ends */

static void rows_of_topics_that_nobody_names_are_sent_once_all_are_named(void **state)
{
    (void)state;
    log_set_level(LOG_ERROR + 1);
    struct config config = {.park = {.rate = 1000000, .bytes = 1 << 20, .age_us = SECOND}};
    struct parking *parking = parking_new(&config);
    drain = drain_start(
        &(struct drain_options){.config = &config, .parking = parking, .on_heard = on_heard});
    drain_topic_checked(drain, names[GOOD], 3);
    drain_topic_checked(drain, names[REFUSED], 0);
    grows(&takes[GOOD], 1);
    grows(&looks, 1);
    assert_int_equal(atomic_load(&takes[FORMER]), 0);
    drain_topics_named(drain);
    grows(&takes[FORMER], 2);
    assert_int_equal(atomic_load(&takes[REFUSED]), 0);
    drain_stop(drain);
    parking_free(parking);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_of_topics_that_nobody_names_are_sent_once_all_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
