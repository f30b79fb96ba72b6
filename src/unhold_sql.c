/* The statements of unhold_sql.h: the connection of pg.h, made blocking by a loop of its own that
 * is turned until the answer is there. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "unhold_sql.h"

#include "clock.h"
#include "config.h"
#include "log.h"
#include "pg.h"
#include "pg_column.h"

#include <stdio.h>

/* The server gives up after 5 s; past this it is the server itself that hangs. */
#define ANSWER_US 7000000
#define TURN_MS 100
#define COLUMNS 15

static const char session_options[] =
    "-c synchronous_commit=on -c statement_timeout=5s -c lock_timeout=0"
    " -c idle_in_transaction_session_timeout=5s -c jit=off -c client_min_messages=warning";

#define PLACE " WHERE kafka_topic = $1::text AND kafka_partition = $2::int4"

static const struct pg_statement statements[] = {
    {"begin", "BEGIN ISOLATION LEVEL READ COMMITTED"},
    {"unlimit", "SET LOCAL statement_timeout = 0"}, /* as in store.c */
    {"commit", "COMMIT"},
    {"rollback", "ROLLBACK"},
    {"probe", "SELECT mcp.probe()"},
    {"know", "INSERT INTO mcp.webhook_hold_offsets (kafka_topic, kafka_partition)"
             " VALUES ($1::text, $2::int4) ON CONFLICT DO NOTHING"},
    {"forget", "DELETE FROM mcp.webhook_hold_offsets"
               " WHERE kafka_topic = $1::text AND kafka_partition >= $2::int4"},
    {"next", "SELECT next_offset FROM mcp.webhook_hold_offsets" PLACE},
    {"lock", "SELECT next_offset FROM mcp.webhook_hold_offsets" PLACE " FOR UPDATE SKIP LOCKED"},
    {"move", "UPDATE mcp.webhook_hold_offsets SET next_offset = $3::int8,"
             " caught_up_at = CASE WHEN $4::int4 = 1 THEN now() ELSE caught_up_at END" PLACE},
    {"unhold", "SELECT mcp.unhold($1::uuid[], $2::text[], $3::uuid[], $4::text[], $5::text[],"
               " $6::text[], $7::bytea[], $8::int4[], $9::timestamptz[], $10::text[],"
               " $11::bytea[], $12::bytea[], $13::bytea[])"},
    {"mark", "SELECT mcp.apply_markers($1::uuid[], $2::text[], $3::uuid[], $4::text[], $5::text[],"
             " $6::text[], $7::bytea[], $8::int4[], $9::timestamptz[], $10::text[],"
             " $11::int4[], $12::int8[])"},
    {"each", "SELECT fresh, refused FROM mcp.unhold_each($16::int4, $1::uuid[], $2::bytea[],"
             " $3::uuid[], $4::bytea[], $5::bytea[], $6::bytea[], $7::bytea[], $8::int4[],"
             " $9::int8[], $10::bytea[], $11::int4[], $12::int8[], $13::bytea[], $14::bytea[],"
             " $15::bytea[])"},
    {"parked",
     "SELECT count(*)::int4 FROM (SELECT FROM mcp.webhook_outbox LIMIT $1::int4) AS counted"},
    {NULL, NULL},
};

struct unhold_sql {
    struct loop *loop;
    struct conninfo *conninfo;
    struct pg *pg;
    struct loop_task wake;
    bool ready, told_lost;
    unsigned generation;
    /* Of the question under way. */
    bool answered, failed, warned;
    bool refused;       /* failed by the data; kept over the rollback */
    int64_t numbers[2]; /* the last ones that came; -1 = none */
    char reason[256];
    struct column columns[COLUMNS];
};

/* ---- the connection ---- */

static void on_ready(void *context)
{
    struct unhold_sql *sql = context;
    sql->ready = true;
    sql->told_lost = false;
    sql->generation++;
}

static void keep_numbers(struct unhold_sql *sql, const PGresult *result)
{
    for (int i = 0; PQntuples(result) == 1 && i < PQnfields(result) && i < 2; i++) {
        if (PQgetlength(result, 0, i) == 8)
            sql->numbers[i] = column_int64_at(result, 0, i, -1);
        else if (PQgetlength(result, 0, i) == 4)
            sql->numbers[i] = column_int32_at(result, 0, i, -1);
    }
}

/* The event's fault, perhaps: mcp.unhold_each() catches the same classes. */
static bool is_of_the_data(const char *state)
{
    static const char classes[][3] = {"21", "22", "23", "44", "54", "P0"};
    for (size_t i = 0; state != NULL && i < sizeof classes / sizeof *classes; i++) {
        if (strncmp(state, classes[i], 2) == 0)
            return true;
    }
    return false;
}

static void on_result(void *context, PGresult *result)
{
    struct unhold_sql *sql = context;
    ExecStatusType status = PQresultStatus(result);
    if (status == PGRES_TUPLES_OK) {
        keep_numbers(sql, result);
    } else if (status != PGRES_COMMAND_OK && !sql->failed) {
        const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
        const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
        sql->failed = true;
        sql->refused = is_of_the_data(state);
        snprintf(sql->reason, sizeof sql->reason, "%s: %s", state ? state : "-----",
                 text ? text : "");
    }
    PQclear(result);
}

static void on_sync(void *context)
{
    struct unhold_sql *sql = context;
    sql->answered = true;
}

static void on_lost(void *context, const char *reason)
{
    struct unhold_sql *sql = context;
    sql->ready = false;
    sql->generation++;
    sql->failed = true;
    snprintf(sql->reason, sizeof sql->reason, "%s", reason);
}

static void on_unreachable(void *context, const char *reason)
{
    struct unhold_sql *sql = context;
    if (!sql->told_lost)
        log_event(LOG_WARNING, "unhold_unreachable", "Postgres can't be reached: %s", reason);
    sql->told_lost = true;
}

static void on_warning(void *context)
{
    struct unhold_sql *sql = context;
    sql->warned = true;
}

static const struct pg_handler pg_handler = {
    .on_ready = on_ready,
    .on_result = on_result,
    .on_sync = on_sync,
    .on_lost = on_lost,
    .on_unreachable = on_unreachable,
    .on_warning = on_warning,
};

/* ---- asking ---- */

static void ask(struct unhold_sql *sql)
{
    sql->answered = sql->failed = sql->warned = false;
    sql->numbers[0] = sql->numbers[1] = -1;
}

static bool is_answered(struct unhold_sql *sql)
{
    unsigned generation = sql->generation;
    int64_t due = clock_mono_us() + ANSWER_US;
    pg_sync(sql->pg);
    while (!sql->answered && sql->generation == generation && sql->ready) {
        if (clock_mono_us() >= due)
            pg_drop(sql->pg, "no answer in time");
        loop_turn(sql->loop, TURN_MS);
    }
    if (sql->answered && !sql->failed) {
        pg_prove(sql->pg);
        return true;
    }
    log_event(LOG_WARNING, "unhold_failed", "%s", sql->reason);
    return false;
}

struct place {
    uint32_t partition;
    struct pg_param params[2];
};

static void place_of(struct place *place, const char *topic, int32_t partition)
{
    place->params[0] = param_text(topic);
    place->params[1] = param_int32(partition, &place->partition);
}

bool unhold_sql_probe(struct unhold_sql *sql)
{
    ask(sql);
    pg_send(sql->pg, "probe", 0, NULL);
    return is_answered(sql);
}

/* One statement about a partition, or about those from it on. */
static bool ask_place(struct unhold_sql *sql, const char *statement, const char *topic,
                      int32_t partition)
{
    struct place place;
    place_of(&place, topic, partition);
    ask(sql);
    pg_send(sql->pg, statement, 2, place.params);
    return is_answered(sql);
}

bool unhold_sql_know(struct unhold_sql *sql, const char *topic, int32_t partition)
{
    return ask_place(sql, "know", topic, partition);
}

bool unhold_sql_forget(struct unhold_sql *sql, const char *topic, int32_t partitions)
{
    return ask_place(sql, "forget", topic, partitions);
}

bool unhold_sql_next(struct unhold_sql *sql, const char *topic, int32_t partition,
                     int64_t *ret_next)
{
    if (!ask_place(sql, "next", topic, partition))
        return false;
    *ret_next = sql->numbers[0];
    return true;
}

bool unhold_sql_lock(struct unhold_sql *sql, const char *topic, int32_t partition,
                     int64_t *ret_next)
{
    struct place place;
    place_of(&place, topic, partition);
    ask(sql);
    pg_send(sql->pg, "begin", 0, NULL);
    pg_send(sql->pg, "lock", 2, place.params);
    bool fine = is_answered(sql);
    *ret_next = sql->numbers[0];
    sql->refused = false;
    if (!fine || *ret_next < 0)
        unhold_sql_rollback(sql);
    return fine;
}

void unhold_sql_rollback(struct unhold_sql *sql)
{
    if (!sql->ready)
        return;
    ask(sql);
    pg_send(sql->pg, "rollback", 0, NULL);
    (void)is_answered(sql);
}

static void column_slice(struct column *column, struct slice bytes)
{
    column_item(column, bytes.ptr, bytes.len);
}

/* What payloads and markers have in common. `raw`: in types that nothing is refused for. */
static void fill_common(struct column *c, const struct unhold_batch *batch, bool raw)
{
    const enum oid text = raw ? OID_BYTEA : OID_TEXT;
    const enum oid types[] = {OID_UUID,  text,     OID_UUID,
                              text,      text,     text,
                              OID_BYTEA, OID_INT4, raw ? OID_INT8 : OID_TIMESTAMPTZ,
                              text};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        column_begin(&c[i], types[i], batch->count, false);
    for (const struct held *h = batch->held; h < batch->held + batch->count; h++) {
        column_item(&c[0], h->id.bytes, sizeof h->id.bytes);
        column_slice(&c[1], h->workspace);
        column_item(&c[2], h->integration, sizeof h->integration);
        column_slice(&c[3], h->platform);
        column_slice(&c[4], h->type);
        column_slice(&c[5], h->external_id);
        column_item(&c[6], h->digest, sizeof h->digest);
        column_item_int32(&c[7], (int32_t)h->size);
        column_item_int64(&c[8], raw ? h->received_wall_us : h->received_wall_us - PG_EPOCH_US);
        column_slice(&c[9], h->topic);
    }
}

static void fill_records(struct column *c, const struct unhold_batch *batch)
{
    for (size_t i = 0; i < 3; i++)
        column_begin(&c[i], OID_BYTEA, batch->count, false);
    for (const struct held *h = batch->held; h < batch->held + batch->count; h++) {
        column_slice(&c[0], h->key);
        column_slice(&c[1], h->headers);
        column_slice(&c[2], h->body);
    }
}

static void fill_places(struct column *c, const struct unhold_batch *batch)
{
    column_begin(&c[0], OID_INT4, batch->count, false);
    column_begin(&c[1], OID_INT8, batch->count, false);
    for (const struct held *h = batch->held; h < batch->held + batch->count; h++) {
        column_item_int32(&c[0], h->partition);
        column_item_int64(&c[1], h->offset);
    }
}

static void send_batch(struct unhold_sql *sql, const struct unhold_batch *batch)
{
    struct pg_param params[COLUMNS + 1];
    uint32_t are_markers;
    int columns = batch->each ? COLUMNS : batch->are_markers ? 12 : 13;
    fill_common(sql->columns, batch, batch->each);
    if (batch->each || batch->are_markers)
        fill_places(&sql->columns[10], batch);
    if (batch->each)
        fill_records(&sql->columns[12], batch);
    else if (!batch->are_markers)
        fill_records(&sql->columns[10], batch);
    for (int i = 0; i < columns; i++)
        params[i] = column_param(&sql->columns[i]);
    if (batch->each)
        params[columns++] = param_int32(batch->are_markers, &are_markers);
    pg_send(sql->pg,
            batch->each          ? "each"
            : batch->are_markers ? "mark"
                                 : "unhold",
            columns, params);
}

bool unhold_sql_take(struct unhold_sql *sql, const struct unhold_batch *batch,
                     struct unhold_taken *ret)
{
    struct place place;
    place_of(&place, batch->topic, batch->partition);
    uint64_t next;
    uint32_t caught_up;
    const struct pg_param move[] = {place.params[0], place.params[1],
                                    param_int64(batch->next, &next),
                                    param_int32(batch->caught_up, &caught_up)};
    ask(sql);
    if (batch->count > 0)
        send_batch(sql, batch);
    pg_send(sql->pg, "move", 4, move);
    pg_send(sql->pg, "unlimit", 0, NULL);
    pg_send(sql->pg, "commit", 0, NULL);
    bool fine = is_answered(sql);
    int first = sql->numbers[0] > 0 ? (int)sql->numbers[0] : 0;
    *ret = (struct unhold_taken){.fresh = batch->are_markers ? 0 : first,
                                 .doubled = batch->are_markers ? first : 0,
                                 .refused = sql->numbers[1] > 0 ? (int)sql->numbers[1] : 0};
    if (fine && !sql->warned)
        return true;
    if (sql->warned) /* the wait for a standby was cut off: not as durable as asked */
        pg_drop(sql->pg, "COMMIT ended with a warning");
    unhold_sql_rollback(sql);
    return false;
}

bool unhold_sql_was_refused(const struct unhold_sql *sql)
{
    return sql->refused;
}

const char *unhold_sql_reason(const struct unhold_sql *sql)
{
    return sql->reason;
}

bool unhold_sql_parked(struct unhold_sql *sql, int max, int *ret_count)
{
    uint32_t wire;
    const struct pg_param param = param_int32(max, &wire);
    ask(sql);
    pg_send(sql->pg, "parked", 1, &param);
    if (!is_answered(sql))
        return false;
    *ret_count = (int)sql->numbers[0];
    return true;
}

/* ---- life ---- */

static void on_wake(struct loop_task *task)
{
    (void)task; /* its coming is all */
}

struct unhold_sql *unhold_sql_new(const struct config *config)
{
    struct unhold_sql *sql = xcalloc(1, sizeof *sql);
    sql->loop = loop_new();
    sql->wake.run = on_wake;
    sql->conninfo =
        conninfo_new(config->postgres.conninfo, config->postgres.password_file, session_options);
    sql->pg = pg_new(sql->loop, sql->conninfo, statements, &pg_handler, sql);
    return sql;
}

void unhold_sql_close(struct unhold_sql *sql)
{
    pg_free(sql->pg);
    sql->pg = NULL;
    conninfo_unref(sql->conninfo);
    sql->conninfo = NULL;
    for (size_t i = 0; i < COLUMNS; i++)
        column_release(&sql->columns[i]);
}

void unhold_sql_wait(struct unhold_sql *sql, int timeout_ms)
{
    loop_turn(sql->loop, timeout_ms);
}

void unhold_sql_wake(struct unhold_sql *sql)
{
    loop_post(sql->loop, &sql->wake);
}

bool unhold_sql_is_ready(const struct unhold_sql *sql)
{
    return sql->ready;
}

unsigned unhold_sql_generation(const struct unhold_sql *sql)
{
    return sql->generation;
}
