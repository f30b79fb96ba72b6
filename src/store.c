/* The SQL behind store.h. Each call queues statements and one sync on the pipeline and appends what
 * it expects to a short queue; results are matched to the head of it. Parameters are binary arrays,
 * one per column (pg_column.h): one statement per batch. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "store.h"

#include "conninfo.h"
#include "log.h"
#include "pg_column.h"

#include <stdio.h>

/* What the server still owes. */
enum step_kind { STEP_CLAIMS, STEP_CLAIMS_UNBLOCKED, STEP_COMMITS, STEP_ROLLS_BACK, STEP_PROBES };
#define STEPS_MAX 6

/* The most that is sent behind one another: commit, claim of the next batch, and roll-backs. */
struct step {
    enum step_kind kind;
    bool failed;
    bool blocked;
};

#define RECEIPT_COLUMNS 12
#define PARKED_COLUMNS 9

static const struct {
    enum oid type;
    bool may_be_null;
} receipt_columns[RECEIPT_COLUMNS] = {{OID_UUID, false},        {OID_TEXT, false},
                                      {OID_UUID, false},        {OID_TEXT, false},
                                      {OID_TEXT, false},        {OID_TEXT, false},
                                      {OID_BYTEA, false},       {OID_INT4, false},
                                      {OID_TIMESTAMPTZ, false}, {OID_TEXT, false},
                                      {OID_INT4, true},         {OID_INT8, true}},
  parked_columns[PARKED_COLUMNS] = {
      {OID_UUID, false},  {OID_TIMESTAMPTZ, false}, {OID_TEXT, false},
      {OID_INT4, true},   {OID_INT4, true},         {OID_TIMESTAMPTZ, true},
      {OID_BYTEA, false}, {OID_BYTEA, false},       {OID_BYTEA, false}};

struct store {
    struct pg *pg;
    struct conninfo *conninfo;
    const struct store_handler *handler;
    void *context;
    struct step steps[STEPS_MAX];
    size_t step_count;
    struct event_id *ids; /* of the claim under way */
    size_t id_count, id_size;
    enum claim_verdict *verdicts;
    struct column claimed[4]; /* the ids, and what a lost commit would have written of them */
    struct column forgotten;
    struct column receipts[RECEIPT_COLUMNS];
    struct column parked[PARKED_COLUMNS];
    size_t parked_count, forgotten_count; /* of the next commit */
    bool commit_warned;
    char reason[256];
};

static const struct pg_statement statements[] = {
    {"begin", "BEGIN ISOLATION LEVEL READ COMMITTED"},
    {"claim", "INSERT INTO mcp.webhook_claims (event_id, received_at)"
              " SELECT id, now() FROM unnest($1::uuid[]) AS id ORDER BY id"
              " ON CONFLICT DO NOTHING RETURNING event_id"},
    {"claim_unblocked", "SELECT event_id, verdict FROM mcp.claim_unblocked($1::uuid[], now())"},
    /* A copy has another time and place. The time also leads to one partition of the table. */
    {"own", "SELECT u.id, 'own'::text FROM unnest($1::uuid[], $2::timestamptz[], $3::int4[],"
            " $4::int8[]) AS u (id, at, partition, \"offset\") JOIN mcp.webhook_events e"
            " ON e.event_id = u.id AND e.received_at = u.at"
            " WHERE (u.partition IS NULL OR e.kafka_partition = u.partition)"
            " AND (u.\"offset\" IS NULL OR e.kafka_offset = u.\"offset\")"},
    /* COMMIT must not be cut short by a timeout of the server: waiting for a standby would then end
       in a mere warning. */
    {"unlimit", "SET LOCAL statement_timeout = 0"},
    {"forget", "DELETE FROM mcp.webhook_claims WHERE event_id = ANY ($1::uuid[])"},
    {"receipts",
     "INSERT INTO mcp.webhook_events (event_id, workspace_id, integration_id, platform, event_type,"
     " external_id, body_sha256, body_size, received_at, kafka_topic, kafka_partition, "
     "kafka_offset,"
     " status)"
     " SELECT u.*, CASE WHEN u.partition IS NULL THEN 'parked' ELSE 'published' END"
     " FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::text[], $5::text[], $6::text[],"
     " $7::bytea[], $8::int4[], $9::timestamptz[], $10::text[], $11::int4[], $12::int8[])"
     " AS u (id, workspace, integration, platform, type, external, sha, size, at, topic, partition,"
     " \"offset\")"},
    {"park",
     "INSERT INTO mcp.webhook_outbox (event_id, received_at, kafka_topic, key_partition,"
     " sent_partition, record_time, undecided_since, record_key, record_headers, body)"
     " SELECT id, at, topic, leads, sent, time, CASE WHEN time IS NOT NULL THEN clock_timestamp()"
     " END, key, headers, body FROM unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::int4[],"
     " $5::int4[], $6::timestamptz[], $7::bytea[], $8::bytea[], $9::bytea[])"
     " AS u (id, at, topic, leads, sent, time, key, headers, body)"},
    {"probe", "SELECT mcp.probe()"},
    {"commit", "COMMIT"},
    {"rollback", "ROLLBACK"},
    {NULL, NULL},
};

static void push_step(struct store *store, enum step_kind kind)
{
    assert(store->step_count < STEPS_MAX);
    store->steps[store->step_count++] = (struct step){.kind = kind};
}

/* Sends a statement with one array per column. */
static void send_columns(struct store *store, const char *statement, struct column *columns,
                         int count)
{
    struct pg_param params[RECEIPT_COLUMNS];
    assert(count <= RECEIPT_COLUMNS);
    for (int i = 0; i < count; i++)
        params[i] = column_param(&columns[i]);
    pg_send(store->pg, statement, count, params);
}

/* To be followed by a sync: without it the server would not call itself idle in transaction, and
 * its timeout for that never arm. */
static void claim(struct store *store, enum step_kind kind, const char *statement,
                  const struct event_id *ids, size_t count)
{
    assert(count > 0);
    if (count > store->id_size) {
        store->id_size = count;
        store->ids = xrealloc(store->ids, count * sizeof *store->ids);
        store->verdicts = xrealloc(store->verdicts, count * sizeof *store->verdicts);
    }
    memcpy(store->ids, ids, count * sizeof *ids);
    store->id_count = count;
    for (size_t i = 0; i < count; i++)
        store->verdicts[i] = CLAIM_KNOWN;

    column_begin(&store->claimed[0], OID_UUID, count, false);
    for (size_t i = 0; i < count; i++)
        column_item(&store->claimed[0], ids[i].bytes, sizeof ids[i].bytes);
    push_step(store, kind);
    pg_send(store->pg, "begin", 0, NULL);
    send_columns(store, statement, store->claimed, 1);
}

void store_claim(struct store *store, const struct event_id *ids, size_t count)
{
    claim(store, STEP_CLAIMS, "claim", ids, count);
    pg_sync(store->pg);
}

void store_claim_unblocked(struct store *store, const struct event_id *ids, size_t count)
{
    claim(store, STEP_CLAIMS_UNBLOCKED, "claim_unblocked", ids, count);
    pg_sync(store->pg);
}

/* In a statement of its own, which sees what was committed while the claims were made. */
void store_claim_again(struct store *store, const struct event_id *ids,
                       const struct store_place *places, size_t count)
{
    struct column *c = store->claimed;
    claim(store, STEP_CLAIMS_UNBLOCKED, "claim_unblocked", ids, count);
    column_begin(&c[1], OID_TIMESTAMPTZ, count, false);
    column_begin(&c[2], OID_INT4, count, true);
    column_begin(&c[3], OID_INT8, count, true);
    for (size_t i = 0; i < count; i++) {
        column_item_int64(&c[1], places[i].received_wall_us - PG_EPOCH_US);
        column_item_int32_or_null(&c[2], places[i].partition);
        column_item_int64_or_null(&c[3], places[i].offset);
    }
    send_columns(store, "own", c, 4);
    pg_sync(store->pg);
}

void store_write(struct store *store, size_t published, size_t parked, size_t forgotten)
{
    for (size_t i = 0; i < RECEIPT_COLUMNS; i++)
        column_begin(&store->receipts[i], receipt_columns[i].type, published + parked,
                     receipt_columns[i].may_be_null);
    for (size_t i = 0; i < PARKED_COLUMNS && parked > 0; i++)
        column_begin(&store->parked[i], parked_columns[i].type, parked,
                     parked_columns[i].may_be_null);
    if (forgotten > 0)
        column_begin(&store->forgotten, OID_UUID, forgotten, false);
    store->parked_count = parked;
    store->forgotten_count = forgotten;
}

static void add_text(struct column *column, const char *text)
{
    column_item(column, text, strlen(text));
}

void store_published(struct store *store, const struct store_receipt *r)
{
    struct column *c = store->receipts;
    column_item(&c[0], r->id.bytes, sizeof r->id.bytes);
    add_text(&c[1], r->workspace);
    column_item(&c[2], r->integration_uuid, 16);
    add_text(&c[3], r->platform);
    column_item(&c[4], r->type.ptr, r->type.len);
    column_item(&c[5], r->external_id.ptr, r->external_id.len);
    column_item(&c[6], r->body_sha256, 32);
    column_item_int32(&c[7], r->body_size);
    column_item_int64(&c[8], r->received_wall_us - PG_EPOCH_US);
    add_text(&c[9], r->topic);
    column_item_int32_or_null(&c[10], r->partition);
    column_item_int64_or_null(&c[11], r->offset);
}

void store_parked(struct store *store, const struct store_parked *parked)
{
    struct store_receipt receipt = parked->receipt;
    receipt.partition = -1;
    receipt.offset = -1;
    store_published(store, &receipt);
    struct column *c = store->parked;
    column_item(&c[0], receipt.id.bytes, sizeof receipt.id.bytes);
    column_item_int64(&c[1], receipt.received_wall_us - PG_EPOCH_US);
    add_text(&c[2], receipt.topic);
    column_item_int32_or_null(&c[3], parked->key_partition);
    column_item_int32_or_null(&c[4], parked->undecided ? parked->sent_partition : -1);
    if (parked->undecided)
        column_item_int64(&c[5], parked->record_wall_us - PG_EPOCH_US);
    else
        column_item_null(&c[5]);
    column_item(&c[6], parked->key.ptr, parked->key.len);
    column_item(&c[7], parked->headers.ptr, parked->headers.len);
    column_item(&c[8], parked->body.ptr, parked->body.len);
}

void store_forget(struct store *store, struct event_id id)
{
    column_item(&store->forgotten, id.bytes, sizeof id.bytes);
}

void store_commit(struct store *store)
{
    push_step(store, STEP_COMMITS);
    store->commit_warned = false;
    pg_send(store->pg, "unlimit", 0, NULL);
    if (store->forgotten_count > 0)
        send_columns(store, "forget", &store->forgotten, 1);
    if (store->parked_count > 0)
        send_columns(store, "park", store->parked, PARKED_COLUMNS);
    for (size_t i = 0; i < PARKED_COLUMNS; i++) /* bodies: not worth keeping room for */
        column_release(&store->parked[i]);
    send_columns(store, "receipts", store->receipts, RECEIPT_COLUMNS);
    pg_send(store->pg, "commit", 0, NULL);
    pg_sync(store->pg);
}

void store_probe(struct store *store)
{
    push_step(store, STEP_PROBES);
    store->commit_warned = false;
    pg_send(store->pg, "begin", 0, NULL);
    pg_send(store->pg, "probe", 0, NULL);
    pg_send(store->pg, "commit", 0, NULL);
    pg_sync(store->pg);
}

void store_rollback(struct store *store)
{
    push_step(store, STEP_ROLLS_BACK);
    pg_send(store->pg, "rollback", 0, NULL);
    pg_sync(store->pg);
}

void store_drop(struct store *store, const char *reason)
{
    pg_drop(store->pg, reason);
}

/* Both lists are sorted, the server's by its ORDER BY, but RETURNING promises no order: search. */
static void mark(struct store *store, const char *id, enum claim_verdict verdict)
{
    size_t low = 0, high = store->id_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = memcmp(store->ids[middle].bytes, id, sizeof store->ids->bytes);
        if (order == 0) {
            store->verdicts[middle] = verdict;
            return;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    abort(); /* the server returned an id that was not asked for */
}

static bool is_commit(const struct step *step)
{
    return step->kind == STEP_COMMITS || step->kind == STEP_PROBES;
}

static void take_claims(struct store *store, const PGresult *result)
{
    for (int row = 0; row < PQntuples(result); row++) {
        assert(PQgetlength(result, row, 0) == 16);
        enum claim_verdict verdict = CLAIM_NEW;
        if (PQnfields(result) > 1) {
            struct slice word = slice_of(PQgetvalue(result, row, 1));
            verdict = slice_is(word, "new")    ? CLAIM_NEW
                      : slice_is(word, "held") ? CLAIM_HELD
                      : slice_is(word, "own")  ? CLAIM_OWN
                                               : CLAIM_KNOWN;
        }
        mark(store, PQgetvalue(result, row, 0), verdict);
    }
}

static void on_result(void *context, PGresult *result)
{
    struct store *store = context;
    assert(store->step_count > 0);
    struct step *step = &store->steps[0];
    ExecStatusType status = PQresultStatus(result);
    if (status == PGRES_TUPLES_OK) {
        if (step->kind != STEP_PROBES)
            take_claims(store, result);
    } else if (status == PGRES_COMMAND_OK) {
        /* A COMMIT in a failed transaction is answered ROLLBACK, without an error. */
        if (is_commit(step) && strcmp(PQcmdStatus(result), "ROLLBACK") == 0 && !step->failed) {
            step->failed = true;
            snprintf(store->reason, sizeof store->reason, "COMMIT was answered ROLLBACK");
        }
    } else if (!step->failed) {
        const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
        step->failed = true;
        step->blocked = state && strcmp(state, "57014") == 0;
        snprintf(store->reason, sizeof store->reason, "%s: %.*s", state ? state : "-----",
                 (int)strcspn(PQresultErrorMessage(result), "\n"), PQresultErrorMessage(result));
    }
    PQclear(result);
}

static void end_claims(struct store *store, const struct step *step)
{
    if (!step->failed) {
        store->handler->on_claimed(store->context, CLAIMED, store->verdicts, NULL);
        return;
    }
    store_rollback(store);
    store->handler->on_claimed(store->context, step->blocked ? CLAIM_BLOCKED : CLAIM_FAILED, NULL,
                               store->reason);
}

static void on_sync(void *context)
{
    struct store *store = context;
    assert(store->step_count > 0);
    struct step step = store->steps[0];
    memmove(store->steps, store->steps + 1, --store->step_count * sizeof *store->steps);
    switch (step.kind) {
    case STEP_CLAIMS:
    case STEP_CLAIMS_UNBLOCKED:
        end_claims(store, &step);
        break;
    case STEP_COMMITS:
    case STEP_PROBES:
        /* A warning at COMMIT means that the wait for a standby was cut off: committed here, but
         * not as durable as asked. */
        if (store->commit_warned)
            snprintf(store->reason, sizeof store->reason, "COMMIT ended with a warning");
        if (step.failed || store->commit_warned) {
            pg_drop(store->pg, store->reason);
            break;
        }
        pg_prove(store->pg);
        if (step.kind == STEP_PROBES)
            store->handler->on_probed(store->context);
        else
            store->handler->on_committed(store->context);
        break;
    case STEP_ROLLS_BACK:
        if (step.failed)
            pg_drop(store->pg, store->reason);
        break;
    }
}

static void on_warning(void *context)
{
    struct store *store = context;
    store->commit_warned |= store->step_count > 0 && is_commit(&store->steps[0]);
}

static void on_ready(void *context)
{
    struct store *store = context;
    store->handler->on_ready(store->context);
}

static void on_lost(void *context, const char *reason)
{
    struct store *store = context;
    store->step_count = 0;
    store->handler->on_lost(store->context, reason);
}

static void on_unreachable(void *context, const char *reason)
{
    struct store *store = context;
    store->handler->on_unreachable(store->context, reason);
}

static const struct pg_handler pg_handler = {
    .on_unreachable = on_unreachable,
    .on_ready = on_ready,
    .on_result = on_result,
    .on_sync = on_sync,
    .on_lost = on_lost,
    .on_warning = on_warning,
};

struct store *store_new(struct loop *loop, const struct store_options *options,
                        const struct store_handler *handler, void *context)
{
    struct store *store = xcalloc(1, sizeof *store);
    store->handler = handler;
    store->context = context;
    /* What the promises rest on is set by the session, so that no ALTER ROLE or server default can
     * weaken it. */
    char session[256];
    snprintf(session, sizeof session,
             "-c synchronous_commit=on -c statement_timeout=%lldms -c lock_timeout=0"
             " -c idle_in_transaction_session_timeout=4s -c jit=off -c client_min_messages=warning",
             (long long)options->claim_us / 1000);
    store->conninfo = conninfo_new(options->conninfo, options->password_file, session);
    store->pg = pg_new(loop, store->conninfo, statements, &pg_handler, store);
    return store;
}

void store_free(struct store *store)
{
    if (store == NULL)
        return;
    pg_free(store->pg);
    conninfo_unref(store->conninfo);
    for (size_t i = 0; i < sizeof store->claimed / sizeof *store->claimed; i++)
        column_release(&store->claimed[i]);
    column_release(&store->forgotten);
    for (size_t i = 0; i < RECEIPT_COLUMNS; i++)
        column_release(&store->receipts[i]);
    for (size_t i = 0; i < PARKED_COLUMNS; i++)
        column_release(&store->parked[i]);
    free(store->ids);
    free(store->verdicts);
    free(store);
}
