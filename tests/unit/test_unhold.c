/* The thread that takes over, against a fake Kafka and a fake Postgres: what is refused is taken
 * one by one, what can't even be set aside keeps only its partition, and the gate waits for
 * markers. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "unhold.h"

#include "clock.h"
#include "config.h"
#include "gate.h"
#include "log.h"
#include "metrics.h"
#include "reader.h"
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
    *ret_count = 0;
    return true;
}

/* ---- the bench ---- */

static const struct config config = {
    .hold = {.topic = "hold", .markers = "markers", .rate = 1000000}};
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
    world.wedged = world.away = world.no_session = false;
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

static long metric(const char *name)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    metrics_render(out);
    fclose(out);
    const char *line = strstr(text, name);
    assert_non_null(line);
    long value = strtol(line + strlen(name), NULL, 10);
    free(text);
    return value;
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

/* ---- the cases ---- */

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
