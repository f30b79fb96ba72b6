/* The lease thread's statements against a fake pg.c: every statement ends in one word to its
 * sender, also where the server refuses it. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "lease_store.h"

#include "log.h"
#include "pg.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* ---- fake connection: the test answers ---- */

struct pg {
    const struct pg_handler *handler;
    void *context;
};

static struct pg the_pg;

struct pg *pg_new(struct loop *loop, struct conninfo *conninfo,
                  const struct pg_statement *statements, const struct pg_handler *handler,
                  void *context)
{
    (void)loop, (void)conninfo, (void)statements;
    the_pg = (struct pg){handler, context};
    return &the_pg;
}

void pg_free(struct pg *pg)
{
    (void)pg;
}

void pg_send(struct pg *pg, const char *statement, int count, const struct pg_param *params)
{
    (void)pg, (void)statement, (void)count, (void)params;
}

void pg_sync(struct pg *pg)
{
    (void)pg;
}

void pg_drop(struct pg *pg, const char *reason)
{
    (void)pg, (void)reason;
}

static void refuse(void)
{
    the_pg.handler->on_result(the_pg.context, PQmakeEmptyPGresult(NULL, PGRES_FATAL_ERROR));
    the_pg.handler->on_sync(the_pg.context);
}

/* ---- what the sender hears ---- */

static struct {
    int leased, alive, left, lost;
    const struct lease_answer *answers;
    int64_t instances;
} heard;

static void on_ready(void *context)
{
    (void)context;
}

static void on_leased(void *context, const struct lease_answer *answers)
{
    (void)context;
    heard.leased++;
    heard.answers = answers;
}

static void on_alive(void *context, int64_t instances)
{
    (void)context;
    heard.alive++;
    heard.instances = instances;
}

static void on_left(void *context)
{
    (void)context;
    heard.left++;
}

static void on_lost(void *context, const char *reason)
{
    (void)context, (void)reason;
    heard.lost++;
}

static const struct lease_store_handler handler = {on_ready, on_leased, on_alive, on_left, on_lost};

static int set_up(void **state)
{
    memset(&heard, 0, sizeof heard);
    heard.instances = -1;
    *state = lease_store_new(NULL, &(struct lease_store_options){.conninfo = "host=/nowhere"},
                             &handler, NULL);
    return 0;
}

static int tear_down(void **state)
{
    lease_store_free(*state);
    return 0;
}

static void ask(struct lease_store *store)
{
    lease_store_ask(store, &(struct lease_ask){.workspace = "w", .platform = "zoom", .want = 3}, 1,
                    2);
}

static void what_is_refused_is_told_to_its_sender(void **state)
{
    ask(*state);
    lease_store_alive(*state);
    lease_store_leave(*state);
    refuse();
    assert_int_equal(heard.leased, 1);
    assert_null(heard.answers);
    assert_int_equal(heard.alive, 0);
    refuse();
    assert_int_equal(heard.alive, 1);
    assert_int_equal(heard.instances, 0);
    assert_int_equal(heard.left, 0);
    refuse();
    assert_int_equal(heard.left, 1);
}

/* What follows is answered in its own turn, not in that of what was lost. */
static void what_was_under_way_is_forgotten_with_the_connection(void **state)
{
    ask(*state);
    lease_store_alive(*state);
    the_pg.handler->on_lost(the_pg.context, "the test says so");
    assert_int_equal(heard.lost, 1);
    lease_store_alive(*state);
    refuse();
    assert_int_equal(heard.leased, 0);
    assert_int_equal(heard.alive, 1);
}

int main(void)
{
    log_set_level(LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_refused_is_told_to_its_sender, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_was_under_way_is_forgotten_with_the_connection, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
