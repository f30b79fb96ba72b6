/* For the tests of unhold: a fake Kafka and a fake Postgres, linked instead of the real ones. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "unhold.h"

#include "clock.h"
#include "config.h"
#include "gate.h"
#include "log.h"
#include "metrics.h"
#include "reader.h"
#include "shown.h"
#include "unhold_sql.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- partitions of payloads and of markers; a record is a letter ---- */

#define PARTITIONS_MAX 300

struct log_of {
    const char *records; /* 'x' = Postgres refuses it, 'c' = of a marker: a copy was claimed */
    int64_t low;         /* the first that is there */
    int64_t next;        /* taken over up to here; -1 = there is no row */
    int taken, refused, tries_whole, tries_each;
};

static struct {
    pthread_mutex_t lock;
    struct log_of payloads[PARTITIONS_MAX], markers[2];
    int32_t payload_count, marker_count; /* 0 = there is no such topic */
    int32_t rows_of_payloads;            /* unhold_sql_forget() was told so */
    int missed;
    bool wedged; /* and does not let it be set aside */
    bool away;   /* every batch fails, for no fault of its own */
    bool no_session;
    bool leaderless; /* the first partition of payloads */
    int parked;
    struct log_of *locked;
    bool was_refused;
} world = {.lock = PTHREAD_MUTEX_INITIALIZER};

static struct log_of *log_at(const char *topic, int32_t partition)
{
    assert_in_range(partition, 0, topic[0] == 'm' ? 1 : PARTITIONS_MAX - 1);
    return topic[0] == 'm' ? &world.markers[partition] : &world.payloads[partition];
}

static int32_t count_of(const char *topic)
{
    pthread_mutex_lock(&world.lock);
    int32_t count = topic[0] == 'm' ? world.marker_count : world.payload_count;
    pthread_mutex_unlock(&world.lock);
    return count;
}

static struct log_of seen(const struct log_of *log)
{
    pthread_mutex_lock(&world.lock);
    struct log_of copy = *log;
    pthread_mutex_unlock(&world.lock);
    return copy;
}

/* ---- fake Kafka ---- */

struct reader *reader_new(const struct config *config, char **ret_reason)
{
    (void)config, (void)ret_reason;
    return (struct reader *)&world;
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

enum reader_result reader_partitions(struct reader *reader, const char *topic, int64_t deadline_us,
                                     int32_t *ret_count)
{
    (void)reader, (void)deadline_us;
    *ret_count = count_of(topic);
    return *ret_count == 0 ? READER_UNKNOWN : READER_OK;
}

enum reader_result reader_bounds(struct reader *reader, const char *topic, int32_t partition,
                                 int64_t deadline_us, int64_t *ret_low, int64_t *ret_end)
{
    (void)reader, (void)deadline_us;
    if (partition >= count_of(topic))
        return READER_UNKNOWN;
    pthread_mutex_lock(&world.lock);
    bool leaderless = world.leaderless && log_at(topic, partition) == &world.payloads[0];
    pthread_mutex_unlock(&world.lock);
    if (leaderless)
        return READER_LATE;
    struct log_of log = seen(log_at(topic, partition));
    *ret_low = log.low;
    *ret_end = (int64_t)strlen(log.records);
    return READER_OK;
}

enum reader_result reader_read(struct reader *reader, const char *topic, int32_t partition,
                               int64_t from, int64_t end, int64_t deadline_us,
                               reader_visit_f *visit, void *context)
{
    (void)reader, (void)deadline_us;
    struct log_of log = seen(log_at(topic, partition));
    for (int64_t at = from; at < end; at++) {
        const struct reader_record record = {
            .partition = partition,
            .offset = at,
            .value = {log.records + at, 1},
        };
        if (!visit(&record, context))
            break;
    }
    return READER_OK;
}

enum reader_result reader_delete_before(struct reader *reader, const char *topic, int32_t partition,
                                        int64_t offset, int64_t deadline_us)
{
    (void)reader, (void)deadline_us;
    pthread_mutex_lock(&world.lock);
    struct log_of *log = log_at(topic, partition);
    log->low = log->low < offset ? offset : log->low;
    pthread_mutex_unlock(&world.lock);
    return READER_OK;
}

bool held_read(const struct reader_record *record, bool is_marker, struct held *ret)
{
    (void)is_marker;
    *ret = (struct held){.body = record->value};
    return true;
}

void held_release(struct held *held)
{
    held->body = (struct slice){0};
}

/* ---- fake Postgres ---- */

struct unhold_sql *unhold_sql_new(const struct config *config)
{
    (void)config;
    return (struct unhold_sql *)&world;
}

void unhold_sql_close(struct unhold_sql *sql)
{
    (void)sql;
}

void unhold_sql_wait(struct unhold_sql *sql, int timeout_ms)
{
    (void)sql, (void)timeout_ms;
    usleep(1000);
}

void unhold_sql_wake(struct unhold_sql *sql)
{
    (void)sql;
}

bool unhold_sql_is_ready(const struct unhold_sql *sql)
{
    (void)sql;
    pthread_mutex_lock(&world.lock);
    bool ready = !world.no_session;
    pthread_mutex_unlock(&world.lock);
    return ready;
}

unsigned unhold_sql_generation(const struct unhold_sql *sql)
{
    (void)sql;
    return 1;
}

bool unhold_sql_probe(struct unhold_sql *sql)
{
    (void)sql;
    return true;
}

bool unhold_sql_know(struct unhold_sql *sql, const char *topic, int32_t partition)
{
    (void)sql;
    pthread_mutex_lock(&world.lock);
    struct log_of *log = log_at(topic, partition);
    log->next = log->next < 0 ? 0 : log->next;
    pthread_mutex_unlock(&world.lock);
    return true;
}

bool unhold_sql_forget(struct unhold_sql *sql, const char *topic, int32_t partitions)
{
    (void)sql;
    pthread_mutex_lock(&world.lock);
    if (topic[0] != 'm')
        world.rows_of_payloads = partitions;
    pthread_mutex_unlock(&world.lock);
    return true;
}

bool unhold_sql_next(struct unhold_sql *sql, const char *topic, int32_t partition,
                     int64_t *ret_next)
{
    (void)sql;
    *ret_next = seen(log_at(topic, partition)).next;
    return true;
}

bool unhold_sql_lock(struct unhold_sql *sql, const char *topic, int32_t partition,
                     int64_t *ret_next)
{
    (void)sql;
    world.was_refused = false;
    assert_null(world.locked);
    *ret_next = seen(log_at(topic, partition)).next;
    if (*ret_next >= 0)
        world.locked = log_at(topic, partition);
    return true;
}

bool unhold_sql_take(struct unhold_sql *sql, const struct unhold_batch *batch,
                     struct unhold_taken *ret)
{
    (void)sql;
    struct log_of *log = log_at(batch->topic, batch->partition);
    assert_ptr_equal(world.locked, log);
    world.locked = NULL;
    int refused = 0, doubled = 0;
    for (size_t i = 0; i < batch->count; i++) {
        refused += batch->held[i].body.ptr[0] == 'x';
        doubled += batch->are_markers && batch->held[i].body.ptr[0] == 'c';
    }
    pthread_mutex_lock(&world.lock);
    log->tries_whole += batch->count > 0 && !batch->each;
    log->tries_each += batch->each;
    world.was_refused = !world.away && refused > 0 && (!batch->each || world.wedged);
    bool fine = !world.was_refused && (!world.away || batch->count == 0);
    if (fine) {
        log->taken += (int)batch->count - refused;
        log->refused += refused;
        log->next = batch->next;
    }
    pthread_mutex_unlock(&world.lock);
    *ret = (struct unhold_taken){
        .fresh = (int)batch->count - refused, .doubled = doubled, .refused = refused};
    return fine;
}

bool unhold_sql_was_refused(const struct unhold_sql *sql)
{
    (void)sql;
    return world.was_refused;
}

const char *unhold_sql_reason(const struct unhold_sql *sql)
{
    (void)sql;
    return "23514: a reason";
}

void unhold_sql_rollback(struct unhold_sql *sql)
{
    (void)sql;
    world.locked = NULL;
}

bool unhold_sql_parked(struct unhold_sql *sql, int max, int *ret_count)
{
    (void)sql, (void)max;
    *ret_count = world.parked;
    return true;
}

/* ---- the bench ---- */

static struct config config = {.hold = {.topic = "hold", .markers = "markers"}};
static struct gate *gate;
static struct unhold *unhold;

static void on_kafka(void *context)
{
    (void)context;
}

static void on_missing(void *context)
{
    (void)context;
    pthread_mutex_lock(&world.lock);
    world.missed++;
    pthread_mutex_unlock(&world.lock);
}

static void start(const char *markers, const char *first, const char *second)
{
    for (size_t i = 0; i < PARTITIONS_MAX; i++)
        world.payloads[i] = (struct log_of){.records = ""};
    world.payloads[0].records = first;
    world.payloads[1].records = second;
    world.markers[0] = (struct log_of){.records = markers};
    world.markers[1] = (struct log_of){.records = ""};
    world.payload_count = 2;
    world.marker_count = 1;
    world.missed = world.rows_of_payloads = 0;
    world.locked = NULL;
    world.wedged = world.away = world.no_session = world.leaderless = false;
    world.parked = 0;
    config.hold.rate = 1000000;
}

static void run(void)
{
    char *reason = NULL;
    gate = gate_new();
    const struct unhold_options options = {
        .config = &config, .gate = gate, .on_kafka = on_kafka, .on_missing = on_missing};
    unhold = unhold_start(&options, &reason);
    assert_non_null(unhold);
}

/* By their contract they stay until the process ends. Not static, so that no compiler finds them
 * unused and a leak checker finds them reachable. */
struct unhold *stopped[64];
size_t stopped_count;

static int finish(void **state)
{
    (void)state;
    unhold_stop(unhold);
    assert_true(stopped_count < sizeof stopped / sizeof *stopped);
    stopped[stopped_count++] = unhold;
    free(gate);
    return 0;
}

static void set(bool *what, bool value)
{
    pthread_mutex_lock(&world.lock);
    *what = value;
    pthread_mutex_unlock(&world.lock);
}

static bool within_seconds(bool (*is_so)(void))
{
    for (int64_t until = clock_mono_us() + 10000000; clock_mono_us() < until; usleep(2000)) {
        if (is_so())
            return true;
    }
    return is_so();
}

static bool all_is_over(void)
{
    const struct log_of *logs[] = {&world.payloads[0], &world.payloads[1], &world.markers[0]};
    bool all = true;
    for (size_t i = 0; i < 3; i++) {
        struct log_of log = seen(logs[i]);
        all &= log.next == (int64_t)strlen(log.records);
    }
    return all;
}

#define BLOCKED "\nhookgate_held_blocked_partitions "
#define REFUSED "\nhookgate_unheld_total{fate=\"refused\"} "
#define PARKED "\nhookgate_unheld_total{fate=\"parked\"} "
#define LOST "\nhookgate_held_lost_total "
#define MARKED "\nhookgate_unheld_total{fate=\"marked\"} "
#define DOUBLES "\nhookgate_possible_doubles_total{cause=\"store_lost\"} "

static bool is_open(void)
{
    return gate_is_open(gate);
}

static bool is_blocked(void)
{
    return metric(BLOCKED) == 1;
}

static bool is_not_blocked(void)
{
    return metric(BLOCKED) == 0;
}

static bool second_is_over(void)
{
    return seen(&world.payloads[1]).next == 3;
}

static bool was_tried_thrice(void)
{
    return seen(&world.payloads[0]).tries_whole >= 3;
}
