/* Searches of a fake Kafka, all at once because each waits for three seconds: what is found, what
 * is absent, and when neither may be said. A topic is named for its case. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "search.h"

#include "clock.h"
#include "log.h"
#include "reader.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#define SECOND INT64_C(1000000)
#define OURS "00112233-4455-6677-8899-aabbccddeeff"
#define OTHER "10112233-4455-6677-8899-aabbccddeeff"
#define PARTITIONS 2
#define ANY (-1)

/* ---- fake Kafka ---- */

struct record {
    const char *id;   /* NULL = none */
    int64_t after_us; /* made so long after ours */
};

/* As told before and after the pause. */
struct asked {
    bool unknown, late;
    int32_t count;
    struct reader_replicas replicas;
};

struct scenario {
    const char *name;
    int32_t partition; /* of the item */
    bool idle;
    struct asked asked[2];
    struct record records[PARTITIONS][3];
    bool hides;      /* all records, until the end of the partition was asked for once */
    bool unreadable; /* partition 0 is, at the end */
    enum search_result wanted;
    /* What the fake remembers. */
    _Atomic int shapes, bounds;
    struct search *search;
};

static struct scenario *scenario_of(const char *topic);
static int64_t began_us;

struct reader *reader_new(const struct config *config, char **ret_reason)
{
    (void)config, (void)ret_reason;
    return (struct reader *)&began_us;
}

void reader_free(struct reader *reader)
{
    (void)reader;
}

const char *reader_reason(const struct reader *reader)
{
    (void)reader;
    return "";
}

enum reader_result reader_replicas(struct reader *reader, const char *topic, int64_t deadline_us,
                                   int32_t *ret_count, struct reader_replicas **ret_replicas)
{
    (void)reader, (void)deadline_us;
    struct scenario *s = scenario_of(topic);
    const struct asked *asked = &s->asked[atomic_fetch_add(&s->shapes, 1)];
    if (asked->late || asked->unknown)
        return asked->late ? READER_LATE : READER_UNKNOWN;
    *ret_count = asked->count;
    *ret_replicas = xcalloc((size_t)asked->count, sizeof **ret_replicas);
    for (int32_t i = 0; i < asked->count; i++)
        (*ret_replicas)[i] = asked->replicas;
    return READER_OK;
}

static int64_t end_of(const struct scenario *s, int32_t partition)
{
    int64_t end = 0;
    while (end < 3 && s->records[partition][end].id != NULL)
        end++;
    return end;
}

enum reader_result reader_bounds(struct reader *reader, const char *topic, int32_t partition,
                                 int64_t deadline_us, int64_t *ret_low, int64_t *ret_end)
{
    (void)reader, (void)deadline_us;
    struct scenario *s = scenario_of(topic);
    bool first = atomic_fetch_add(&s->bounds, 1) == 0;
    *ret_low = 0;
    *ret_end = s->hides && first ? 0 : end_of(s, partition);
    return READER_OK;
}

/* As Kafka: the end when there is none. */
enum reader_result reader_offset_at(struct reader *reader, const char *topic, int32_t partition,
                                    int64_t wall_us, int64_t deadline_us, int64_t *ret_offset)
{
    (void)reader, (void)deadline_us;
    assert_int_equal(wall_us, began_us - SECOND);
    struct scenario *s = scenario_of(topic);
    *ret_offset = s->hides ? end_of(s, partition) : 0;
    return READER_OK;
}

bool reader_header(const struct reader_record *record, const char *name, struct slice *ret_value)
{
    assert_string_equal(name, "ce_id");
    *ret_value = record->value; /* it has nothing else */
    return true;
}

enum reader_result reader_read(struct reader *reader, const char *topic, int32_t partition,
                               int64_t from, int64_t end, int64_t deadline_us,
                               reader_visit_f *visit, void *context)
{
    (void)reader, (void)deadline_us;
    struct scenario *s = scenario_of(topic);
    for (int64_t offset = from; offset < end; offset++) {
        const struct record *record = &s->records[partition][offset];
        const struct reader_record seen = {.partition = partition,
                                           .offset = offset,
                                           .wall_us = began_us + record->after_us,
                                           .value = slice_of(record->id)};
        if (!visit(&seen, context))
            break;
    }
    return s->unreadable && partition == 0 ? READER_LATE : READER_OK;
}

/* ---- the cases: ours was made 100 s ago, and what was made 35 s later is a fence ---- */

#define FENCE                                                                                      \
    {                                                                                              \
        OTHER, 35 * SECOND                                                                         \
    }
#define BEFORE_IT                                                                                  \
    {                                                                                              \
        OTHER, 35 * SECOND - 1000                                                                  \
    }
#define THREE                                                                                      \
    {                                                                                              \
        3, 3                                                                                       \
    }
#define TWO                                                                                        \
    {                                                                                              \
        3, 2                                                                                       \
    }
#define LEFT_ALONE                                                                                 \
    {                                                                                              \
        3, 1                                                                                       \
    }
#define TOLD(...)                                                                                  \
    {                                                                                              \
        .count = PARTITIONS, .replicas = __VA_ARGS__                                               \
    }
#define TWICE(...)                                                                                 \
    {                                                                                              \
        TOLD(__VA_ARGS__), TOLD(__VA_ARGS__)                                                       \
    }

static struct scenario scenarios[] = {
    {.name = "found",
     .asked = TWICE(THREE),
     .records = {{{OTHER, 0}, {OURS, 0}, FENCE}},
     .wanted = SEARCH_FOUND},
    {.name = "behind a fence it is absent",
     .asked = TWICE(THREE),
     .records = {{FENCE}},
     .wanted = SEARCH_ABSENT},
    {.name = "what was made a little earlier is no fence",
     .asked = TWICE(THREE),
     .records = {{BEFORE_IT}},
     .wanted = SEARCH_UNKNOWN},
    {.name = "another partition's is none",
     .asked = TWICE(THREE),
     .records = {{{0}}, {FENCE}},
     .wanted = SEARCH_UNKNOWN},
    {.name = "what was made in the future is none",
     .asked = TWICE(THREE),
     .records = {{{OTHER, 3600 * SECOND}}},
     .wanted = SEARCH_UNKNOWN},
    {.name = "without other replicas there is nothing to wait for",
     .asked = TWICE({1, 1}),
     .wanted = SEARCH_ABSENT},
    {.name = "nor if there were some before",
     .asked = {TOLD(THREE), TOLD({1, 1})},
     .wanted = SEARCH_UNKNOWN},
    {.name = "idle, two in sync",
     .idle = true,
     .asked = TWICE(TWO),
     .wanted = SEARCH_LIKELY_ABSENT},
    {.name = "idle, but with a fence",
     .idle = true,
     .asked = TWICE(TWO),
     .records = {{FENCE}},
     .wanted = SEARCH_ABSENT},
    {.name = "idle, one in sync before",
     .idle = true,
     .asked = {TOLD(LEFT_ALONE), TOLD(THREE)},
     .wanted = SEARCH_UNKNOWN},
    {.name = "idle, one in sync after",
     .idle = true,
     .asked = {TOLD(THREE), TOLD(LEFT_ALONE)},
     .wanted = SEARCH_UNKNOWN},
    {.name = "idle, not read to the end",
     .idle = true,
     .unreadable = true,
     .asked = TWICE(THREE),
     .records = {{FENCE}},
     .wanted = SEARCH_UNKNOWN},
    {.name = "in any partition: all have a fence",
     .partition = ANY,
     .asked = TWICE(THREE),
     .records = {{FENCE}, {FENCE}},
     .wanted = SEARCH_ABSENT},
    {.name = "in any partition: one has none",
     .partition = ANY,
     .asked = TWICE(THREE),
     .records = {{FENCE}, {{OTHER, 0}}},
     .wanted = SEARCH_UNKNOWN},
    {.name = "in any partition: it is in the second",
     .partition = ANY,
     .asked = TWICE(THREE),
     .records = {{FENCE}, {{OURS, 0}}},
     .wanted = SEARCH_FOUND},
    {.name = "the topic is unknown, twice",
     .asked = {{.unknown = true}, {.unknown = true}},
     .wanted = SEARCH_ABSENT},
    {.name = "the topic is unknown, once",
     .asked = {{.unknown = true}, TOLD(THREE)},
     .records = {{{OURS, 0}}},
     .wanted = SEARCH_UNKNOWN},
    {.name = "the topic is unknown, then nobody tells",
     .asked = {{.unknown = true}, {.late = true}},
     .wanted = SEARCH_UNKNOWN},
    {.name = "the topic is unknown in the end",
     .asked = {TOLD(THREE), {.unknown = true}},
     .records = {{FENCE}},
     .wanted = SEARCH_UNKNOWN},
    {.name = "its partition is gone",
     .partition = 5,
     .asked = TWICE(THREE),
     .wanted = SEARCH_ABSENT},
    /* The brokers came back between the two questions. */
    {.name = "it becomes visible while the place to start at is asked for",
     .asked = TWICE(THREE),
     .hides = true,
     .records = {{{OURS, 0}, FENCE}},
     .wanted = SEARCH_FOUND},
};
#define SCENARIOS (sizeof scenarios / sizeof *scenarios)

static struct scenario *scenario_of(const char *topic)
{
    for (size_t i = 0; i < SCENARIOS; i++) {
        if (strcmp(scenarios[i].name, topic) == 0)
            return &scenarios[i];
    }
    abort();
}

static void each_is_decided_as_far_as_it_can_be(void **state)
{
    (void)state;
    struct event_id id;
    log_set_level(LOG_ERROR + 1);
    began_us = (clock_wall_us() / 1000 - 100000) * 1000;
    assert_true(event_id_parse(slice_of(OURS), &id));
    for (size_t i = 0; i < SCENARIOS; i++) {
        struct scenario *s = &scenarios[i];
        const struct search_item item = {.id = id,
                                         .partition = s->partition,
                                         .wall_us = began_us,
                                         .fence_us = began_us + 35 * SECOND,
                                         .idle = s->idle};
        s->search = search_start(NULL, s->name, &item, 1);
    }
    for (size_t i = 0; i < SCENARIOS; i++) {
        struct scenario *s = &scenarios[i];
        int64_t until = clock_mono_us() + 20 * SECOND;
        while (!search_is_done(s->search) && clock_mono_us() < until)
            usleep(10000);
        assert_true(search_is_done(s->search));
        if (search_items(s->search)->result != s->wanted)
            fail_msg("%s: %d, not %d", s->name, search_items(s->search)->result, s->wanted);
        search_free(s->search);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_is_decided_as_far_as_it_can_be)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
