/* The round behind upkeep.h, by functions of sql/. Called by the loader's thread, whose own work
 * goes before it. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "upkeep.h"

#include "clock.h"
#include "config.h"
#include "log.h"
#include "metrics.h"
#include "pg_column.h"
#include "session.h"

#include <stdio.h>

#define SECOND INT64_C(1000000)
#define PURGE_ROWS 5000
#define PURGE_PAUSE_US (SECOND / 50)
/* Receipts outlive claims: audits look back over a month. Not configurable yet. */
#define RECEIPTS_KEPT "30 days"

/* One number from a function of ours; -1 when it failed, which is told and not fatal: the upkeep
 * comes again within a minute. */
static int32_t call(struct session *session, const char *sql, int count, const char *const *params)
{
    PGresult *result = session_query(session, sql, count, params);
    int32_t value = -1;
    if (result != NULL && PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1)
        value = column_int32_at(result, 0, 0, -1);
    else if (result != NULL)
        log_event(LOG_WARNING, "upkeep_failed", "%s",
                  PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY));
    PQclear(result);
    return value;
}

static void put_seconds(char *text, size_t size, int64_t us)
{
    snprintf(text, size, "%lld seconds", (long long)(us / SECOND));
}

/* Returns true when old claims may be left: what the directory needs comes before them. */
static bool purge(struct session *session, const struct config *config, int64_t until_us)
{
    char window[48], rows[16];
    put_seconds(window, sizeof window, config->postgres.dedup_window_us);
    snprintf(rows, sizeof rows, "%d", PURGE_ROWS);
    const char *const params[] = {window, rows};
    for (;;) {
        int32_t purged = call(session, "SELECT mcp.purge_claims($1::interval, $2::int)", 2, params);
        if (purged < PURGE_ROWS || !session_is_open(session))
            return false;
        session_listen(session, clock_mono_us() + PURGE_PAUSE_US);
        if (!session_is_open(session))
            return false;
        if (atomic_load(session_stopping(session)) || clock_mono_us() >= until_us ||
            session_is_notified(session))
            return true;
    }
}

static void purge_security_events(struct session *session, const struct config *config)
{
    char kept[48], rows[16];
    put_seconds(kept, sizeof kept, config->postgres.security_events_us);
    snprintf(rows, sizeof rows, "%d", PURGE_ROWS);
    const char *const params[] = {kept, rows};
    call(session, "SELECT mcp.purge_security_events($1::interval, $2::int)", 2, params);
}

/* A server whose commits are less durable than they look: told when it changes, and once a minute
 * to Prometheus. */
static void check_durability(struct upkeep *upkeep, struct session *session)
{
    PGresult *result = session_query(session, "SELECT mcp.durability_problems()", 0, NULL);
    if (result == NULL)
        return;
    if (PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1) {
        const char *problems = PQgetvalue(result, 0, 0);
        metrics_set(upkeep->metrics, METRIC_STORE_WEAK, problems[0] != '\0');
        if (strncmp(problems, upkeep->durability_told, sizeof upkeep->durability_told - 1) != 0)
            log_event(problems[0] != '\0' ? LOG_WARNING : LOG_INFO, "store_durability", "%s",
                      problems[0] != '\0' ? problems : "Postgres is as durable as it should be");
        snprintf(upkeep->durability_told, sizeof upkeep->durability_told, "%s", problems);
    }
    PQclear(result);
}

/* One instance looks, all tell what is found. */
static void check_accounts(struct upkeep *upkeep, struct session *session, bool look)
{
    if (look)
        call(session, "SELECT mcp.find_unaccounted()", 0, NULL);
    if (!session_is_open(session))
        return;
    int32_t count = call(session, "SELECT count(*)::int FROM mcp.webhook_unaccounted", 0, NULL);
    if (count >= 0)
        metrics_set(upkeep->metrics, METRIC_UNACCOUNTED, count);
}

bool upkeep_run(struct upkeep *upkeep, struct session *session, const struct config *config,
                int64_t until_us)
{
    call(session, "SELECT mcp.ensure_event_partitions(7)", 0, NULL);
    if (session_is_open(session))
        check_durability(upkeep, session);
    /* One instance at a time; the lock goes with the session, if need be. */
    bool locked = session_is_open(session) &&
                  call(session, "SELECT pg_try_advisory_lock(hashtext('hookgate.upkeep'), 0)::int",
                       0, NULL) == 1;
    if (session_is_open(session))
        check_accounts(upkeep, session, locked);
    if (!session_is_open(session) || !locked)
        return false;
    bool left = purge(session, config, until_us);
    if (!left && session_is_open(session))
        call(session, "SELECT mcp.drop_event_partitions('" RECEIPTS_KEPT "')", 0, NULL);
    if (session_is_open(session))
        purge_security_events(session, config);
    if (session_is_open(session))
        call(session, "SELECT mcp.purge_quotas()", 0, NULL);
    if (session_is_open(session))
        call(session, "SELECT pg_advisory_unlock(hashtext('hookgate.upkeep'), 0)::int", 0, NULL);
    return left;
}
