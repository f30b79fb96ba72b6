/* A round of upkeep against a fake session: what is compared and deleted, how long a round goes on,
 * and that nothing is deleted by a clock that may be wrong. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "upkeep.h"

#include "clock.h"
#include "config.h"
#include "log.h"
#include "metrics.h"
#include "session.h"

#include <arpa/inet.h>
#include <endian.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define SECOND INT64_C(1000000)
#define DAY (86400 * SECOND)

/* ---- fake server ---- */

static struct {
    int64_t clock_ahead_us, accounted, unaccounted;
    int32_t behind[8];   /* answers of compare_claims() in turn, then 0 */
    int purged;          /* answer of purge_claims(), all times but the last */
    int purges_full;     /* how many times */
    int skew_after;      /* purges, after which the clock is a day ahead; 0 = never */
    const char *fails;   /* a statement that holds this is refused */
    const char *waits;   /* purge_waits() */
    bool is_locked_else; /* another instance has the lock */
    bool is_lost;        /* the connection, from the first purge on */
    bool is_notified;
    /* what was asked */
    int compares, wholes, purges, drops, others;
} server;

struct session {
    bool is_open;
};

static struct session session;
static atomic_bool stopping;

static PGresult *row_new(int columns)
{
    static char name[] = "c";
    PGresAttDesc descriptions[2] = {{.name = name, .format = 1}, {.name = name, .format = 1}};
    PGresult *result = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
    assert_true(PQsetResultAttrs(result, columns, descriptions));
    return result;
}

static void put(PGresult *result, int column, const void *bytes, size_t len)
{
    char copy[256];
    memcpy(copy, bytes, len);
    assert_true(PQsetvalue(result, 0, column, copy, (int)len));
}

static PGresult *int32_row(int32_t value)
{
    PGresult *result = row_new(1);
    uint32_t wire = htonl((uint32_t)value);
    put(result, 0, &wire, sizeof wire);
    return result;
}

static PGresult *int64_row(int columns, int64_t first, int64_t second)
{
    PGresult *result = row_new(columns);
    uint64_t wire[] = {htobe64((uint64_t)first), htobe64((uint64_t)second)};
    for (int i = 0; i < columns; i++)
        put(result, i, &wire[i], sizeof wire[i]);
    return result;
}

static PGresult *text_row(const char *text)
{
    PGresult *result = row_new(1);
    put(result, 0, text, strlen(text));
    return result;
}

static bool has(const char *sql, const char *word)
{
    return strstr(sql, word) != NULL;
}

static int32_t purge_some(void)
{
    if (++server.purges == server.skew_after)
        server.clock_ahead_us = DAY;
    return server.purges <= server.purges_full ? server.purged : 0;
}

PGresult *session_query(struct session *it, const char *sql, int count, const char *const *params)
{
    (void)count, (void)params;
    assert_true(it->is_open);
    if (server.fails != NULL && has(sql, server.fails))
        return PQmakeEmptyPGresult(NULL, PGRES_FATAL_ERROR);
    if (has(sql, "clock_timestamp"))
        return int64_row(1, clock_wall_us() + server.clock_ahead_us, 0);
    if (has(sql, "pg_try_advisory_lock"))
        return int32_row(!server.is_locked_else);
    if (has(sql, "mcp.find_unaccounted"))
        return server.wholes++, int32_row(0);
    if (has(sql, "mcp.compare_claims"))
        return int32_row(server.compares < 8 ? server.behind[server.compares++] : 0);
    if (has(sql, "mcp.webhook_unaccounted"))
        return int64_row(2, server.unaccounted, server.accounted);
    if (has(sql, "mcp.purge_waits") || has(sql, "mcp.durability_problems"))
        return text_row(has(sql, "purge") && server.waits != NULL ? server.waits : "");
    if (has(sql, "mcp.purge_claims")) {
        it->is_open = !server.is_lost;
        return it->is_open ? int32_row(purge_some()) : NULL;
    }
    if (has(sql, "mcp.drop_event_partitions"))
        server.drops++;
    else if (has(sql, "mcp.purge_security_events") || has(sql, "mcp.purge_quotas"))
        server.others++;
    return int32_row(0);
}

bool session_is_open(const struct session *it)
{
    return it->is_open;
}

bool session_is_notified(struct session *it)
{
    (void)it;
    return server.is_notified;
}

void session_listen(struct session *it, int64_t deadline_us)
{
    (void)it, (void)deadline_us;
}

const atomic_bool *session_stopping(const struct session *it)
{
    (void)it;
    return &stopping;
}

/* ---- what is told ---- */

static char told[2048];
static int64_t gauges[METRIC_COUNT];

void log_event(enum log_level level, const char *event, const char *fmt, ...)
{
    size_t len = strlen(told);
    len += (size_t)snprintf(told + len, sizeof told - len, "%d %s: ", level, event);
    va_list args;
    va_start(args, fmt);
    len += (size_t)vsnprintf(told + len, sizeof told - len, fmt, args);
    va_end(args);
    snprintf(told + len, sizeof told - len, "\n");
}

void metrics_set(struct metrics *metrics, enum metric metric, int64_t value)
{
    (void)metrics;
    gauges[metric] = value;
}

/* ---- */

static struct upkeep upkeep;
static const struct config config = {
    .postgres = {.dedup_window_us = 3 * DAY, .security_events_us = 30 * DAY}};

static int begin(void **state)
{
    (void)state;
    memset(&server, 0, sizeof server);
    memset(gauges, 0, sizeof gauges);
    upkeep = (struct upkeep){0};
    session.is_open = true;
    told[0] = '\0';
    return 0;
}

static bool run(int64_t for_us)
{
    return upkeep_run(&upkeep, &session, &config, clock_mono_us() + for_us);
}

static void test_a_quiet_round(void **state)
{
    (void)state;
    server.accounted = 1700000000;
    assert_false(run(5 * SECOND));
    assert_int_equal(server.wholes, 1);
    assert_int_equal(server.compares, 1);
    assert_int_equal(server.purges, 1);
    assert_int_equal(server.drops, 1);
    assert_int_equal(server.others, 2);
    assert_int_equal(gauges[METRIC_UNACCOUNTED], 0);
    assert_int_equal(gauges[METRIC_ACCOUNTED], 1700000000);
    assert_in_range(gauges[METRIC_STORE_CLOCK] + 5, 4, 6);
    assert_string_equal(told, "");
}

static void test_claims_are_compared_to_the_end(void **state)
{
    (void)state;
    server.behind[0] = 180, server.behind[1] = 60, server.behind[2] = 1;
    assert_false(run(5 * SECOND));
    assert_int_equal(server.compares, 4);
    assert_int_equal(server.wholes, 1);
}

static void test_time_is_over(void **state)
{
    (void)state;
    for (int i = 0; i < 8; i++)
        server.behind[i] = 100;
    server.purged = 5000, server.purges_full = 3;
    assert_true(run(0));
    assert_int_equal(server.compares, 1);
    assert_int_equal(server.purges, 1); /* the purge has its turn, too */
    assert_int_equal(server.drops, 0);
    assert_true(run(0)); /* at once: what waits was compared whole */
    assert_int_equal(server.wholes, 1);
    assert_int_equal(server.compares, 2);
    server.is_notified = true;
    assert_true(run(5 * SECOND));
    assert_int_equal(server.compares, 3);
    server.purges_full = 0;
    assert_true(run(5 * SECOND));
    assert_int_equal(server.drops, 1);
}

/* The time that is told stays behind, whatever fails. */
static void test_comparing_fails(void **state)
{
    (void)state;
    server.fails = "mcp.find_unaccounted", server.accounted = 5, server.unaccounted = 3;
    assert_false(run(5 * SECOND));
    assert_int_equal(server.compares, 0);
    assert_int_equal(gauges[METRIC_ACCOUNTED], 5);
    assert_int_equal(gauges[METRIC_UNACCOUNTED], 3);
    assert_int_equal(server.purges, 1);
    assert_non_null(strstr(told, "2 upkeep_failed: "));
    server.fails = "mcp.compare_claims";
    assert_false(run(5 * SECOND));
    assert_int_equal(server.wholes, 1);
    server.fails = NULL;
    server.behind[0] = 7;
    assert_false(run(5 * SECOND));
    assert_int_equal(server.compares, 2);
}

static void test_another_instance_has_the_lock(void **state)
{
    (void)state;
    server.is_locked_else = true, server.unaccounted = 2, server.accounted = 9;
    server.clock_ahead_us = 100 * SECOND;
    assert_false(run(5 * SECOND));
    assert_int_equal(server.wholes + server.compares + server.purges + server.drops, 0);
    assert_int_equal(gauges[METRIC_UNACCOUNTED], 2);
    assert_int_equal(gauges[METRIC_ACCOUNTED], 9);
    assert_in_range(gauges[METRIC_STORE_CLOCK], 99, 100);
    assert_string_equal(told, "");
}

static void check_clock(int64_t ahead_us, const char *says)
{
    begin(NULL);
    server.clock_ahead_us = ahead_us;
    for (int i = 0; i < 2; i++)
        assert_false(run(5 * SECOND));
    assert_int_equal(server.purges + server.drops + server.others, 0);
    assert_int_equal(server.compares, 2);
    assert_non_null(strstr(told, says));
    assert_null(strchr(strchr(told, '\n') + 1, '\n')); /* once */
    server.clock_ahead_us = 0;
    told[0] = '\0';
    assert_false(run(5 * SECOND));
    assert_string_equal(told, "1 clock_differs: Postgres' clock agrees with this host's again\n");
    assert_int_equal(server.purges, 1);
    assert_int_equal(server.drops, 1);
}

static void test_clocks_differ(void **state)
{
    (void)state;
    check_clock(3 * DAY + SECOND / 2, "3 clock_differs: Postgres' clock is 259200 s ahead of");
    check_clock(-605 * SECOND, "s behind this host's");
}

static void test_the_clock_is_set_while_claims_are_purged(void **state)
{
    (void)state;
    server.purged = 5000, server.purges_full = 100, server.skew_after = 3;
    assert_false(run(5 * SECOND));
    assert_int_equal(server.purges, 3);
    assert_int_equal(server.drops + server.others, 0);
    begin(NULL);
    server.skew_after = 1; /* with the last claims */
    assert_false(run(5 * SECOND));
    assert_int_equal(server.drops + server.others, 0);
}

static void test_the_clock_is_not_told(void **state)
{
    (void)state;
    server.fails = "clock_timestamp";
    assert_false(run(5 * SECOND));
    assert_int_equal(server.purges + server.drops + server.others, 0);
}

static void test_the_purge_waits(void **state)
{
    (void)state;
    server.waits = "claims are not purged behind noon";
    for (int i = 0; i < 2; i++)
        assert_false(run(5 * SECOND));
    assert_string_equal(told, "2 purge_waits: claims are not purged behind noon\n");
    server.waits = NULL;
    told[0] = '\0';
    assert_false(run(5 * SECOND));
    assert_string_equal(told, "1 purge_waits: claims are purged again\n");
}

static void test_the_connection_is_lost(void **state)
{
    (void)state;
    server.is_lost = true;
    assert_false(run(5 * SECOND));
    assert_int_equal(server.drops + server.others, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_a_quiet_round, begin),
        cmocka_unit_test_setup(test_claims_are_compared_to_the_end, begin),
        cmocka_unit_test_setup(test_time_is_over, begin),
        cmocka_unit_test_setup(test_comparing_fails, begin),
        cmocka_unit_test_setup(test_another_instance_has_the_lock, begin),
        cmocka_unit_test_setup(test_clocks_differ, begin),
        cmocka_unit_test_setup(test_the_clock_is_set_while_claims_are_purged, begin),
        cmocka_unit_test_setup(test_the_clock_is_not_told, begin),
        cmocka_unit_test_setup(test_the_purge_waits, begin),
        cmocka_unit_test_setup(test_the_connection_is_lost, begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
