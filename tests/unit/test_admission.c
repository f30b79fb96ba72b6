/* Admission against a clock of the test's own and a pipeline that is a few lines of arithmetic. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "admission.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

#include <cmocka.h>

#define MS INT64_C(1000)
#define BATCH 100
#define QUEUE 4000
#define PATIENCE (1000 * MS)

static struct admission *admission;
static int64_t now;
static uint32_t queue[2 * QUEUE]; /* shares, in order */
static size_t queued;

static int setup(void **state)
{
    (void)state;
    admission = admission_new(&(struct admission_limits){QUEUE, PATIENCE}, NULL);
    now = 5 * 1000 * MS;
    queued = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    admission_free(admission);
    return 0;
}

static void put(uint32_t share, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        queue[queued++] = share;
        admission_queued(admission, share);
    }
}

static void take(int64_t at)
{
    size_t count = queued < BATCH ? queued : BATCH;
    now = at;
    for (size_t i = 0; i < count; i++)
        admission_unqueued(admission, queue[i]);
    queued -= count;
    memmove(queue, queue + count, queued * sizeof *queue);
    admission_taken(admission, count, now);
}

/* Offers one event; true when it came in. */
static bool offer(uint32_t share)
{
    if (admission_check(admission, 0, now) != ADMITTED ||
        admission_check_share(admission, share, now) != ADMITTED)
        return false;
    put(share, 1);
    return true;
}

static void estimates_by_full_batches(void **state)
{
    (void)state;
    put(1, 500);
    assert_int_equal(admission_wait_us(admission), 0); /* nothing is known yet */
    take(now);
    assert_int_equal(admission_wait_us(admission), 0);
    take(now + 50 * MS);
    assert_int_equal(admission_wait_us(admission), 3 * 50 * MS);
    take(now + 90 * MS); /* slower: believed by a quarter */
    assert_int_equal(admission_wait_us(admission), 2 * 60 * MS);
}

/* A quiet time, a pause between two events, a batch that nobody waited behind: none is a measure.
 */
static void forgets_when_nothing_waits(void **state)
{
    (void)state;
    put(1, 250);
    take(now);
    take(now + 400 * MS);
    assert_int_equal(admission_wait_us(admission), 200 * MS);
    take(now + 400 * MS);
    put(1, 300);
    assert_int_equal(admission_wait_us(admission), 0);
    take(now + 3000 * MS);
    assert_int_equal(admission_wait_us(admission), 0);
    take(now + 10 * MS);
    assert_int_equal(admission_wait_us(admission), 10 * MS);
}

static void a_burst_after_quiet_comes_in_whole(void **state)
{
    (void)state;
    for (int i = 0; i < 50; i++) { /* one event every 100 ms */
        assert_true(offer(1));
        take(now + 100 * MS);
    }
    for (uint32_t i = 0; i < QUEUE / 2; i++)
        assert_true(offer(i));
}

static void sheds_with_a_gap(void **state)
{
    (void)state;
    put(1, 1000);
    take(now);
    take(now + 50 * MS);
    assert_int_equal(admission_check(admission, 0, now), ADMITTED); /* 400 ms */
    put(2, 200);
    assert_int_equal(admission_check(admission, 0, now), SHED_QUEUE); /* 500 ms */
    take(now + 50 * MS);
    assert_int_equal(admission_check(admission, 0, now), SHED_QUEUE); /* 450 ms */
    take(now + 50 * MS);
    take(now + 50 * MS);
    assert_int_equal(admission_check(admission, 0, now), ADMITTED); /* 350 ms */
    put(2, 300);
    assert_int_equal(admission_check(admission, 0, now), SHED_QUEUE);
    while (queued > 0)
        take(now + 50 * MS);
    assert_int_equal(admission_check(admission, 0, now), ADMITTED);
}

static void a_full_queue_sheds_whatever_its_pace(void **state)
{
    (void)state;
    put(1, QUEUE);
    assert_int_equal(admission_check(admission, 0, now), SHED_QUEUE);
}

static void what_was_read_late_has_less_time(void **state)
{
    (void)state;
    assert_int_equal(admission_check(admission, PATIENCE - 1, now), ADMITTED);
    assert_int_equal(admission_check(admission, PATIENCE, now), SHED_LATE);
    put(1, 500);
    take(now);
    take(now + 50 * MS); /* 150 ms */
    assert_int_equal(admission_check(admission, PATIENCE - 151 * MS, now), ADMITTED);
    assert_int_equal(admission_check(admission, PATIENCE - 150 * MS, now), SHED_LATE);
    assert_int_equal(admission_check(admission, 0, now), ADMITTED);
}

/* Five seconds at three times what the pipeline takes. Returns how many batches were not full. */
static size_t overload(size_t flooding, size_t *ret_small_refused, size_t *ret_accepted,
                       int64_t *ret_longest)
{
    size_t starved = 0;
    *ret_small_refused = *ret_accepted = 0;
    *ret_longest = 0;
    for (int round = 0; round < 100; round++) { /* a batch each 50 ms */
        for (uint32_t i = 0; i < 3 * BATCH; i++) {
            bool small = i % 30 == 7;
            uint32_t share = small ? 1000 + i : i % (uint32_t)flooding;
            if (offer(share))
                (*ret_accepted)++;
            else if (small)
                (*ret_small_refused)++;
        }
        if (admission_wait_us(admission) > *ret_longest)
            *ret_longest = admission_wait_us(admission);
        starved += queued < BATCH;
        take(now + 50 * MS);
    }
    return starved;
}

static void one_that_floods_does_not_hurt_the_others(void **state)
{
    (void)state;
    size_t refused, accepted;
    int64_t longest;
    assert_int_equal(overload(1, &refused, &accepted, &longest), 0);
    assert_int_equal(refused, 0);
    assert_in_range(accepted, 100 * BATCH, 100 * BATCH + 600);
    assert_true(longest <= PATIENCE / 4 + 110 * MS);
}

static void three_that_flood_leave_room_too(void **state)
{
    (void)state;
    size_t refused, accepted;
    int64_t longest;
    assert_int_equal(overload(3, &refused, &accepted, &longest), 0);
    assert_int_equal(refused, 0);
    assert_true(longest < PATIENCE / 2);
}

/* A hundred that flood: the queue is bounded all the same, and the pipeline stays busy. */
static void the_wait_is_bounded_whoever_sends(void **state)
{
    (void)state;
    size_t refused, accepted;
    int64_t longest;
    assert_int_equal(overload(100, &refused, &accepted, &longest), 0);
    assert_true(longest <= PATIENCE / 2 + 50 * MS);
    assert_true(accepted >= 100 * BATCH);
}

static void workspaces_are_told_apart(void **state)
{
    (void)state;
    put(admission_share("flood"), QUEUE / 2);
    assert_int_equal(admission_check_share(admission, admission_share("flood"), now), SHED_SHARE);
    size_t taken_for_it = 0;
    char name[32];
    for (int i = 0; i < 1000; i++) {
        snprintf(name, sizeof name, "workspace-%d", i);
        taken_for_it += admission_check_share(admission, admission_share(name), now) != ADMITTED;
    }
    assert_int_equal(taken_for_it, 0);
    assert_int_not_equal(admission_share("a"), admission_share("b"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(estimates_by_full_batches),
        TEST(forgets_when_nothing_waits),
        TEST(a_burst_after_quiet_comes_in_whole),
        TEST(sheds_with_a_gap),
        TEST(a_full_queue_sheds_whatever_its_pace),
        TEST(what_was_read_late_has_less_time),
        TEST(one_that_floods_does_not_hurt_the_others),
        TEST(three_that_flood_leave_room_too),
        TEST(the_wait_is_bounded_whoever_sends),
        TEST(workspaces_are_told_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
