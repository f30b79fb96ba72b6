/* The thread that takes over, against a fake Kafka and a fake Postgres: what is refused is taken
 * one by one, what can't even be set aside keeps only its partition, and the gate waits for
 * markers. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "unhold_bench.h"

static void batches_are_taken_whole(void **state)
{
    (void)state;
    start("mm", "abc", "de");
    run();
    assert_true(within_seconds(all_is_over));
    assert_int_equal(seen(&world.payloads[0]).taken, 3);
    assert_int_equal(seen(&world.payloads[0]).tries_whole, 1);
    assert_int_equal(seen(&world.payloads[0]).tries_each, 0);
    assert_true(gate_is_open(gate));
}

static void a_refused_event_is_set_aside_and_the_others_go_on(void **state)
{
    (void)state;
    long parked = metric(PARKED), marked = metric(MARKED), refused = metric(REFUSED);
    long doubles = metric(DOUBLES);
    start("mxm", "axc", "def");
    run();
    assert_true(within_seconds(all_is_over));
    assert_int_equal(seen(&world.payloads[0]).tries_whole, 1);
    assert_int_equal(seen(&world.payloads[0]).tries_each, 1);
    assert_int_equal(seen(&world.payloads[0]).refused, 1);
    assert_int_equal(seen(&world.payloads[1]).tries_each, 0);
    assert_int_equal(seen(&world.markers[0]).refused, 1);
    assert_true(gate_is_open(gate));
    assert_int_equal(metric(PARKED) - parked, 5);
    assert_int_equal(metric(MARKED) - marked, 2);
    assert_int_equal(metric(REFUSED) - refused, 2);
    assert_int_equal(metric(DOUBLES), doubles);
    assert_int_equal(metric(BLOCKED), 0);
}

static void a_marker_that_meets_a_copys_claim_is_a_possible_double(void **state)
{
    (void)state;
    long marked = metric(MARKED), doubles = metric(DOUBLES);
    start("mcmc", "c", "");
    run();
    assert_true(within_seconds(all_is_over));
    assert_int_equal(metric(MARKED) - marked, 4);
    assert_int_equal(metric(DOUBLES) - doubles, 2);
}

static void what_is_not_set_aside_keeps_only_its_partition(void **state)
{
    (void)state;
    start("", "axc", "def");
    world.wedged = true;
    run();
    assert_true(within_seconds(is_blocked));
    assert_true(within_seconds(second_is_over));
    assert_int_equal(seen(&world.payloads[0]).next, 0);
    assert_true(gate_is_open(gate));
    set(&world.wedged, false);
    assert_true(within_seconds(all_is_over));
    assert_int_equal(seen(&world.payloads[0]).refused, 1);
    assert_true(within_seconds(is_not_blocked));
}

static void the_gate_waits_for_a_marker_that_is_not_set_aside(void **state)
{
    (void)state;
    start("x", "", "");
    world.wedged = true;
    run();
    assert_true(within_seconds(is_blocked));
    assert_false(gate_is_open(gate));
    assert_int_equal(seen(&world.markers[0]).next, 0);
    set(&world.wedged, false);
    assert_true(within_seconds(all_is_over));
}

static void a_failure_of_the_server_sets_nothing_aside(void **state)
{
    (void)state;
    start("", "axc", "");
    world.away = true;
    run();
    assert_true(within_seconds(was_tried_thrice));
    assert_int_equal(seen(&world.payloads[0]).tries_each, 0);
    assert_int_equal(metric(BLOCKED), 0);
}

static void a_partition_without_a_leader_keeps_the_others_from_nothing(void **state)
{
    (void)state;
    start("m", "abc", "def");
    world.leaderless = true;
    run();
    assert_true(within_seconds(second_is_over));
    assert_int_equal(seen(&world.payloads[0]).next, 0);
    set(&world.leaderless, false);
    assert_true(within_seconds(all_is_over));
}

/* ---- the pace ---- */

#define HUNDRED                                                                                    \
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" \
    "aa"                                                                                           \
    "aaaaaa"

static bool hundred_are_taken(void)
{
    return seen(&world.payloads[0]).next == 100;
}

/* What is not there any more, or was taken by others, does not count. */
static void only_records_that_were_taken_count(void **state)
{
    (void)state;
    start("", HUNDRED, "");
    world.payloads[0].low = 99;
    config.hold.rate = 10;
    run();
    assert_true(within_seconds(hundred_are_taken));
    pthread_mutex_lock(&world.lock);
    world.payloads[0].records = HUNDRED "b";
    pthread_mutex_unlock(&world.lock);
    int64_t begin = clock_mono_us();
    assert_true(within_seconds(all_is_over));
    assert_in_range(clock_mono_us() - begin, 0, 4000000);
}

/* 100 at 10 a second. */
static void the_gate_does_not_wait_while_payloads_rest(void **state)
{
    (void)state;
    start("", HUNDRED, "");
    config.hold.rate = 10;
    run();
    assert_true(within_seconds(hundred_are_taken));
    pthread_mutex_lock(&world.lock);
    world.payloads[0].records = HUNDRED "b";
    world.markers[0].records = "m";
    pthread_mutex_unlock(&world.lock);
    gate_close(gate);
    int64_t begin = clock_mono_us();
    assert_true(within_seconds(is_open));
    assert_in_range(clock_mono_us() - begin, 0, 4000000);
    assert_int_equal(seen(&world.markers[0]).next, 1);
    assert_true(hundred_are_taken()); /* and no more */
}

static void few_are_taken_while_the_outbox_is_crowded(void **state)
{
    (void)state;
    start("", "aaaaaaaaaaaaaaaaaaaaaaaaa", "bbb");
    world.parked = 5000;
    run();
    int64_t begin = clock_mono_us();
    assert_true(within_seconds(second_is_over));
    assert_true(within_seconds(all_is_over));
    assert_in_range(clock_mono_us() - begin, 1500000, 9000000);
    assert_int_equal(seen(&world.payloads[0]).tries_whole, 3);
}

/* ---- a topic made anew ---- */

static void what_is_held_in_a_topic_made_anew_is_taken(void **state)
{
    (void)state;
    start("mm", "abc", "");
    world.payloads[0].next = world.markers[0].next = 500;
    run();
    assert_true(within_seconds(all_is_over));
    assert_true(gate_is_open(gate));
    assert_int_equal(seen(&world.payloads[0]).taken, 3);
    assert_int_equal(seen(&world.markers[0]).taken, 2);
}

static void an_empty_topic_made_anew_keeps_no_gate_closed(void **state)
{
    (void)state;
    start("", "", "");
    world.markers[0].next = world.payloads[0].next = 500;
    run();
    assert_true(within_seconds(all_is_over));
    assert_true(within_seconds(is_open));
}

/* It has outgrown the old offset already; but what this process deleted is there again. */
static void a_topic_made_anew_that_has_grown_is_taken_from_its_begin(void **state)
{
    (void)state;
    start("", "abc", "");
    run();
    assert_true(within_seconds(all_is_over));
    assert_int_equal(seen(&world.payloads[0]).low, 3);
    pthread_mutex_lock(&world.lock);
    world.payloads[0].records = "defgh";
    world.payloads[0].low = 0;
    pthread_mutex_unlock(&world.lock);
    assert_true(within_seconds(all_is_over));
    assert_int_equal(seen(&world.payloads[0]).taken, 8);
}

static void what_expired_is_counted(void **state)
{
    (void)state;
    long before = metric(LOST);
    start("", "abcde", "fgh");
    world.payloads[0].next = 1;
    world.payloads[0].low = 3;
    world.payloads[1].low = 2; /* nothing was ever taken over there: it may be no loss */
    run();
    assert_true(within_seconds(all_is_over));
    assert_int_equal(seen(&world.payloads[0]).taken, 2);
    assert_int_equal(metric(LOST) - before, 2);
}

static void a_row_that_is_gone_is_made_again(void **state)
{
    (void)state;
    start("mm", "abc", "");
    run();
    assert_true(within_seconds(all_is_over));
    pthread_mutex_lock(&world.lock);
    world.markers[0].next = world.payloads[0].next = -1;
    world.markers[0].records = "mmm";
    gate_close(gate);
    pthread_mutex_unlock(&world.lock);
    assert_true(within_seconds(is_open));
    assert_int_equal(seen(&world.markers[0]).next, 3);
    assert_int_equal(seen(&world.markers[0]).taken, 3);
}

/* ---- partitions come and go ---- */

static void set_counts(int32_t markers, int32_t payloads)
{
    pthread_mutex_lock(&world.lock);
    world.marker_count = markers;
    world.payload_count = payloads;
    pthread_mutex_unlock(&world.lock);
}

static bool added_is_taken(void)
{
    return seen(&world.markers[1]).next == 1 && seen(&world.payloads[2]).next == 2;
}

static void partitions_that_are_added_are_looked_for_when_the_gate_closes(void **state)
{
    (void)state;
    start("m", "abc", "");
    world.markers[1].records = "m";
    world.payloads[2].records = "de";
    run();
    assert_true(within_seconds(all_is_over));
    set_counts(2, 3);
    gate_close(gate);
    assert_true(within_seconds(is_open));
    assert_int_equal(seen(&world.markers[1]).next, 1); /* before the gate opened */
    assert_true(within_seconds(added_is_taken));
}

static bool last_is_taken(void)
{
    return seen(&world.payloads[PARTITIONS_MAX - 1]).next == 2;
}

static void there_may_be_many_partitions(void **state)
{
    (void)state;
    start("m", "abc", "");
    world.payload_count = PARTITIONS_MAX;
    world.payloads[PARTITIONS_MAX - 1].records = "de";
    run();
    assert_true(within_seconds(last_is_taken));
}

static bool one_has_a_row(void)
{
    pthread_mutex_lock(&world.lock);
    int32_t rows = world.rows_of_payloads;
    pthread_mutex_unlock(&world.lock);
    return rows == 1;
}

static bool first_is_over(void)
{
    struct log_of log = seen(&world.payloads[0]);
    return log.next == (int64_t)strlen(log.records);
}

static void a_topic_made_anew_with_fewer_partitions(void **state)
{
    (void)state;
    start("", "abc", "de");
    run();
    assert_true(within_seconds(all_is_over));
    assert_false(one_has_a_row());
    pthread_mutex_lock(&world.lock);
    world.payload_count = 1;
    world.payloads[0].records = "f";
    world.payloads[0].low = 0;
    pthread_mutex_unlock(&world.lock);
    assert_true(within_seconds(one_has_a_row));
    assert_true(within_seconds(first_is_over));
    assert_int_equal(seen(&world.payloads[0]).taken, 4);
}

static void without_markers_topic_there_are_no_markers(void **state)
{
    (void)state;
    start("m", "abc", "");
    world.marker_count = 0;
    run();
    usleep(500000);
    assert_false(gate_is_open(gate)); /* a broker that has just come up may not know it yet */
    assert_true(within_seconds(is_open));
    assert_in_range(seen(&world.markers[0]).next, 0, 0);
    pthread_mutex_lock(&world.lock);
    assert_in_range(world.missed, 1, 6);
    pthread_mutex_unlock(&world.lock);
    set_counts(1, 2);
    assert_true(within_seconds(all_is_over));
}

static bool was_missed_twice(void)
{
    pthread_mutex_lock(&world.lock);
    bool twice = world.missed >= 2;
    pthread_mutex_unlock(&world.lock);
    return twice;
}

/* Events can't be held then, which is when they have to be. */
static void a_topic_is_missed_while_postgres_is_away(void **state)
{
    (void)state;
    start("m", "abc", "");
    run();
    assert_true(within_seconds(all_is_over));
    assert_false(was_missed_twice());
    set(&world.no_session, true);
    set_counts(1, 0);
    int64_t begin = clock_mono_us();
    assert_true(within_seconds(was_missed_twice));
    assert_in_range(clock_mono_us() - begin, 900000, 4000000);
}

static void without_holding_topic_the_gate_opens(void **state)
{
    (void)state;
    start("m", "abc", "");
    world.payload_count = 0;
    run();
    int64_t begin = clock_mono_us();
    assert_true(within_seconds(is_open));
    assert_in_range(clock_mono_us() - begin, 0, 1500000);
    set_counts(1, 2);
    assert_true(within_seconds(all_is_over));
    pthread_mutex_lock(&world.lock);
    assert_in_range(world.missed, 1, 4);
    pthread_mutex_unlock(&world.lock);
}

int main(void)
{
    log_set_level(LOG_ERROR + 1);
    (void)metrics_shard_new(); /* so that all can be asked for */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(batches_are_taken_whole, finish),
        cmocka_unit_test_teardown(a_refused_event_is_set_aside_and_the_others_go_on, finish),
        cmocka_unit_test_teardown(a_marker_that_meets_a_copys_claim_is_a_possible_double, finish),
        cmocka_unit_test_teardown(what_is_not_set_aside_keeps_only_its_partition, finish),
        cmocka_unit_test_teardown(the_gate_waits_for_a_marker_that_is_not_set_aside, finish),
        cmocka_unit_test_teardown(a_failure_of_the_server_sets_nothing_aside, finish),
        cmocka_unit_test_teardown(a_partition_without_a_leader_keeps_the_others_from_nothing,
                                  finish),
        cmocka_unit_test_teardown(only_records_that_were_taken_count, finish),
        cmocka_unit_test_teardown(the_gate_does_not_wait_while_payloads_rest, finish),
        cmocka_unit_test_teardown(few_are_taken_while_the_outbox_is_crowded, finish),
        cmocka_unit_test_teardown(what_is_held_in_a_topic_made_anew_is_taken, finish),
        cmocka_unit_test_teardown(an_empty_topic_made_anew_keeps_no_gate_closed, finish),
        cmocka_unit_test_teardown(a_topic_made_anew_that_has_grown_is_taken_from_its_begin, finish),
        cmocka_unit_test_teardown(what_expired_is_counted, finish),
        cmocka_unit_test_teardown(a_row_that_is_gone_is_made_again, finish),
        cmocka_unit_test_teardown(partitions_that_are_added_are_looked_for_when_the_gate_closes,
                                  finish),
        cmocka_unit_test_teardown(there_may_be_many_partitions, finish),
        cmocka_unit_test_teardown(a_topic_made_anew_with_fewer_partitions, finish),
        cmocka_unit_test_teardown(without_markers_topic_there_are_no_markers, finish),
        cmocka_unit_test_teardown(a_topic_is_missed_while_postgres_is_away, finish),
        cmocka_unit_test_teardown(without_holding_topic_the_gate_opens, finish),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
