/* The SQL behind stuck.h. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "stuck.h"

#include "config.h"
#include "conninfo.h"

#include <libpq-fe.h>

static PGconn *open_connection(const struct config *config, FILE *err)
{
    char *reason = NULL;
    PGconn *conn = conninfo_connect(
        config->postgres.conninfo, config->postgres.password_file,
        "-c statement_timeout=60s -c lock_timeout=10s -c synchronous_commit=on", &reason);
    if (conn == NULL)
        fprintf(err, "hookgate stuck: %s\n", reason);
    else
        PQsetErrorContextVisibility(conn, PQSHOW_CONTEXT_NEVER); /* of our own functions */
    free(reason);
    return conn;
}

/* NULL when it was told what went wrong. */
static PGresult *query(PGconn *conn, const char *sql, int count, const char *const *params,
                       FILE *err)
{
    PGresult *result = PQexecParams(conn, sql, count, NULL, params, NULL, NULL, 0);
    if (PQresultStatus(result) == PGRES_TUPLES_OK)
        return result;
    fprintf(err, "hookgate stuck: %s", PQerrorMessage(conn));
    PQclear(result);
    return NULL;
}

/* Texts of refused events are shown with everything but ASCII escaped: they may be the cause. */
static const char list_sql[] =
    "SELECT event_id, to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), platform,"
    " type, workspace, topic, bytes, reason FROM ("
    "SELECT s.event_id, s.received_at AS at, coalesce(e.platform, '-') AS platform,"
    " coalesce(e.event_type, '-') AS type, coalesce(e.workspace_id, '-') AS workspace,"
    " s.kafka_topic AS topic, octet_length(s.body) AS bytes, s.reason"
    " FROM mcp.webhook_stuck s LEFT JOIN mcp.webhook_events e"
    " ON e.event_id = s.event_id AND e.received_at = s.received_at"
    " UNION ALL SELECT event_id, CASE WHEN received_us BETWEEN 0 AND 4e15"
    " THEN to_timestamp(received_us / 1e6) ELSE refused_at END, encode(platform, 'escape'),"
    " encode(event_type, 'escape'), encode(workspace_id, 'escape'), encode(kafka_topic, 'escape'),"
    " body_size, 'Postgres refuses ' || CASE WHEN is_marker THEN 'the receipt of what is in Kafka'"
    " ELSE 'it' END || ': ' || reason FROM mcp.webhook_refused) AS listed ORDER BY at";

bool stuck_list(const struct config *config, FILE *out, FILE *err)
{
    PGconn *conn = open_connection(config, err);
    if (conn == NULL)
        return false;
    PGresult *result = query(conn, list_sql, 0, NULL, err);
    for (int row = 0; result && row < PQntuples(result); row++) {
        for (int column = 0; column < PQnfields(result); column++)
            fprintf(out, "%s%s", column > 0 ? "  " : "", PQgetvalue(result, row, column));
        fputc('\n', out);
    }
    bool fine = result != NULL;
    PQclear(result);
    PQfinish(conn);
    return fine;
}

/* -1 = told. */
static long call(PGconn *conn, const char *sql, const char *id, FILE *err)
{
    PGresult *result = query(conn, sql, 1, &id, err);
    long count = result ? strtol(PQgetvalue(result, 0, 0), NULL, 10) : -1;
    PQclear(result);
    return count;
}

static bool is_known(long count, const char *id, FILE *err)
{
    if (count == 0)
        fprintf(err, "hookgate stuck: %s is not stuck\n", id);
    return count > 0;
}

static long retry_refused(PGconn *conn, const char *id, FILE *err)
{
    long count = call(conn, "SELECT mcp.retry_refused($1::uuid)", id, err);
    if (count < 0)
        fprintf(err, "hookgate stuck: %s stays stuck\n", id);
    return count;
}

static long retry_one(PGconn *conn, const char *id, FILE *err)
{
    long count = call(conn, "SELECT mcp.retry_stuck(ARRAY[$1::uuid])", id, err);
    return count == 0 ? retry_refused(conn, id, err) : count;
}

/* The refused ones one by one: each may be refused again. */
static bool retry_all(PGconn *conn, long *ret_back, FILE *err)
{
    PGresult *result = query(conn, "SELECT mcp.retry_stuck()", 0, NULL, err);
    if (result == NULL)
        return false;
    *ret_back = strtol(PQgetvalue(result, 0, 0), NULL, 10);
    PQclear(result);
    result =
        query(conn, "SELECT event_id FROM mcp.webhook_refused ORDER BY refused_at", 0, NULL, err);
    bool fine = result != NULL;
    for (int row = 0; result && row < PQntuples(result); row++) {
        long one = retry_refused(conn, PQgetvalue(result, row, 0), err);
        fine &= one >= 0;
        *ret_back += one > 0 ? one : 0;
    }
    PQclear(result);
    return fine;
}

bool stuck_retry(const struct config *config, char *const *ids, int count, FILE *out, FILE *err)
{
    PGconn *conn = open_connection(config, err);
    if (conn == NULL)
        return false;
    bool fine = true;
    long back = 0;
    if (count == 0)
        fine = retry_all(conn, &back, err);
    for (int i = 0; i < count; i++) {
        long one = retry_one(conn, ids[i], err);
        fine &= is_known(one, ids[i], err);
        back += one > 0 ? one : 0;
    }
    if (fine || back > 0)
        fprintf(out, "%ld events go back to their topics\n", back);
    PQfinish(conn);
    return fine;
}

bool stuck_drop(const struct config *config, char *const *ids, int count, FILE *out, FILE *err)
{
    PGconn *conn = open_connection(config, err);
    if (conn == NULL)
        return false;
    bool fine = true;
    long gone = 0;
    for (int i = 0; i < count; i++) {
        long one = call(conn, "SELECT mcp.drop_stuck($1::uuid)", ids[i], err);
        fine &= is_known(one, ids[i], err);
        gone += one > 0 ? one : 0;
    }
    fprintf(out, "%ld events are dropped\n", gone);
    PQfinish(conn);
    return fine;
}
