/* The loader's connection: silent servers before the right one, and a stop while it connects. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "session.h"

#include "clock.h"
#include "conninfo.h"
#include "pg_server.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define SECOND INT64_C(1000000)

static void on_notice(void *context, const char *message)
{
    (void)context, (void)message;
}

static struct session *session_to(const int *ports)
{
    char text[256];
    snprintf(text, sizeof text,
             "host=127.0.0.1,127.0.0.1,127.0.0.1 port=%d,%d,%d user=u sslmode=disable"
             " gssencmode=disable",
             ports[0], ports[1], ports[2]);
    struct conninfo *conninfo = conninfo_new(text, NULL, NULL);
    struct session *session = session_new(conninfo, on_notice);
    conninfo_unref(conninfo);
    return session;
}

static void test_a_list_is_gone_through(void **state)
{
    (void)state;
    static struct pg_server dead, frozen, good;
    pg_server_dead(&dead);
    pg_server_frozen(&frozen);
    pg_server_start(&good, "");
    struct session *session = session_to((int[]){dead.port, frozen.port, good.port});
    int64_t began = clock_mono_us();
    assert_true(session_open(session));
    assert_true(clock_mono_us() - began < 6 * SECOND);
    assert_true(session_must_run(session, "SELECT 1"));
    session_free(session);
    pg_server_close(&dead);
    pg_server_close(&frozen);
}

static void *stop_soon(void *context)
{
    usleep(200000);
    session_stop(context);
    return NULL;
}

/* The stop does not wait for libpq, and libpq may end after the session. */
static void test_a_stop_while_it_connects(void **state)
{
    (void)state;
    static struct pg_server frozen;
    pg_server_frozen(&frozen);
    struct session *session = session_to((int[]){frozen.port, frozen.port, frozen.port});
    pthread_t thread;
    assert_int_equal(thread_start(&thread, stop_soon, session), 0);
    int64_t began = clock_mono_us();
    assert_false(session_open(session));
    assert_true(clock_mono_us() - began < SECOND);
    pthread_join(thread, NULL);
    session_free(session);
    pg_server_close(&frozen); /* resets what libpq waits for */
    usleep(300000);
}

static void test_settings_that_were_not_taken(void **state)
{
    (void)state;
    static struct pg_server weak;
    pg_server_start(&weak, "statement_timeout is 0");
    struct session *session = session_to((int[]){weak.port, weak.port, weak.port});
    assert_false(session_open(session));
    assert_false(session_is_open(session));
    assert_non_null(strstr(session_reason(session), "(statement_timeout is 0)"));
    session_free(session);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_list_is_gone_through),
        cmocka_unit_test(test_a_stop_while_it_connects),
        cmocka_unit_test(test_settings_that_were_not_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
