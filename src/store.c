/* The SQL behind store.h. Each call queues statements and one sync on the pipeline and appends what
 * it expects to a short queue; results are matched to the head of it. Parameters are binary arrays,
 * one per column: one statement per batch. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "store.h"

#include "conninfo.h"
#include "log.h"
#include "pg.h"
#include "pg_column.h"

#include <stdio.h>

#define PG_EPOCH_US 946684800000000 /* 2000-01-01 in Unix time */

/* What the server still owes. */
enum step_kind { STEP_CLAIMS, STEP_CLAIMS_UNBLOCKED, STEP_COMMITS, STEP_ROLLS_BACK };
#define STEPS_MAX 6

/* The most that is sent behind one another: commit, claim of the next batch, and roll-backs. */
struct step {
    enum step_kind kind;
    bool failed;
    bool blocked;
};

#define COLUMNS 12

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
    struct column columns[COLUMNS];
    bool commit_warned;
    char reason[256];
};

static const struct pg_statement statements[] = {
    {"begin", "BEGIN ISOLATION LEVEL READ COMMITTED"},
    {"claim", "INSERT INTO mcp.webhook_claims (event_id, received_at)"
              " SELECT id, now() FROM unnest($1::uuid[]) AS id ORDER BY id"
              " ON CONFLICT DO NOTHING RETURNING event_id"},
    {"claim_unblocked", "SELECT event_id, verdict FROM mcp.claim_unblocked($1::uuid[], now())"},
    /* COMMIT must not be cut short by a timeout of the server: waiting for a standby would then end
       in a mere warning. */
    {"unlimit", "SET LOCAL statement_timeout = 0"},
    {"forget", "DELETE FROM mcp.webhook_claims WHERE event_id = ANY ($1::uuid[])"},
    {"receipts",
     "INSERT INTO mcp.webhook_events (event_id, workspace_id, integration_id, platform, event_type,"
     " external_id, body_sha256, body_size, received_at, kafka_topic, kafka_partition, "
     "kafka_offset,"
     " status)"
     " SELECT *, 'published' FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::text[], "
     "$5::text[],"
     " $6::text[], $7::bytea[], $8::int4[], $9::timestamptz[], $10::text[], $11::int4[], "
     "$12::int8[])"},
    {"commit", "COMMIT"},
    {"rollback", "ROLLBACK"},
    {NULL, NULL},
};

static struct pg_param ids_param(struct store *store, const struct event_id *ids, size_t count)
{
    struct column *column = &store->columns[0];
    column_begin(column, OID_UUID, count, false);
    for (size_t i = 0; i < count; i++)
        column_item(column, ids[i].bytes, sizeof ids[i].bytes);
    return column_param(column);
}

static void push_step(struct store *store, enum step_kind kind)
{
    assert(store->step_count < STEPS_MAX);
    store->steps[store->step_count++] = (struct step){.kind = kind};
}

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

    struct pg_param param = ids_param(store, ids, count);
    push_step(store, kind);
    pg_send(store->pg, "begin", 0, NULL);
    pg_send(store->pg, statement, 1, &param);
    /* Without the sync the server would not call itself idle in transaction, and its timeout for
     * that never arm. */
    pg_sync(store->pg);
}

void store_claim(struct store *store, const struct event_id *ids, size_t count)
{
    claim(store, STEP_CLAIMS, "claim", ids, count);
}

void store_claim_unblocked(struct store *store, const struct event_id *ids, size_t count)
{
    claim(store, STEP_CLAIMS_UNBLOCKED, "claim_unblocked", ids, count);
}

static void fill_columns(struct store *store, const struct store_receipt *receipts, size_t count)
{
    static const enum oid types[COLUMNS] = {OID_UUID,        OID_TEXT, OID_UUID,  OID_TEXT,
                                            OID_TEXT,        OID_TEXT, OID_BYTEA, OID_INT4,
                                            OID_TIMESTAMPTZ, OID_TEXT, OID_INT4,  OID_INT8};
    struct column *c = store->columns;
    bool any_null = false;
    for (size_t i = 0; i < count; i++)
        any_null |= receipts[i].offset < 0;
    for (size_t i = 0; i < COLUMNS; i++)
        column_begin(&c[i], types[i], count, i == COLUMNS - 1 && any_null);
    for (const struct store_receipt *r = receipts; r < receipts + count; r++) {
        column_item(&c[0], r->id.bytes, sizeof r->id.bytes);
        column_item(&c[1], r->workspace, strlen(r->workspace));
        column_item(&c[2], r->integration_uuid, 16);
        column_item(&c[3], r->platform, strlen(r->platform));
        column_item(&c[4], r->type.ptr, r->type.len);
        column_item(&c[5], r->external_id.ptr, r->external_id.len);
        column_item(&c[6], r->body_sha256, 32);
        column_item_int32(&c[7], r->body_size);
        column_item_int64(&c[8], r->received_wall_us - PG_EPOCH_US);
        column_item(&c[9], r->topic, strlen(r->topic));
        column_item_int32(&c[10], r->partition);
        if (r->offset < 0)
            column_item_null(&c[11]);
        else
            column_item_int64(&c[11], r->offset);
    }
}

void store_commit(struct store *store, const struct store_receipt *receipts, size_t count,
                  const struct event_id *refused, size_t refused_count)
{
    assert(count > 0);
    push_step(store, STEP_COMMITS);
    store->commit_warned = false;
    pg_send(store->pg, "unlimit", 0, NULL);
    if (refused_count > 0) {
        struct pg_param param = ids_param(store, refused, refused_count);
        pg_send(store->pg, "forget", 1, &param);
    }
    fill_columns(store, receipts, count);
    struct pg_param params[COLUMNS];
    for (size_t i = 0; i < COLUMNS; i++)
        params[i] = column_param(&store->columns[i]);
    pg_send(store->pg, "receipts", COLUMNS, params);
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

static void take_claims(struct store *store, const PGresult *result)
{
    for (int row = 0; row < PQntuples(result); row++) {
        assert(PQgetlength(result, row, 0) == 16);
        enum claim_verdict verdict = CLAIM_NEW;
        if (PQnfields(result) > 1) {
            struct slice word = slice_of(PQgetvalue(result, row, 1));
            verdict = slice_is(word, "new")    ? CLAIM_NEW
                      : slice_is(word, "held") ? CLAIM_HELD
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
        take_claims(store, result);
    } else if (status == PGRES_COMMAND_OK) {
        /* A COMMIT in a failed transaction is answered ROLLBACK, without an error. */
        if (step->kind == STEP_COMMITS && strcmp(PQcmdStatus(result), "ROLLBACK") == 0)
            step->failed = true;
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
        /* A warning at COMMIT means that the wait for a standby was cut off: committed here, but
         * not as durable as asked. */
        if (store->commit_warned)
            snprintf(store->reason, sizeof store->reason, "COMMIT ended with a warning");
        if (step.failed || store->commit_warned)
            pg_drop(store->pg, store->reason);
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
    store->commit_warned |= store->step_count > 0 && store->steps[0].kind == STEP_COMMITS;
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
    for (size_t i = 0; i < COLUMNS; i++)
        column_release(&store->columns[i]);
    free(store->ids);
    free(store->verdicts);
    free(store);
}
