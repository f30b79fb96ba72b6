/* The audit against a fake Kafka and a fake Postgres: what receipts, markers and records come to
 * when they are joined. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "audit.h"

#include "config.h"
#include "conninfo.h"
#include "held.h"
#include "reader.h"

#include <libpq-fe.h>

#include <endian.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define SINCE INT64_C(1700000000000000)

/* ---- the world: one topic, one of markers, one that holds; each has one partition ---- */

static struct {
    struct {
        int id;
        int64_t offset;
        const char *status;
    } receipts[8];
    size_t receipt_count, receipts_read;
    int records[8]; /* event ids by offset */
    int64_t low, end;
    struct held markers[8]; /* by offset */
    int64_t marker_low, marker_end, marker_next;
    int64_t held_end, held_next;
    bool expires_once; /* markers are deleted while they are read */
} world;

static struct event_id id_at(int number)
{
    return (struct event_id){.bytes = {(unsigned char)number, [15] = 1}};
}

static void receipt(int id, int64_t offset, const char *status)
{
    world.receipts[world.receipt_count].id = id;
    world.receipts[world.receipt_count].offset = offset;
    world.receipts[world.receipt_count++].status = status;
}

static void record(int id)
{
    world.records[world.end++] = id;
}

static void marker(int id, int64_t offset, int64_t received_wall_us)
{
    world.markers[world.marker_end++] = (struct held){.id = id_at(id),
                                                      .topic = slice_of("webhooks.test"),
                                                      .offset = offset,
                                                      .received_wall_us = received_wall_us};
}

/* ---- fake Kafka ---- */

struct reader_headers {
    char id[EVENT_ID_TEXT];
};

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
    (void)reader, (void)topic, (void)deadline_us;
    *ret_count = 1;
    return READER_OK;
}

enum reader_result reader_bounds(struct reader *reader, const char *topic, int32_t partition,
                                 int64_t deadline_us, int64_t *ret_low, int64_t *ret_end)
{
    (void)reader, (void)deadline_us;
    assert_int_equal(partition, 0);
    *ret_low = topic[0] == 'w' ? world.low : topic[0] == 'm' ? world.marker_low : 0;
    *ret_end = topic[0] == 'w' ? world.end : topic[0] == 'm' ? world.marker_end : world.held_end;
    return READER_OK;
}

enum reader_result reader_offset_at(struct reader *reader, const char *topic, int32_t partition,
                                    int64_t wall_us, int64_t deadline_us, int64_t *ret_offset)
{
    (void)reader, (void)topic, (void)partition, (void)deadline_us;
    assert_true(wall_us < SINCE);
    *ret_offset = 0;
    return READER_OK;
}

enum reader_result reader_read(struct reader *reader, const char *topic, int32_t partition,
                               int64_t from, int64_t end, int64_t deadline_us,
                               reader_visit_f *visit, void *context)
{
    (void)reader, (void)deadline_us;
    if (topic[0] == 'm' && world.expires_once) {
        world.expires_once = false;
        world.marker_low++;
        return READER_EXPIRED;
    }
    for (int64_t at = from; at < end; at++) {
        struct reader_headers headers;
        event_id_format(id_at(world.records[at]), headers.id);
        struct reader_record read = {.partition = partition, .offset = at, .headers = &headers};
        if (topic[0] == 'm')
            read.value = (struct slice){(const char *)&world.markers[at], sizeof world.markers[at]};
        assert_true(visit(&read, context));
    }
    return READER_OK;
}

bool reader_header(const struct reader_record *record, const char *name, struct slice *ret_value)
{
    *ret_value =
        slice_of(strcmp(name, "ce_id") == 0 ? record->headers->id : "2999-01-01T00:00:00.000000Z");
    return true;
}

bool held_read(const struct reader_record *record, bool is_marker, struct held *ret)
{
    assert_true(is_marker);
    memcpy(ret, record->value.ptr, record->value.len);
    return true;
}

void held_release(struct held *held)
{
    (void)held;
}

/* ---- fake Postgres ---- */

struct pg_result {
    ExecStatusType status;
    int rows, receipt; /* which one, of those */
    const char *values[2];
};

static struct {
    char bytes[16];
    int length;
} wire;

struct pg_conn *conninfo_connect(const char *text, const char *password_file, const char *options,
                                 char **ret_reason)
{
    (void)text, (void)password_file, (void)options, (void)ret_reason;
    return (struct pg_conn *)&world;
}

void PQfinish(PGconn *conn)
{
    (void)conn;
}

int PQsendQueryParams(PGconn *conn, const char *command, int count, const Oid *types,
                      const char *const *values, const int *lengths, const int *formats, int format)
{
    (void)conn, (void)command, (void)types, (void)values, (void)lengths, (void)formats;
    assert_int_equal(count, 1);
    return format;
}

int PQsetSingleRowMode(PGconn *conn)
{
    (void)conn;
    return 1;
}

PGresult *PQgetResult(PGconn *conn)
{
    (void)conn;
    if (world.receipts_read == world.receipt_count)
        return NULL;
    PGresult *result = xcalloc(1, sizeof *result);
    result->status = PGRES_SINGLE_TUPLE;
    result->receipt = (int)world.receipts_read++;
    return result;
}

/* Only asked how far the two holding topics are taken over. */
PGresult *PQexecParams(PGconn *conn, const char *command, int count, const Oid *types,
                       const char *const *values, const int *lengths, const int *formats,
                       int format)
{
    static char next[24];
    (void)conn, (void)count, (void)types, (void)lengths, (void)formats, (void)format;
    assert_non_null(strstr(command, "webhook_hold_offsets"));
    snprintf(next, sizeof next, "%lld",
             (long long)(values[0][0] == 'm' ? world.marker_next : world.held_next));
    PGresult *result = xcalloc(1, sizeof *result);
    *result = (PGresult){.status = PGRES_TUPLES_OK, .rows = 1, .values = {"0", next}};
    return result;
}

ExecStatusType PQresultStatus(const PGresult *result)
{
    return result->status;
}

int PQntuples(const PGresult *result)
{
    return result->rows;
}

static void put(const void *bytes, size_t size)
{
    memcpy(wire.bytes, bytes, size);
    wire.length = (int)size;
}

char *PQgetvalue(const PGresult *result, int row, int column)
{
    if (result->status == PGRES_TUPLES_OK)
        return (char *)(uintptr_t)result->values[column];
    assert_int_equal(row, 0);
    struct event_id id = id_at(world.receipts[result->receipt].id);
    uint32_t partition = 0;
    uint64_t offset = htobe64((uint64_t)world.receipts[result->receipt].offset);
    switch (column) {
    case 0:
        put(id.bytes, sizeof id.bytes);
        return wire.bytes;
    case 1:
        return (char *)(uintptr_t) "webhooks.test";
    case 2:
        put(&partition, sizeof partition);
        return wire.bytes;
    case 3:
        put(&offset, sizeof offset);
        return wire.bytes;
    default:
        return (char *)(uintptr_t)world.receipts[result->receipt].status;
    }
}

int PQgetlength(const PGresult *result, int row, int column)
{
    (void)PQgetvalue(result, row, column);
    return wire.length;
}

int PQgetisnull(const PGresult *result, int row, int column)
{
    (void)row;
    return column >= 2 && world.receipts[result->receipt].offset < 0;
}

void PQclear(PGresult *result)
{
    free(result);
}

/* ---- the bench ---- */

static struct audit_report report;

static int begin(void **state)
{
    (void)state;
    memset(&world, 0, sizeof world);
    return 0;
}

static void run(void)
{
    static const struct config config = {.hold = {.topic = "hold", .markers = "markers"}};
    const struct audit_options options = {
        .config = &config, .since_wall_us = SINCE, .deadline_us = INT64_MAX};
    assert_true(audit_run(&options, &report, stderr));
    assert_int_equal(report.unclaimed, 0);
    assert_int_equal(report.filled, 0);
}

/* ---- the cases ---- */

static void receipts_and_records_are_joined(void **state)
{
    (void)state;
    receipt(1, 0, "published");
    receipt(2, 7, "published"); /* not there */
    receipt(3, -1, "parked");
    receipt(4, -1, "stuck");
    record(1);
    world.held_next = 2;
    world.held_end = 5;
    run();
    assert_int_equal(report.acknowledged, 4);
    assert_int_equal(report.in_kafka, 1);
    assert_int_equal(report.missing, 1);
    assert_int_equal(report.missing_ids[0].bytes[0], 2);
    assert_int_equal(report.parked, 1);
    assert_int_equal(report.stuck, 1);
    assert_int_equal(report.held, 3);
}

static void a_marker_that_waits_is_acknowledged_and_held(void **state)
{
    (void)state;
    marker(1, 0, SINCE);
    marker(2, 1, SINCE);
    world.marker_next = 1; /* the first is taken over */
    receipt(1, 0, "published");
    record(1);
    record(2); /* not unclaimed */
    run();
    assert_int_equal(report.acknowledged, 2);
    assert_int_equal(report.in_kafka, 2);
    assert_int_equal(report.held, 1);
    assert_int_equal(report.missing, 0);
}

static void a_marker_whose_record_is_not_there_is_missing(void **state)
{
    (void)state;
    marker(1, 0, SINCE);
    marker(2, 5, SINCE);
    world.low = world.end = 5; /* what was before that the topic does not keep */
    run();
    assert_int_equal(report.acknowledged, 2);
    assert_int_equal(report.expired, 1);
    assert_int_equal(report.missing, 1);
    assert_int_equal(report.missing_ids[0].bytes[0], 2);
}

static void a_marker_whose_receipt_is_there_is_held_no_more(void **state)
{
    (void)state;
    marker(1, 0, SINCE); /* taken over after it was looked for, or a copy was */
    receipt(1, -1, "parked");
    run();
    assert_int_equal(report.acknowledged, 1);
    assert_int_equal(report.held, 0);
    assert_int_equal(report.parked, 1);
    assert_int_equal(report.missing, 0);
}

static void a_marker_from_before_the_beginning_is_held_only(void **state)
{
    (void)state;
    marker(1, 0, SINCE - 1);
    run();
    assert_int_equal(report.acknowledged, 0);
    assert_int_equal(report.missing, 0);
    assert_int_equal(report.held, 1);
}

static void markers_that_are_deleted_meanwhile_are_taken_over(void **state)
{
    (void)state;
    marker(1, 0, SINCE);
    marker(2, 1, SINCE);
    world.expires_once = true;
    receipt(1, 0, "published");
    record(1);
    record(2);
    run();
    assert_int_equal(report.acknowledged, 2);
    assert_int_equal(report.held, 1);
    assert_int_equal(report.in_kafka, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(receipts_and_records_are_joined, begin),
        cmocka_unit_test_setup(a_marker_that_waits_is_acknowledged_and_held, begin),
        cmocka_unit_test_setup(a_marker_whose_record_is_not_there_is_missing, begin),
        cmocka_unit_test_setup(a_marker_whose_receipt_is_there_is_held_no_more, begin),
        cmocka_unit_test_setup(a_marker_from_before_the_beginning_is_held_only, begin),
        cmocka_unit_test_setup(markers_that_are_deleted_meanwhile_are_taken_over, begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
