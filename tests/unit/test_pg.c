/* Connecting: what a server list and its silent servers cost. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "pg.h"

#include "clock.h"
#include "pg_server.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define SECOND INT64_C(1000000)

static struct {
    bool ready;
    int unreachable;
    char reason[512];
} heard;

static void on_ready(void *context)
{
    (void)context;
    heard.ready = true;
}

static void on_result(void *context, PGresult *result)
{
    (void)context;
    PQclear(result);
}

static void on_sync(void *context)
{
    (void)context;
}

static void on_lost(void *context, const char *reason)
{
    (void)context, (void)reason;
}

static void on_unreachable(void *context, const char *reason)
{
    (void)context;
    heard.unreachable++;
    snprintf(heard.reason, sizeof heard.reason, "%s", reason);
}

static const struct pg_handler handler = {
    .on_ready = on_ready,
    .on_result = on_result,
    .on_sync = on_sync,
    .on_lost = on_lost,
    .on_unreachable = on_unreachable,
};

static const struct pg_statement statements[] = {{"one", "SELECT 1"}, {NULL, NULL}};

/* Until it is ready or has failed; the seconds that took. */
static double connect_to(const char *conninfo_text, const char *options)
{
    heard.ready = false;
    heard.unreachable = 0;
    struct loop *loop = loop_new();
    struct conninfo *conninfo = conninfo_new(conninfo_text, NULL, options);
    int64_t began = clock_mono_us();
    struct pg *pg = pg_new(loop, conninfo, statements, &handler, NULL);
    while (!heard.ready && heard.unreachable == 0 && clock_mono_us() < began + 12 * SECOND)
        loop_turn(loop, 100);
    int64_t took = clock_mono_us() - began;
    pg_free(pg);
    conninfo_unref(conninfo);
    loop_free(loop);
    return (double)took / (double)SECOND;
}

/* Two silent servers, each in its own way, before the one that answers. */
static void test_a_list_is_gone_through(void **state)
{
    (void)state;
    static struct pg_server dead, frozen, good;
    pg_server_dead(&dead);
    pg_server_frozen(&frozen);
    pg_server_start(&good, "");
    char text[256];
    snprintf(text, sizeof text,
             "host=127.0.0.1,127.0.0.1,127.0.0.1 port=%d,%d,%d user=u sslmode=disable"
             " gssencmode=disable",
             dead.port, frozen.port, good.port);
    double seconds = connect_to(text, NULL);
    assert_true(heard.ready);
    assert_true(seconds < 6);
    pg_server_close(&dead);
    pg_server_close(&frozen);
}

/* Nobody else is asked, but nobody waits as long as for a list either. */
static void test_a_server_that_freezes_behind_the_connection(void **state)
{
    (void)state;
    static struct pg_server silent;
    pg_server_start(&silent, NULL);
    char text[256];
    snprintf(text, sizeof text, "host=127.0.0.1 port=%d user=u sslmode=disable gssencmode=disable",
             silent.port);
    double seconds = connect_to(text, NULL);
    assert_false(heard.ready);
    assert_int_equal(heard.unreachable, 1);
    assert_true(seconds > 2 && seconds < 6);
}

/* A pooler that drops "options" would have us acknowledge what a crash can lose. */
static void test_settings_that_were_not_taken(void **state)
{
    (void)state;
    static struct pg_server weak;
    pg_server_start(&weak, "synchronous_commit is off");
    char text[256];
    snprintf(text, sizeof text, "host=127.0.0.1 port=%d user=u sslmode=disable gssencmode=disable",
             weak.port);
    connect_to(text, "-c synchronous_commit=on");
    assert_false(heard.ready);
    assert_int_equal(heard.unreachable, 1);
    assert_non_null(strstr(heard.reason, "did not take our session's settings"));
    assert_non_null(strstr(heard.reason, "(synchronous_commit is off)"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_list_is_gone_through),
        cmocka_unit_test(test_a_server_that_freezes_behind_the_connection),
        cmocka_unit_test(test_settings_that_were_not_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
