/* Sightings: keys, the bound of a table and its sums, telling and forgetting, and a book between
 * two threads (this program runs under TSan, too). */
/* SPDX-License-Identifier: Apache-2.0 */
#include "sighting.h"

#include "metrics.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

#include <cmocka.h>

#define NOON (INT64_C(1767009600) * 1000000) /* 2025-12-29 12:00 UTC */
#define HOUR_US INT64_C(3600000000)

static const unsigned char uuid[16] = {1, 2, 3};

static struct metrics *metrics(void)
{
    static struct metrics *shard;
    if (shard == NULL)
        shard = metrics_shard_new();
    return shard;
}

static struct sighting_key key_of(enum outcome outcome, const char *source)
{
    struct sighting_key key;
    sighting_key_of(&key, outcome, "zoom", NULL, source, NOON);
    return key;
}

static struct sighting_key numbered(unsigned number)
{
    char source[32];
    snprintf(source, sizeof source, "10.0.%u.%u", number / 256 % 256, number % 256);
    return key_of(OUTCOME_SIGNATURE_MISMATCH, source);
}

static void add(struct sightings *table, struct sighting_key key, uint64_t count, int64_t at)
{
    sightings_add(table, &key, count, at, at);
}

static uint64_t sum(struct sightings *table)
{
    uint64_t all = 0;
    for (size_t i = 0; i < sightings_count(table); i++)
        all += sightings_at(table, i)->count;
    return all;
}

static uint64_t counted(const char *fate)
{
    char *text = NULL, series[80];
    size_t size;
    FILE *out = open_memstream(&text, &size);
    metrics_render(out);
    fclose(out);
    snprintf(series, sizeof series, "\nhookgate_security_events_total{fate=\"%s\"} ", fate);
    const char *found = strstr(text, series);
    uint64_t value = found ? strtoull(found + strlen(series), NULL, 10) : 0;
    free(text);
    return value;
}

static void assert_source(const char *address, const char *wanted)
{
    char text[SIGHTING_SOURCE_TEXT] = "";
    struct sighting_key key = key_of(OUTCOME_SIGNATURE_MISMATCH, address);
    assert_int_equal(sighting_source_text(&key, text), wanted != NULL);
    assert_string_equal(text, wanted ? wanted : "");
}

/* Every refusal for want of authenticity is a sighting, and nothing else of what was accepted or
 * refused for its form. */
static void test_kinds(void **state)
{
    (void)state;
    for (int i = OUTCOME_NONE + 1; i < OUTCOME_COUNT; i++) {
        const struct outcome_info *info = outcome_info((enum outcome)i);
        if (info->http_status == 401)
            assert_non_null(sighting_kind((enum outcome)i));
        if (info->http_status >= 500 || info->http_status == 413)
            assert_null(sighting_kind((enum outcome)i));
    }
    assert_string_equal(sighting_kind(OUTCOME_TIMESTAMP_STALE), "timestamp");
    assert_string_equal(sighting_kind(OUTCOME_NO_SECRET), "signature");
    assert_string_equal(sighting_kind(OUTCOME_SOURCE_LIMITED), "signature");
    assert_string_equal(sighting_kind(OUTCOME_DUPLICATE), "replay");
    assert_string_equal(sighting_kind(OUTCOME_CHALLENGED), "challenge");
    assert_string_equal(sighting_kind(OUTCOME_CHALLENGE_REFUSED), "challenge");
    assert_string_equal(sighting_kind(OUTCOME_UNKNOWN_ENDPOINT), "endpoint");
    assert_null(sighting_kind(OUTCOME_ACCEPTED));
    assert_null(sighting_kind(OUTCOME_UNKNOWN_PLATFORM));
    assert_string_equal(sighting_word(OUTCOME_TIMESTAMP_STALE), "timestamp_stale");
    assert_string_equal(sighting_word(OUTCOME_DUPLICATE), "duplicate");
}

static void test_sources(void **state)
{
    (void)state;
    assert_source("192.0.2.17", "192.0.2.17");
    assert_source("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64");
    assert_source("::ffff:192.0.2.17", "192.0.2.17");
    assert_source("::1", "::/64");
    assert_source("fe80::1%eth0", NULL);
    assert_source("unix:", NULL);
    assert_source("", NULL);
    struct sighting_key one = key_of(OUTCOME_NO_SECRET, "2001:db8:1:2:3:4:5:6"),
                        other = key_of(OUTCOME_NO_SECRET, "2001:db8:1:2:ffff::");
    assert_memory_equal(&one, &other, sizeof one);
}

static void test_keys(void **state)
{
    (void)state;
    struct sighting_key key;
    sighting_key_of(&key, OUTCOME_SIGNATURE_MISMATCH, "zoom", uuid, "192.0.2.1", NOON + HOUR_US);
    assert_int_equal(key.hour, NOON / HOUR_US + 1);
    assert_true(key.has_integration);
    assert_memory_equal(key.integration, uuid, 16);
    /* Of replays the source alone. */
    sighting_key_of(&key, OUTCOME_DUPLICATE, "zoom", uuid, "192.0.2.1", NOON);
    assert_false(key.has_integration);
    assert_int_equal(key.integration[0], 0);
    /* A name that is too long is cut, and the key stays comparable. */
    char name[200];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    sighting_key_of(&key, OUTCOME_DUPLICATE, name, NULL, "192.0.2.1", NOON);
    assert_int_equal(strlen(key.platform), SIGHTING_PLATFORM_MAX - 1);
}

static void test_sums(void **state)
{
    (void)state;
    struct sightings *table = sightings_new(16, metrics());
    add(table, numbered(1), 1, NOON + 5);
    add(table, numbered(1), 2, NOON + 3);
    add(table, numbered(1), 1, NOON + 9);
    add(table, numbered(2), 1, NOON);
    add(table, key_of(OUTCOME_TIMESTAMP_STALE, "10.0.0.1"), 1, NOON);
    assert_int_equal(sightings_count(table), 3);
    struct sighting *first = sightings_at(table, 0);
    assert_int_equal(first->count, 4);
    assert_int_equal(first->first_us, NOON + 3);
    assert_int_equal(first->last_us, NOON + 9);
    sightings_free(table);
}

/* Three quarters for sources, then sums by platform and outcome, then nothing. */
static void test_bound(void **state)
{
    (void)state;
    struct sightings *table = sightings_new(16, metrics());
    uint64_t merged = counted("merged"), dropped = counted("dropped");
    for (unsigned i = 0; i < 100; i++)
        add(table, numbered(i), 1, NOON + i);
    assert_int_equal(sightings_count(table), 13);
    assert_int_equal(sum(table), 100);
    struct sighting *other = sightings_at(table, 12);
    assert_true(other->key.is_other);
    assert_int_equal(other->key.has_source, 0);
    assert_string_equal(other->key.platform, "zoom");
    assert_int_equal(other->count, 88);
    assert_int_equal(other->last_us, NOON + 99);
    /* Who is in goes on being summed by itself. */
    add(table, numbered(3), 1, NOON);
    assert_int_equal(sightings_at(table, 3)->count, 2);
    /* Sums of three more outcomes find a place, the fifth none. */
    enum outcome more[] = {OUTCOME_SIGNATURE_MISSING, OUTCOME_NO_SECRET, OUTCOME_TIMESTAMP_STALE,
                           OUTCOME_TIMESTAMP_FUTURE};
    for (size_t i = 0; i < sizeof more / sizeof *more; i++)
        add(table, key_of(more[i], "10.9.9.9"), 5, NOON);
    assert_int_equal(sightings_count(table), 16);
    assert_int_equal(sum(table), 101 + 15);
    assert_int_equal(counted("merged") - merged, 88 + 15);
    assert_int_equal(counted("dropped") - dropped, 5);
    sightings_free(table);
}

static void test_telling(void **state)
{
    (void)state;
    struct sightings *table = sightings_new(16, metrics());
    add(table, numbered(1), 3, NOON);
    sightings_at(table, 0)->told = 3;
    add(table, numbered(1), 2, NOON + 1); /* while it is on its way */
    sightings_settle(table, false);
    assert_int_equal(sightings_at(table, 0)->count, 5);
    sightings_at(table, 0)->told = 5;
    add(table, numbered(1), 1, NOON + 2);
    sightings_settle(table, true);
    assert_int_equal(sightings_at(table, 0)->count, 1);
    assert_int_equal(sightings_at(table, 0)->told, 0);
    sightings_free(table);
}

/* What is told and quiet goes; what is left is found again, and places are free again. */
static void test_forgetting(void **state)
{
    (void)state;
    struct sightings *table = sightings_new(64, metrics());
    for (unsigned i = 0; i < 100; i++)
        add(table, numbered(i), 1, NOON);
    for (size_t i = 0; i < sightings_count(table); i++)
        sightings_at(table, i)->told = i % 3 == 0 ? 0 : sightings_at(table, i)->count;
    sightings_settle(table, true);
    sightings_forget(table);
    assert_int_equal(sightings_count(table), 17); /* 16 of the 48 sources, and the sum */
    for (unsigned i = 0; i < 48; i += 3)
        add(table, numbered(i), 1, NOON);
    assert_int_equal(sightings_count(table), 17);
    for (size_t i = 0; i < 16; i++)
        assert_int_equal(sightings_at(table, i)->count, 2);
    for (unsigned i = 200; i < 300; i++)
        add(table, numbered(i), 1, NOON);
    assert_int_equal(sightings_count(table), 49);
    sightings_free(table);
}

static void test_a_book_that_nobody_reads(void **state)
{
    (void)state;
    struct sighting_book *book = sighting_book_new(16, metrics());
    struct sightings *all = sightings_new(16, metrics());
    struct sighting_key key = numbered(1);
    sighting_book_turn(book); /* nothing to hand over */
    for (int i = 0; i < 5; i++) {
        sighting_book_add(book, &key, NOON);
        sighting_book_turn(book);
    }
    sighting_book_read(book, all);
    assert_int_equal(sum(all), 1); /* the first; the others wait in the open one */
    sighting_book_read(book, all);
    assert_int_equal(sum(all), 1);
    sighting_book_turn(book);
    sighting_book_read(book, all);
    assert_int_equal(sum(all), 5);
    sighting_book_add(book, &key, NOON);
    sighting_book_turn(book);
    sightings_free(all);
    sighting_book_free(book); /* with one still handed over */
}

#define NOTES 200000

struct shared {
    struct sighting_book *book;
    atomic_bool done;
};

static void *fill(void *argument)
{
    struct shared *shared = argument;
    for (unsigned i = 0; i < NOTES; i++) {
        struct sighting_key key = numbered(i % 40);
        sighting_book_add(shared->book, &key, NOON + i);
        if (i % 100 == 0)
            sighting_book_turn(shared->book);
    }
    atomic_store(&shared->done, true);
    return NULL;
}

/* Nothing is lost or counted twice between the threads. */
static void test_two_threads(void **state)
{
    (void)state;
    struct shared shared = {.book = sighting_book_new(32, metrics())};
    struct sightings *all = sightings_new(1024, metrics());
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, fill, &shared), 0);
    while (!atomic_load(&shared.done))
        sighting_book_read(shared.book, all);
    pthread_join(thread, NULL);
    sighting_book_read(shared.book, all);
    sighting_book_turn(shared.book);
    sighting_book_read(shared.book, all);
    assert_int_equal(sum(all), NOTES);
    sightings_free(all);
    sighting_book_free(shared.book);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds),       cmocka_unit_test(test_sources),
        cmocka_unit_test(test_keys),        cmocka_unit_test(test_sums),
        cmocka_unit_test(test_bound),       cmocka_unit_test(test_telling),
        cmocka_unit_test(test_forgetting),  cmocka_unit_test(test_a_book_that_nobody_reads),
        cmocka_unit_test(test_two_threads),
    };
    return cmocka_run_group_tests_name("sighting", tests, NULL, NULL);
}
