/* The witness against a fake pg.c: what it writes, and what becomes of it when the statement fails,
 * the connection is lost or nothing answers. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "witness.h"

#include "clock.h"
#include "config.h"
#include "log.h"
#include "loop.h"
#include "metrics.h"
#include "pg.h"
#include "sighting.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define NOON (INT64_C(1767009600) * 1000000) /* 2025-12-29 12:00 UTC */

/* ---- fake connection: the last statement is kept, the test answers ---- */

struct pg {
    const struct pg_handler *handler;
    void *context;
    char rows[65536];
    int sent, synced, dropped;
};

static struct pg the_pg;

struct pg *pg_new(struct loop *loop, struct conninfo *conninfo,
                  const struct pg_statement *statements, const struct pg_handler *handler,
                  void *context)
{
    (void)loop, (void)conninfo, (void)statements;
    the_pg = (struct pg){.handler = handler, .context = context};
    return &the_pg;
}

void pg_free(struct pg *pg)
{
    (void)pg;
}

void pg_send(struct pg *pg, const char *statement, int count, const struct pg_param *params)
{
    assert_string_equal(statement, "witness");
    assert_int_equal(count, 1);
    snprintf(pg->rows, sizeof pg->rows, "%.*s", params[0].len, params[0].value);
    pg->sent++;
}

void pg_sync(struct pg *pg)
{
    pg->synced++;
}

void pg_drop(struct pg *pg, const char *reason)
{
    (void)reason;
    pg->dropped++;
}

static void answer(ExecStatusType status)
{
    the_pg.handler->on_result(the_pg.context, PQmakeEmptyPGresult(NULL, status));
    the_pg.handler->on_sync(the_pg.context);
}

/* ---- a witness with one book ---- */

struct bench {
    struct config config;
    struct loop *loop;
    struct witness *witness;
    struct sighting_book *book;
};

static int set_up(void **state)
{
    static struct metrics *metrics;
    if (metrics == NULL)
        metrics = metrics_shard_new();
    log_set_level(LOG_ERROR);
    struct bench *bench = xcalloc(1, sizeof *bench);
    bench->config.postgres.conninfo = "host=/nowhere";
    bench->loop = loop_new();
    bench->witness = witness_new(bench->loop, &bench->config, metrics);
    bench->book = witness_book(bench->witness, metrics);
    *state = bench;
    return 0;
}

static int tear_down(void **state)
{
    struct bench *bench = *state;
    witness_free(bench->witness);
    loop_free(bench->loop);
    free(bench);
    return 0;
}

static void sight(struct bench *bench, enum outcome outcome, const char *source,
                  const unsigned char *integration, unsigned times)
{
    struct sighting_key key;
    sighting_key_of(&key, outcome, "zoom", integration, source, NOON);
    while (times-- > 0)
        sighting_book_add(bench->book, &key, NOON + 7);
    sighting_book_turn(bench->book);
}

/* A turn of the witness without waiting for its timer. */
static bool turn(struct bench *bench)
{
    return witness_is_finished(bench->witness);
}

static void test_what_is_written(void **state)
{
    struct bench *bench = *state;
    static const unsigned char uuid[16] = {0x5f, 0x0c, [15] = 0x11};
    sight(bench, OUTCOME_SIGNATURE_MISMATCH, "192.0.2.1", uuid, 3);
    assert_false(turn(bench));
    assert_int_equal(the_pg.sent, 0); /* no connection yet */
    the_pg.handler->on_ready(the_pg.context);
    sight(bench, OUTCOME_DUPLICATE, "nobody", uuid, 1);
    assert_false(turn(bench));
    assert_int_equal(the_pg.sent, 1);
    assert_int_equal(the_pg.synced, 1);
    assert_string_equal(
        the_pg.rows,
        "[{\"hour\":490836,\"kind\":\"signature\",\"outcome\":\"signature_mismatch\",\"count\":3,"
        "\"first\":1767009600000007,\"last\":1767009600000007,\"platform\":\"zoom\","
        "\"integration\":\"5f0c0000-0000-0000-0000-000000000011\",\"source\":\"192.0.2.1\"},"
        "{\"hour\":490836,\"kind\":\"replay\",\"outcome\":\"duplicate\",\"count\":1,"
        "\"first\":1767009600000007,\"last\":1767009600000007,\"platform\":\"zoom\"}]");
    answer(PGRES_TUPLES_OK);
    assert_true(turn(bench));
    assert_int_equal(the_pg.sent, 1); /* nothing new, nothing written */
}

/* By its own timer, within about a second, again and again. */
static void test_timer(void **state)
{
    struct bench *bench = *state;
    the_pg.handler->on_ready(the_pg.context);
    for (int round = 1; round <= 2; round++) {
        sight(bench, OUTCOME_NO_SECRET, "192.0.2.1", NULL, 1);
        int64_t began = clock_mono_us();
        while (the_pg.sent < round && clock_mono_us() < began + 1500000)
            loop_turn(bench->loop, 100);
        assert_int_equal(the_pg.sent, round);
        answer(PGRES_TUPLES_OK);
    }
}

static void test_one_statement_at_a_time(void **state)
{
    struct bench *bench = *state;
    the_pg.handler->on_ready(the_pg.context);
    sight(bench, OUTCOME_NO_SECRET, "192.0.2.1", NULL, 1);
    assert_false(turn(bench));
    sight(bench, OUTCOME_NO_SECRET, "192.0.2.1", NULL, 5);
    assert_false(turn(bench));
    assert_int_equal(the_pg.sent, 1);
    answer(PGRES_TUPLES_OK);
    assert_false(turn(bench));
    assert_int_equal(the_pg.sent, 2);
    assert_non_null(strstr(the_pg.rows, "\"count\":5,"));
    answer(PGRES_TUPLES_OK);
}

/* What failed or was lost is told again, with what came meanwhile. */
static void test_failures(void **state)
{
    struct bench *bench = *state;
    the_pg.handler->on_ready(the_pg.context);
    sight(bench, OUTCOME_NO_SECRET, "192.0.2.1", NULL, 1);
    assert_false(turn(bench));
    sight(bench, OUTCOME_NO_SECRET, "192.0.2.1", NULL, 1);
    answer(PGRES_FATAL_ERROR);
    assert_false(turn(bench));
    assert_int_equal(the_pg.sent, 2);
    assert_non_null(strstr(the_pg.rows, "\"count\":2,"));
    the_pg.handler->on_lost(the_pg.context, "gone");
    sight(bench, OUTCOME_NO_SECRET, "192.0.2.1", NULL, 1);
    assert_false(turn(bench));
    assert_int_equal(the_pg.sent, 2);
    the_pg.handler->on_unreachable(the_pg.context, "still gone");
    the_pg.handler->on_ready(the_pg.context);
    assert_false(turn(bench));
    assert_non_null(strstr(the_pg.rows, "\"count\":3,"));
    answer(PGRES_TUPLES_OK);
    assert_true(turn(bench));
}

/* The end of the process does not wait for a server that is away. */
static void test_finishing_has_a_limit(void **state)
{
    struct bench *bench = *state;
    sight(bench, OUTCOME_NO_SECRET, "192.0.2.1", NULL, 1);
    int64_t began = clock_mono_us();
    while (!witness_is_finished(bench->witness) && clock_mono_us() < began + 3000000)
        loop_turn(bench->loop, 10);
    int64_t took = clock_mono_us() - began;
    assert_true(took > 900000 && took < 2500000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_is_written, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_timer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_one_statement_at_a_time, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_failures, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_finishing_has_a_limit, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("witness", tests, NULL, NULL);
}
