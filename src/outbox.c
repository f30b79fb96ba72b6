/* The SQL behind outbox.h. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "outbox.h"

#include "clock.h"
#include "config.h"
#include "conninfo.h"
#include "log.h"
#include "pg_column.h"

#include <stdio.h>

/* The server gives up after 10 s; past this it is the server itself that hangs. */
#define ANSWER_US 12000000
#define TURN_MS 100

struct outbox {
    struct loop *loop;
    struct pg *pg;
    struct conninfo *conninfo;
    bool ready, answered, failed;
    PGresult *result; /* the last one with rows of the call under way */
    struct column columns[4];
    char reason[256];
};

static const struct pg_statement statements[] = {
    {"look", "SELECT kafka_topic, count(*) FILTER (WHERE undecided_since IS NULL),"
             " count(*) FILTER (WHERE undecided_since IS NOT NULL), sum(octet_length(body))::int8,"
             " max(octet_length(body))::int8,"
             " (extract(epoch FROM clock_timestamp() - min(parked_at)) * 1000000)::int8"
             " FROM mcp.webhook_outbox GROUP BY kafka_topic"
             " UNION ALL SELECT '', (SELECT count(*) FROM mcp.webhook_stuck)"
             " + (SELECT count(*) FROM mcp.webhook_refused), 0, 0, 0, 0"},
    {"take",
     "WITH taken AS MATERIALIZED (SELECT seq FROM mcp.webhook_outbox"
     " WHERE kafka_topic = $1 AND undecided_since IS NULL"
     " AND (key_partition IS NULL OR key_partition <> ALL ($2::int4[]))"
     " AND ($3::int4 < 0 OR key_partition = $3)"
     " ORDER BY seq LIMIT $4::int4 FOR UPDATE SKIP LOCKED)"
     " UPDATE mcp.webhook_outbox o SET undecided_since = clock_timestamp(), record_time = $5,"
     " sent_partition = NULL FROM taken t WHERE o.seq = t.seq"
     " RETURNING o.event_id, o.undecided_since, o.record_time, o.key_partition, o.sent_partition,"
     " o.record_key, o.record_headers, o.body"},
    {"take_undecided",
     "SELECT event_id, undecided_since, record_time, key_partition, sent_partition,"
     " (extract(epoch FROM clock_timestamp() - undecided_since) * 1000000)::int8"
     " FROM mcp.webhook_outbox WHERE kafka_topic = $1"
     " AND undecided_since < clock_timestamp() - $2::int8 * interval '1 microsecond'"
     " ORDER BY undecided_since LIMIT $3::int4"},
    {"lock", "SELECT pg_try_advisory_lock(hashtext('hookgate.undecided'), hashtext($1))::int"},
    {"unlock", "SELECT pg_advisory_unlock(hashtext('hookgate.undecided'), hashtext($1))::int"},
    {"published",
     "WITH gone AS (DELETE FROM mcp.webhook_outbox o"
     " USING unnest($1::uuid[], $2::int4[], $3::int8[]) AS u (id, partition, \"offset\")"
     " WHERE o.event_id = u.id"
     " RETURNING o.event_id, o.received_at, u.partition, u.\"offset\"),"
     " told AS (UPDATE mcp.webhook_events e SET status = 'published',"
     " kafka_partition = g.partition, kafka_offset = g.\"offset\" FROM gone g"
     " WHERE e.event_id = g.event_id AND e.received_at = g.received_at)"
     " SELECT count(*)::int FROM gone"},
    /* Only if nobody has marked it anew since. */
    {"release", "UPDATE mcp.webhook_outbox o SET undecided_since = NULL, record_time = NULL,"
                " sent_partition = NULL FROM unnest($1::uuid[], $2::timestamptz[]) AS u (id, since)"
                " WHERE o.event_id = u.id AND o.undecided_since = u.since"},
    {"stays", "UPDATE mcp.webhook_outbox o SET sent_partition = u.partition"
              " FROM unnest($1::uuid[], $2::timestamptz[], $3::int4[]) AS u (id, since, partition)"
              " WHERE o.event_id = u.id AND o.undecided_since = u.since"
              " AND o.sent_partition IS DISTINCT FROM u.partition"},
    {"stuck", "SELECT mcp.set_stuck($1::uuid[], $2)"},
    {NULL, NULL},
};

static void keep_reason(struct outbox *outbox, const char *text)
{
    snprintf(outbox->reason, sizeof outbox->reason, "%.*s", (int)strcspn(text, "\n"), text);
}

static void on_ready(void *context)
{
    struct outbox *outbox = context;
    outbox->ready = true;
}

static void on_result(void *context, PGresult *result)
{
    struct outbox *outbox = context;
    ExecStatusType status = PQresultStatus(result);
    if (status == PGRES_TUPLES_OK) {
        PQclear(outbox->result);
        outbox->result = result;
        return;
    }
    if (status != PGRES_COMMAND_OK && !outbox->failed) {
        outbox->failed = true;
        keep_reason(outbox, PQresultErrorMessage(result));
    }
    PQclear(result);
}

static void on_sync(void *context)
{
    struct outbox *outbox = context;
    outbox->answered = true;
}

static void on_lost(void *context, const char *reason)
{
    struct outbox *outbox = context;
    outbox->ready = false;
    outbox->failed = outbox->answered = true;
    keep_reason(outbox, reason);
}

static void on_warning(void *context)
{
    struct outbox *outbox = context;
    outbox->failed = true; /* a standby did not get it: not as durable as asked */
    keep_reason(outbox, "the statement ended with a warning");
}

static const struct pg_handler handler = {
    .on_ready = on_ready,
    .on_result = on_result,
    .on_sync = on_sync,
    .on_lost = on_lost,
    .on_unreachable = NULL, /* the lanes tell */
    .on_warning = on_warning,
};

struct outbox *outbox_new(struct loop *loop, const struct config *config)
{
    struct outbox *outbox = xcalloc(1, sizeof *outbox);
    outbox->loop = loop;
    /* outbox_lock() is the session's: that of a process that is stopped must end. One that runs
     * asks something every few seconds, also while it sends and while it searches. */
    outbox->conninfo =
        conninfo_new(config->postgres.conninfo, config->postgres.password_file,
                     "-c synchronous_commit=on -c statement_timeout=10s -c lock_timeout=2s"
                     " -c idle_in_transaction_session_timeout=10s -c idle_session_timeout=20s"
                     " -c jit=off -c client_min_messages=warning");
    outbox->pg = pg_new(loop, outbox->conninfo, statements, &handler, outbox);
    return outbox;
}

void outbox_free(struct outbox *outbox)
{
    if (outbox == NULL)
        return;
    pg_free(outbox->pg);
    conninfo_unref(outbox->conninfo);
    PQclear(outbox->result);
    for (size_t i = 0; i < sizeof outbox->columns / sizeof *outbox->columns; i++)
        column_release(&outbox->columns[i]);
    free(outbox);
}

bool outbox_is_ready(const struct outbox *outbox)
{
    return outbox->ready;
}

const char *outbox_reason(const struct outbox *outbox)
{
    return outbox->reason;
}

/* ---- one call ---- */

static void begin(struct outbox *outbox)
{
    outbox->answered = outbox->failed = false;
    PQclear(outbox->result);
    outbox->result = NULL;
}

/* Everything sent since begin() is one implicit transaction, ended by the sync. */
static bool finish(struct outbox *outbox)
{
    int64_t deadline = clock_mono_us() + ANSWER_US;
    if (!outbox->ready)
        return false;
    pg_sync(outbox->pg);
    while (!outbox->answered) {
        if (clock_mono_us() > deadline)
            pg_drop(outbox->pg, "the outbox was not answered in time");
        loop_turn(outbox->loop, TURN_MS);
    }
    if (!outbox->failed)
        pg_prove(outbox->pg);
    return !outbox->failed;
}

static struct slice get_bytes(const PGresult *result, int row, int column)
{
    return (struct slice){PQgetvalue(result, row, column),
                          (size_t)PQgetlength(result, row, column)};
}

bool outbox_look(struct outbox *outbox, struct outbox_look *ret)
{
    begin(outbox);
    pg_send(outbox->pg, "look", 0, NULL);
    if (!finish(outbox))
        return false;
    *ret = (struct outbox_look){0};
    const PGresult *result = outbox->result;
    for (int row = 0; row < PQntuples(result); row++) {
        struct slice name = get_bytes(result, row, 0);
        if (name.len == 0) {
            ret->stuck = column_int64_at(result, row, 1, 0);
            continue;
        }
        if (ret->count == OUTBOX_TOPICS_MAX || name.len >= sizeof ret->topics[0].name)
            continue; /* more topics than that are left for the next look */
        struct outbox_topic *topic = &ret->topics[ret->count++];
        memcpy(topic->name, name.ptr, name.len);
        topic->ready = column_int64_at(result, row, 1, 0);
        topic->undecided = column_int64_at(result, row, 2, 0);
        topic->bytes = column_int64_at(result, row, 3, 0);
        topic->largest = column_int64_at(result, row, 4, 0);
        topic->oldest_us = column_int64_at(result, row, 5, 0);
    }
    return true;
}

/* ---- rows ---- */

void outbox_rows_release(struct outbox_rows *rows)
{
    PQclear(rows->result);
    free(rows->rows);
    *rows = (struct outbox_rows){0};
}

static void take_rows(struct outbox *outbox, struct outbox_rows *ret)
{
    PGresult *result = outbox->result;
    outbox->result = NULL;
    ret->result = result;
    ret->count = (size_t)PQntuples(result);
    ret->rows = xcalloc(ret->count, sizeof *ret->rows);
    for (int i = 0; i < PQntuples(result); i++) {
        struct outbox_row *row = &ret->rows[i];
        memcpy(row->id.bytes, PQgetvalue(result, i, 0), sizeof row->id.bytes);
        row->undecided_since = column_int64_at(result, i, 1, 0) + PG_EPOCH_US;
        row->record_wall_us = column_int64_at(result, i, 2, 0) + PG_EPOCH_US;
        row->key_partition = column_int32_at(result, i, 3, -1);
        row->sent_partition = column_int32_at(result, i, 4, -1);
        if (PQnfields(result) == 6) {
            row->undecided_us = column_int64_at(result, i, 5, 0);
            continue;
        }
        row->key = get_bytes(result, i, 5);
        row->headers = get_bytes(result, i, 6);
        row->body = get_bytes(result, i, 7);
    }
}

bool outbox_take(struct outbox *outbox, const struct outbox_wanted *wanted, int64_t record_wall_us,
                 struct outbox_rows *ret)
{
    uint32_t partition, count;
    uint64_t time;
    struct column *skipped = &outbox->columns[0];
    column_begin(skipped, OID_INT4, wanted->skipped_count, false);
    for (size_t i = 0; i < wanted->skipped_count; i++)
        column_item_int32(skipped, wanted->skipped[i]);
    const struct pg_param params[] = {
        param_text(wanted->topic),
        column_param(skipped),
        param_int32(wanted->partition, &partition),
        param_int32((int32_t)wanted->count, &count),
        param_int64(record_wall_us - PG_EPOCH_US, &time),
    };
    begin(outbox);
    pg_send(outbox->pg, "take", 5, params);
    if (!finish(outbox))
        return false;
    take_rows(outbox, ret);
    return true;
}

bool outbox_take_undecided(struct outbox *outbox, const char *topic, int64_t age_us, size_t max,
                           struct outbox_rows *ret)
{
    uint64_t age;
    uint32_t count;
    const struct pg_param params[] = {param_text(topic), param_int64(age_us, &age),
                                      param_int32((int32_t)max, &count)};
    begin(outbox);
    pg_send(outbox->pg, "take_undecided", 3, params);
    if (!finish(outbox))
        return false;
    take_rows(outbox, ret);
    return true;
}

bool outbox_lock(struct outbox *outbox, const char *topic)
{
    struct pg_param param = param_text(topic);
    begin(outbox);
    pg_send(outbox->pg, "lock", 1, &param);
    return finish(outbox) && column_int32_at(outbox->result, 0, 0, -1) == 1;
}

void outbox_unlock(struct outbox *outbox, const char *topic)
{
    struct pg_param param = param_text(topic);
    begin(outbox);
    pg_send(outbox->pg, "unlock", 1, &param);
    (void)finish(outbox); /* a lost connection unlocks too */
}

/* ---- settling ---- */

static size_t count_ends(const struct outbox_verdict *verdicts, size_t count, enum outbox_end end)
{
    size_t found = 0;
    for (size_t i = 0; i < count; i++)
        found += verdicts[i].end == end;
    return found;
}

static void fill(struct outbox *outbox, const struct outbox_rows *rows,
                 const struct outbox_verdict *verdicts, enum outbox_end end)
{
    size_t count = count_ends(verdicts, rows->count, end);
    struct column *c = outbox->columns;
    column_begin(&c[0], OID_UUID, count, false);
    column_begin(&c[1], OID_TIMESTAMPTZ, count, false);
    column_begin(&c[2], OID_INT4, count, true);
    column_begin(&c[3], OID_INT8, count, true);
    for (size_t i = 0; i < rows->count; i++) {
        const struct outbox_verdict *v = &verdicts[i];
        if (v->end != end)
            continue;
        column_item(&c[0], rows->rows[i].id.bytes, sizeof rows->rows[i].id.bytes);
        column_item_int64(&c[1], rows->rows[i].undecided_since - PG_EPOCH_US);
        column_item_int32_or_null(&c[2], v->partition);
        column_item_int64_or_null(&c[3], v->offset);
    }
}

static void send_stuck(struct outbox *outbox, const struct outbox_rows *rows,
                       const struct outbox_verdict *verdicts)
{
    const char *reason = NULL;
    for (size_t i = 0; i < rows->count && reason == NULL; i++) {
        if (verdicts[i].end == OUTBOX_STUCK)
            reason = verdicts[i].reason;
    }
    assert(reason != NULL); /* whoever calls it stuck says why */
    fill(outbox, rows, verdicts, OUTBOX_STUCK);
    const struct pg_param params[] = {column_param(&outbox->columns[0]), param_text(reason)};
    pg_send(outbox->pg, "stuck", 2, params);
}

bool outbox_settle(struct outbox *outbox, const struct outbox_rows *rows,
                   const struct outbox_verdict *verdicts, size_t *ret_gone)
{
    const struct column *c = outbox->columns;
    begin(outbox);
    if (count_ends(verdicts, rows->count, OUTBOX_STUCK) > 0)
        send_stuck(outbox, rows, verdicts);
    if (count_ends(verdicts, rows->count, OUTBOX_RELEASED) > 0) {
        fill(outbox, rows, verdicts, OUTBOX_RELEASED);
        const struct pg_param params[] = {column_param(&c[0]), column_param(&c[1])};
        pg_send(outbox->pg, "release", 2, params);
    }
    if (count_ends(verdicts, rows->count, OUTBOX_STAYS) > 0) {
        fill(outbox, rows, verdicts, OUTBOX_STAYS);
        const struct pg_param params[] = {column_param(&c[0]), column_param(&c[1]),
                                          column_param(&c[2])};
        pg_send(outbox->pg, "stays", 3, params);
    }
    size_t published = count_ends(verdicts, rows->count, OUTBOX_PUBLISHED);
    if (published > 0) { /* last, so that its count is the result that is kept */
        fill(outbox, rows, verdicts, OUTBOX_PUBLISHED);
        const struct pg_param params[] = {column_param(&c[0]), column_param(&c[2]),
                                          column_param(&c[3])};
        pg_send(outbox->pg, "published", 3, params);
    }
    if (!finish(outbox))
        return false;
    *ret_gone = published > 0 ? published - (size_t)column_int32_at(outbox->result, 0, 0, -1) : 0;
    return true;
}
