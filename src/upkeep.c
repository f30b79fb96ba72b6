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
#define COMPARE_CLAIMS "50000"
#define STEP_PAUSE_US (SECOND / 50)
/* Less than a minute: rounds that come at once go without. */
#define WHOLE_EVERY_US (45 * SECOND)
/* Far beyond what NTP leaves, far below a dedup window. */
#define CLOCKS_MAY_DIFFER_S 600
/* Receipts outlive claims: audits look back over a month. Not configurable yet. */
#define RECEIPTS_KEPT "30 days"

/* One row of ours; NULL when it failed, which is told and not fatal: the upkeep comes again within
 * a minute. */
static PGresult *ask(struct session *session, const char *sql, int count, const char *const *params)
{
    PGresult *result = session_query(session, sql, count, params);
    if (result == NULL || (PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1))
        return result;
    log_event(LOG_WARNING, "upkeep_failed", "%s",
              PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY));
    PQclear(result);
    return NULL;
}

/* One number from a function of ours; -1 when it failed. */
static int32_t call(struct session *session, const char *sql, int count, const char *const *params)
{
    PGresult *result = ask(session, sql, count, params);
    int32_t value = result != NULL ? column_int32_at(result, 0, 0, -1) : -1;
    PQclear(result);
    return value;
}

/* A complaint of ours, "" when all is `fine`: told when it changes. */
static void tell(char *told, size_t size, const char *event, const char *complaint,
                 const char *fine)
{
    if (strncmp(complaint, told, size - 1) != 0)
        log_event(complaint[0] != '\0' ? LOG_WARNING : LOG_INFO, event, "%s",
                  complaint[0] != '\0' ? complaint : fine);
    snprintf(told, size, "%s", complaint);
}

/* Between two steps of much work: lets others at the server, and tells whether to go on. */
static bool may_go_on(struct session *session, int64_t until_us)
{
    session_listen(session, clock_mono_us() + STEP_PAUSE_US);
    return session_is_open(session) && !atomic_load(session_stopping(session)) &&
           clock_mono_us() < until_us && !session_is_notified(session);
}

/* ---- what Prometheus should hear ---- */

/* A server whose commits are less durable than they look. */
static void check_durability(struct upkeep *upkeep, struct session *session)
{
    PGresult *result = ask(session, "SELECT mcp.durability_problems()", 0, NULL);
    if (result == NULL)
        return;
    const char *problems = PQgetvalue(result, 0, 0);
    metrics_set(upkeep->metrics, METRIC_STORE_WEAK, problems[0] != '\0');
    tell(upkeep->durability_told, sizeof upkeep->durability_told, "store_durability", problems,
         "Postgres is as durable as it should be");
    PQclear(result);
}

/* Postgres' clock says what is old. When ours disagrees one of them is wrong, and nothing may be
 * deleted: where claims are gone, copies pass for new. */
static bool clocks_agree(struct upkeep *upkeep, struct session *session)
{
    PGresult *result =
        ask(session, "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8", 0, NULL);
    if (result == NULL)
        return false;
    int64_t ahead = (column_int64_at(result, 0, 0, 0) - clock_wall_us()) / SECOND;
    PQclear(result);
    bool agree = ahead <= CLOCKS_MAY_DIFFER_S && ahead >= -CLOCKS_MAY_DIFFER_S;
    metrics_set(upkeep->metrics, METRIC_STORE_CLOCK, ahead);
    if (!agree && !upkeep->clocks_differ)
        log_event(
            LOG_ERROR, "clock_differs",
            "Postgres' clock is %lld s %s this host's: set the wrong one right; until then no "
            "claims, receipts or security events are deleted",
            (long long)llabs(ahead), ahead > 0 ? "ahead of" : "behind");
    else if (agree && upkeep->clocks_differ)
        log_event(LOG_INFO, "clock_differs", "Postgres' clock agrees with this host's again");
    upkeep->clocks_differ = !agree;
    return agree;
}

/* What waits is compared whole, so once a minute; and if that fails, so that it shows, no claims
 * are either. Returns true when there are more of them. */
static bool compare(struct upkeep *upkeep, struct session *session, int64_t until_us)
{
    if (clock_mono_us() >= upkeep->next_whole_us) {
        if (call(session, "SELECT mcp.find_unaccounted(" COMPARE_CLAIMS ")", 0, NULL) < 0)
            return false;
        upkeep->next_whole_us = clock_mono_us() + WHOLE_EVERY_US;
    }
    do {
        if (call(session, "SELECT mcp.compare_claims(" COMPARE_CLAIMS ")", 0, NULL) <= 0)
            return false;
    } while (may_go_on(session, until_us));
    return true;
}

/* One instance compares, all tell what is found. */
static void tell_accounts(struct upkeep *upkeep, struct session *session)
{
    PGresult *result = ask(session,
                           "SELECT (SELECT count(*) FROM mcp.webhook_unaccounted),"
                           " extract(epoch FROM until)::int8 FROM mcp.webhook_accounted",
                           0, NULL);
    if (result == NULL)
        return;
    metrics_set(upkeep->metrics, METRIC_UNACCOUNTED, column_int64_at(result, 0, 0, 0));
    metrics_set(upkeep->metrics, METRIC_ACCOUNTED, column_int64_at(result, 0, 1, 0));
    PQclear(result);
}

/* ---- what is old ---- */

static void put_seconds(char *text, size_t size, int64_t us)
{
    snprintf(text, size, "%lld seconds", (long long)(us / SECOND));
}

/* Returns true when old claims may be left: what the directory needs comes before them. */
static bool purge(struct upkeep *upkeep, struct session *session, const struct config *config,
                  int64_t until_us)
{
    char window[48], rows[16];
    put_seconds(window, sizeof window, config->postgres.dedup_window_us);
    snprintf(rows, sizeof rows, "%d", PURGE_ROWS);
    const char *const params[] = {window, rows};
    do {
        if (!clocks_agree(upkeep, session) ||
            call(session, "SELECT mcp.purge_claims($1::interval, $2::int)", 2, params) < PURGE_ROWS)
            return false;
    } while (may_go_on(session, until_us));
    return true;
}

static void purge_security_events(struct session *session, const struct config *config)
{
    char kept[48], rows[16];
    put_seconds(kept, sizeof kept, config->postgres.security_events_us);
    snprintf(rows, sizeof rows, "%d", PURGE_ROWS);
    const char *const params[] = {kept, rows};
    call(session, "SELECT mcp.purge_security_events($1::interval, $2::int)", 2, params);
}

/* A partition of the holding topics that was not seen taken over for long. */
static void check_purge(struct upkeep *upkeep, struct session *session)
{
    PGresult *result = ask(session, "SELECT mcp.purge_waits()", 0, NULL);
    if (result != NULL)
        tell(upkeep->purge_told, sizeof upkeep->purge_told, "purge_waits", PQgetvalue(result, 0, 0),
             "claims are purged again");
    PQclear(result);
}

/* Returns true when there is more. */
static bool delete_old(struct upkeep *upkeep, struct session *session, const struct config *config,
                       int64_t until_us)
{
    bool left = purge(upkeep, session, config, until_us);
    if (!session_is_open(session) || !clocks_agree(upkeep, session))
        return left;
    if (!left)
        call(session, "SELECT mcp.drop_event_partitions('" RECEIPTS_KEPT "')", 0, NULL);
    if (session_is_open(session))
        purge_security_events(session, config);
    if (session_is_open(session))
        call(session, "SELECT mcp.purge_quotas()", 0, NULL);
    if (session_is_open(session))
        check_purge(upkeep, session);
    return left;
}

bool upkeep_run(struct upkeep *upkeep, struct session *session, const struct config *config,
                int64_t until_us)
{
    call(session, "SELECT mcp.ensure_event_partitions(7)", 0, NULL);
    if (session_is_open(session))
        check_durability(upkeep, session);
    if (session_is_open(session))
        (void)clocks_agree(upkeep, session); /* each instance tells of its own host's */
    /* One instance at a time; the lock goes with the session, if need be. */
    bool locked = session_is_open(session) &&
                  call(session, "SELECT pg_try_advisory_lock(hashtext('hookgate.upkeep'), 0)::int",
                       0, NULL) == 1;
    int64_t now = clock_mono_us();
    bool left = locked && compare(upkeep, session, now + (until_us - now) / 2);
    if (session_is_open(session))
        tell_accounts(upkeep, session);
    if (!session_is_open(session) || !locked)
        return false;
    left |= delete_old(upkeep, session, config, until_us);
    if (session_is_open(session))
        call(session, "SELECT pg_advisory_unlock(hashtext('hookgate.upkeep'), 0)::int", 0, NULL);
    return left;
}
