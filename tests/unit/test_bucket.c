/* Failed signatures per source address, against a clock of the test's own. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "bucket.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#define S INT64_C(1000000)
#define START (1000 * 60 * S)

static struct buckets *buckets;

static int setup(void **state)
{
    (void)state;
    buckets = buckets_new();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    buckets_free(buckets);
    return 0;
}

static enum bucket_verdict add(const char *text, int64_t limit, int64_t now_us)
{
    struct address source;
    assert_true(address_parse(slice_of(text), &source));
    return buckets_add(buckets, &source, limit, now_us);
}

static void spills_beyond_its_limit(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++)
        assert_int_equal(add("192.0.2.1", 10, START + i * S), BUCKET_HOLDS);
    assert_int_equal(add("192.0.2.1", 10, START + 11 * S), BUCKET_SPILLS_NOW);
    assert_int_equal(add("192.0.2.1", 10, START + 12 * S), BUCKET_SPILLS);
    assert_int_equal(add("192.0.2.2", 10, START + 12 * S), BUCKET_HOLDS);
    assert_int_equal(add("192.0.2.1", 100, START + 12 * S), BUCKET_HOLDS); /* a reload counts */
}

static void slides(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++)
        add("192.0.2.1", 10, START + 59 * S);
    /* A quarter into the next minute three quarters of them still count. */
    assert_int_equal(add("192.0.2.1", 7, START + 75 * S), BUCKET_SPILLS_NOW);
    assert_int_equal(add("192.0.2.1", 10, START + 75 * S), BUCKET_HOLDS);
    /* At its end nearly none, two minutes later none at all. */
    assert_int_equal(add("192.0.2.1", 4, START + 119 * S), BUCKET_HOLDS);
    assert_int_equal(add("192.0.2.1", 1, START + 240 * S), BUCKET_HOLDS);
}

static void is_told_once_a_minute(void **state)
{
    (void)state;
    int told = 0;
    for (int64_t now = START; now < START + 180 * S; now += S / 2)
        told += add("192.0.2.1", 10, now) == BUCKET_SPILLS_NOW;
    assert_in_range(told, 3, 3);
}

static void ipv6_counts_by_its_64(void **state)
{
    (void)state;
    assert_int_equal(add("2001:db8::1", 1, START), BUCKET_HOLDS);
    assert_int_equal(add("2001:db8::ffff:1", 1, START), BUCKET_SPILLS_NOW);
    assert_int_equal(add("2001:db8:0:1::1", 1, START), BUCKET_HOLDS);
    assert_int_equal(add("192.0.2.1", 1, START), BUCKET_HOLDS);
    assert_int_equal(add("192.0.2.2", 1, START), BUCKET_HOLDS); /* IPv4 is kept whole */
}

static void who_fails_most_is_not_pushed_out(void **state)
{
    (void)state;
    for (int i = 0; i < 50; i++)
        add("192.0.2.1", 40, START);
    char text[32];
    for (int i = 0; i < 100000; i++) { /* far more than there are entries */
        snprintf(text, sizeof text, "10.%d.%d.%d", i >> 16, i >> 8 & 255, i & 255);
        assert_int_equal(add(text, 40, START + S), BUCKET_HOLDS);
    }
    assert_int_equal(add("192.0.2.1", 40, START + 2 * S), BUCKET_SPILLS);
}

/* A bad hash would put neighbours into a few sets, where they push each other out. */
static void neighbours_have_room_beside_each_other(void **state)
{
    (void)state;
    char text[64];
    int kept = 0;
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 4096; i++) {
            if (i % 2)
                snprintf(text, sizeof text, "10.7.%d.%d", i >> 8, i & 255);
            else
                snprintf(text, sizeof text, "2001:db8:%d:%d::1", i >> 8, i & 255);
            kept += add(text, 1, START) == BUCKET_SPILLS_NOW;
        }
    }
    assert_in_range(kept, 3900, 4096);
}

static void *hammer(void *unused)
{
    (void)unused;
    for (int i = 0; i < 20000; i++)
        add("192.0.2.1", 1000000, START);
    return NULL;
}

static void threads_count_together(void **state)
{
    (void)state;
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, hammer, NULL), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(add("192.0.2.1", 80001, START), BUCKET_HOLDS);
    assert_int_equal(add("192.0.2.1", 80001, START), BUCKET_SPILLS_NOW);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(spills_beyond_its_limit),
        TEST(slides),
        TEST(is_told_once_a_minute),
        TEST(ipv6_counts_by_its_64),
        TEST(who_fails_most_is_not_pushed_out),
        TEST(threads_count_together),
        TEST(neighbours_have_room_beside_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
