/* The rotation behind reseal.h: rows in the order of their ids, locked batch by batch, so that a
 * secret that is stored meanwhile is not overwritten. One rotation at a time, by a lock of the
 * session. Called by `hookgate seal --rotate`. Thread: the caller's. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "reseal.h"

#include "config.h"
#include "conninfo.h"
#include "seal.h"

#include <libpq-fe.h>
#include <openssl/crypto.h>

#define BATCH 200

struct reseal {
    PGconn *conn;
    const struct seal_keys *keys;
    struct reseal_counts *counts;
    FILE *err;
    char after[SEAL_UUID_TEXT]; /* the last row's id */
};

static bool complain(const struct reseal *reseal, const char *what)
{
    fprintf(reseal->err, "hookgate seal: Postgres: %.*s\n", (int)strcspn(what, "\n"), what);
    return false;
}

/* NULL when it failed, which was told. */
static PGresult *query(const struct reseal *reseal, const char *sql, int count,
                       const char *const *values, const int *lengths, const int *formats)
{
    PGresult *result =
        PQexecParams(reseal->conn, sql, count, NULL, values, lengths, formats, /* binary */ 1);
    ExecStatusType status = PQresultStatus(result);
    if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK)
        return result;
    complain(reseal, PQerrorMessage(reseal->conn));
    PQclear(result);
    return NULL;
}

static bool run(const struct reseal *reseal, const char *sql)
{
    PGresult *result = query(reseal, sql, 0, NULL, NULL, NULL);
    PQclear(result);
    return result != NULL;
}

static bool update(const struct reseal *reseal, const char *id, const unsigned char *sealed,
                   size_t len)
{
    const char *const values[] = {id, (const char *)sealed};
    const int lengths[] = {0, (int)len}, formats[] = {0, 1};
    PGresult *result =
        query(reseal, "UPDATE core.integration_secrets SET sealed = $2 WHERE secret_id = $1::uuid",
              2, values, lengths, formats);
    PQclear(result);
    return result != NULL;
}

/* Columns: secret_id, integration_id, sealed. */
static bool take_row(struct reseal *reseal, const PGresult *rows, int row)
{
    const char *id = PQgetvalue(rows, row, 0);
    struct slice owner = slice_of(PQgetvalue(rows, row, 1));
    struct slice sealed = {PQgetvalue(rows, row, 2), (size_t)PQgetlength(rows, row, 2)};
    unsigned char plain[SEAL_PLAIN_MAX], anew[SEAL_PLAIN_MAX + SEAL_OVERHEAD];
    size_t len = 0, anew_len = 0, key = 0;
    bool fine = true;
    if (!seal_open_by(reseal->keys, owner, sealed, plain, &len, &key)) {
        reseal->counts->foreign++;
        fprintf(reseal->err, "hookgate seal: %s opens with no key of the file\n", id);
        return true;
    }
    if (key == 0) {
        reseal->counts->already++;
    } else {
        fine = seal_close(reseal->keys, owner, (struct slice){(const char *)plain, len}, anew,
                          &anew_len) &&
               update(reseal, id, anew, anew_len);
        reseal->counts->sealed += fine;
    }
    OPENSSL_cleanse(plain, sizeof plain);
    return fine;
}

/* *ret_more: there may be another batch. */
static bool run_batch(struct reseal *reseal, bool *ret_more)
{
    char batch[16];
    snprintf(batch, sizeof batch, "%d", BATCH);
    const char *const params[] = {reseal->after, batch};
    if (!run(reseal, "BEGIN"))
        return false;
    PGresult *rows =
        query(reseal,
              "SELECT secret_id::text, integration_id::text, sealed FROM core.integration_secrets"
              " WHERE secret_id > $1::uuid ORDER BY secret_id LIMIT $2::int FOR NO KEY UPDATE",
              2, params, NULL, NULL);
    bool fine = rows != NULL;
    int count = fine ? PQntuples(rows) : 0;
    for (int row = 0; fine && row < count; row++)
        fine = take_row(reseal, rows, row);
    if (fine && count > 0)
        snprintf(reseal->after, sizeof reseal->after, "%s", PQgetvalue(rows, count - 1, 0));
    PQclear(rows);
    *ret_more = count == BATCH;
    return fine && run(reseal, "COMMIT");
}

static bool take_lock(const struct reseal *reseal)
{
    PGresult *result = query(reseal, "SELECT pg_try_advisory_lock(hashtext('hookgate.reseal'), 0)",
                             0, NULL, NULL, NULL);
    bool taken = result != NULL && PQgetvalue(result, 0, 0)[0] != 0;
    if (result != NULL && !taken)
        complain(reseal, "another rotation is running; wait for its end");
    PQclear(result);
    return taken;
}

static bool connect_postgres(struct reseal *reseal, const struct config *config)
{
    char *reason = NULL;
    reseal->conn = conninfo_connect(
        config->postgres.conninfo, config->postgres.password_file,
        "-c statement_timeout=60s -c lock_timeout=10s -c client_min_messages=warning", &reason);
    if (reseal->conn == NULL)
        complain(reseal, reason);
    free(reason);
    return reseal->conn != NULL;
}

bool reseal_run(const struct config *config, const struct seal_keys *keys,
                struct reseal_counts *ret, FILE *err)
{
    *ret = (struct reseal_counts){0};
    struct reseal reseal = {
        .keys = keys, .counts = ret, .err = err, .after = "00000000-0000-0000-0000-000000000000"};
    bool fine = connect_postgres(&reseal, config) && take_lock(&reseal), more = true;
    while (fine && more)
        fine = run_batch(&reseal, &more);
    PQfinish(reseal.conn);
    return fine;
}
