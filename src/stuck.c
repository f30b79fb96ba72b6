/* The SQL behind stuck.h. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "stuck.h"

#include "config.h"
#include "conninfo.h"

#include <libpq-fe.h>

static PGconn *open_connection(const struct config *config, FILE *err)
{
    struct conninfo *conninfo =
        conninfo_new(config->postgres.conninfo, config->postgres.password_file,
                     "-c statement_timeout=60s -c lock_timeout=10s -c synchronous_commit=on");
    PGconn *conn = PQconnectdbParams(conninfo_keywords(conninfo), conninfo_values(conninfo), 1);
    if (conninfo_problem(conninfo) != NULL)
        fprintf(err, "hookgate stuck: %s\n", conninfo_problem(conninfo));
    conninfo_unref(conninfo);
    if (PQstatus(conn) == CONNECTION_OK)
        return conn;
    fprintf(err, "hookgate stuck: %s", PQerrorMessage(conn));
    PQfinish(conn);
    return NULL;
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

bool stuck_list(const struct config *config, FILE *out, FILE *err)
{
    PGconn *conn = open_connection(config, err);
    if (conn == NULL)
        return false;
    PGresult *result = query(conn,
                             "SELECT s.event_id, to_char(s.received_at AT TIME ZONE 'UTC',"
                             " 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), coalesce(e.platform, '-'),"
                             " coalesce(e.event_type, '-'), coalesce(e.workspace_id, '-'),"
                             " s.kafka_topic, octet_length(s.body), s.reason"
                             " FROM mcp.webhook_stuck s LEFT JOIN mcp.webhook_events e"
                             " ON e.event_id = s.event_id AND e.received_at = s.received_at"
                             " ORDER BY s.received_at",
                             0, NULL, err);
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

static long retry_one(PGconn *conn, const char *id, FILE *err)
{
    const char *const params[] = {id};
    PGresult *result = query(conn, "SELECT mcp.retry_stuck(ARRAY[$1::uuid])", 1, params, err);
    long count = result ? strtol(PQgetvalue(result, 0, 0), NULL, 10) : -1;
    PQclear(result);
    if (count == 0)
        fprintf(err, "hookgate stuck: %s is not stuck\n", id);
    return count;
}

bool stuck_retry(const struct config *config, char *const *ids, int count, FILE *out, FILE *err)
{
    PGconn *conn = open_connection(config, err);
    if (conn == NULL)
        return false;
    bool fine = true;
    long back = 0;
    if (count == 0) {
        PGresult *result = query(conn, "SELECT mcp.retry_stuck()", 0, NULL, err);
        fine = result != NULL;
        back = fine ? strtol(PQgetvalue(result, 0, 0), NULL, 10) : 0;
        PQclear(result);
    }
    for (int i = 0; i < count; i++) {
        long one = retry_one(conn, ids[i], err);
        fine &= one > 0;
        back += one > 0 ? one : 0;
    }
    if (fine || back > 0)
        fprintf(out, "%ld events go back to their topics\n", back);
    PQfinish(conn);
    return fine;
}
