/* The SQL behind lease_store.h, each statement a transaction of its own. What is leased may be
 * forgotten in a crash of Postgres, so nothing here waits for the disk. Called by lease.c. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "lease_store.h"

#include "conninfo.h"
#include "log.h"
#include "pg.h"
#include "pg_column.h"

#include <stdio.h>
#include <sys/random.h>

#define COLUMNS 7
#define STATEMENTS_MAX 8

static const char session_options[] =
    "-c synchronous_commit=off -c statement_timeout=1s -c lock_timeout=0"
    " -c idle_in_transaction_session_timeout=4s -c jit=off -c client_min_messages=warning";

static const struct pg_statement statements[] = {
    {"lease", "SELECT item, granted, plenty, wait_ms FROM mcp.lease_quotas($1::text[], $2::text[],"
              " $3::int4[], $4::int4[], $5::int8[], $6::int8[], $7::int4[], $8::int4)"},
    {"alive", "SELECT mcp.instance_alive($1::uuid)"},
    {"leave", "DELETE FROM mcp.webhook_instances WHERE instance_id = $1::uuid"},
    {NULL, NULL},
};

enum kind { KIND_LEASE, KIND_ALIVE, KIND_LEAVE };

struct lease_store {
    struct pg *pg;
    struct conninfo *conninfo;
    const struct lease_store_handler *handler;
    void *context;
    unsigned char instance[16];
    enum kind sent[STATEMENTS_MAX]; /* what the server still owes, in order */
    size_t sent_count;
    bool failed; /* the statement under way */
    size_t ask_count;
    struct lease_answer answers[LEASE_ASKS_MAX];
    int64_t instances;
    struct column columns[COLUMNS];
};

static void send_statement(struct lease_store *store, enum kind kind, int count,
                           const struct pg_param *params)
{
    assert(store->sent_count < STATEMENTS_MAX);
    store->sent[store->sent_count++] = kind;
    pg_send(store->pg, statements[kind].name, count, params);
    pg_sync(store->pg);
}

void lease_store_ask(struct lease_store *store, const struct lease_ask *asks, size_t count,
                     int64_t instances)
{
    static const enum oid types[COLUMNS] = {OID_TEXT, OID_TEXT, OID_INT4, OID_INT4,
                                            OID_INT8, OID_INT8, OID_INT4};
    struct column *c = store->columns;
    assert(count > 0 && count <= LEASE_ASKS_MAX);
    for (size_t i = 0; i < COLUMNS; i++)
        column_begin(&c[i], types[i], count, false);
    for (const struct lease_ask *ask = asks; ask < asks + count; ask++) {
        column_item(&c[0], ask->workspace, strlen(ask->workspace));
        column_item(&c[1], ask->platform, strlen(ask->platform));
        column_item_int32(&c[2], ask->limit_minute);
        column_item_int32(&c[3], ask->limit_hour);
        column_item_int64(&c[4], ask->spent_minute);
        column_item_int64(&c[5], ask->spent_hour);
        column_item_int32(&c[6], ask->want);
    }
    struct pg_param params[COLUMNS + 1];
    for (size_t i = 0; i < COLUMNS; i++)
        params[i] = column_param(&c[i]);
    uint32_t wire;
    params[COLUMNS] = param_int32((int32_t)instances, &wire);
    store->ask_count = count;
    memset(store->answers, 0, count * sizeof *store->answers);
    send_statement(store, KIND_LEASE, COLUMNS + 1, params);
}

void lease_store_alive(struct lease_store *store)
{
    struct pg_param param = {(const char *)store->instance, sizeof store->instance};
    send_statement(store, KIND_ALIVE, 1, &param);
}

void lease_store_leave(struct lease_store *store)
{
    struct pg_param param = {(const char *)store->instance, sizeof store->instance};
    send_statement(store, KIND_LEAVE, 1, &param);
}

void lease_store_drop(struct lease_store *store, const char *reason)
{
    pg_drop(store->pg, reason);
}

static void take_answers(struct lease_store *store, const PGresult *result)
{
    for (int row = 0; row < PQntuples(result); row++) {
        int32_t item = column_int32_at(result, row, 0, 0);
        assert(item >= 1 && (size_t)item <= store->ask_count);
        store->answers[item - 1] = (struct lease_answer){
            .granted = column_int32_at(result, row, 1, 0),
            .plenty = PQgetvalue(result, row, 2)[0] != 0,
            .wait_us = (int64_t)column_int32_at(result, row, 3, 0) * 1000,
        };
    }
}

static void on_result(void *context, PGresult *result)
{
    struct lease_store *store = context;
    ExecStatusType status = PQresultStatus(result);
    if (status == PGRES_TUPLES_OK && store->sent[0] == KIND_LEASE) {
        take_answers(store, result);
    } else if (status == PGRES_TUPLES_OK && store->sent[0] == KIND_ALIVE) {
        store->instances = column_int32_at(result, 0, 0, 0);
    } else if (status != PGRES_COMMAND_OK) {
        store->failed = true;
        const char *text = PQresultErrorMessage(result);
        log_event(LOG_WARNING, "limit_statement_failed", "%s: %.*s",
                  statements[store->sent[0]].name, (int)strcspn(text, "\n"), text);
    }
    PQclear(result);
}

static void on_sync(void *context)
{
    struct lease_store *store = context;
    assert(store->sent_count > 0);
    enum kind kind = store->sent[0];
    bool failed = store->failed;
    memmove(store->sent, store->sent + 1, --store->sent_count * sizeof *store->sent);
    store->failed = false;
    if (kind == KIND_LEASE)
        store->handler->on_leased(store->context, failed ? NULL : store->answers);
    else if (kind == KIND_ALIVE)
        store->handler->on_alive(store->context, failed ? 0 : store->instances);
    else if (kind == KIND_LEAVE)
        store->handler->on_left(store->context);
}

static void on_ready(void *context)
{
    struct lease_store *store = context;
    store->handler->on_ready(store->context);
}

static void on_lost(void *context, const char *reason)
{
    struct lease_store *store = context;
    store->sent_count = 0;
    store->failed = false;
    store->handler->on_lost(store->context, reason);
}

static const struct pg_handler pg_handler = {
    .on_unreachable = NULL, /* the lanes and the loader tell it */
    .on_ready = on_ready,
    .on_result = on_result,
    .on_sync = on_sync,
    .on_lost = on_lost,
};

struct lease_store *lease_store_new(struct loop *loop, const struct lease_store_options *options,
                                    const struct lease_store_handler *handler, void *context)
{
    struct lease_store *store = xcalloc(1, sizeof *store);
    store->handler = handler;
    store->context = context;
    if (getrandom(store->instance, sizeof store->instance, 0) != sizeof store->instance)
        abort(); /* never for so few bytes */
    store->conninfo = conninfo_new(options->conninfo, options->password_file, session_options);
    store->pg = pg_new(loop, store->conninfo, statements, &pg_handler, store);
    return store;
}

void lease_store_free(struct lease_store *store)
{
    if (store == NULL)
        return;
    pg_free(store->pg);
    conninfo_unref(store->conninfo);
    for (size_t i = 0; i < COLUMNS; i++)
        column_release(&store->columns[i]);
    free(store);
}
