/* The lease thread against a server of the test's own, linked in place of lease_store.c: what is
 * asked for, settled and given back, and what is granted when nobody answers. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "clock.h"
#include "config.h"
#include "lease.h"
#include "lease_store.h"
#include "log.h"
#include "metrics.h"
#include "quota.h"
#include "shown.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- the server: answers on the lease thread, at the end of the turn ---- */

struct lease_store {
    struct loop *loop;
    const struct lease_store_handler *handler;
    void *context;
    struct loop_task answer, alive, ready, lost, left;
    struct lease_answer answers[LEASE_ASKS_MAX];
};

/* Under the mutex: the test reads and writes it meanwhile. */
static struct {
    pthread_mutex_t mutex;
    struct lease_store *store;
    int64_t room, used; /* one limit for all quotas */
    int64_t wait_us;
    size_t statements, asks;
    int64_t spent, back, wanted; /* sums of all asks */
    int64_t instances, alive_us; /* when it last told how many there are */
    bool silent, refuses, left;
    int64_t signs; /* of life */
} server = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void on_answer(struct loop_task *task)
{
    struct lease_store *store = container_of(task, struct lease_store, answer);
    pthread_mutex_lock(&server.mutex);
    bool refuses = server.refuses;
    pthread_mutex_unlock(&server.mutex);
    if (refuses)
        usleep(20000); /* long enough for the test to see what holds meanwhile */
    store->handler->on_leased(store->context, refuses ? NULL : store->answers);
}

static void on_alive(struct loop_task *task)
{
    struct lease_store *store = container_of(task, struct lease_store, alive);
    pthread_mutex_lock(&server.mutex);
    server.signs++;
    int64_t instances = server.instances;
    server.alive_us = clock_mono_us();
    pthread_mutex_unlock(&server.mutex);
    store->handler->on_alive(store->context, instances);
}

static void on_ready(struct loop_task *task)
{
    struct lease_store *store = container_of(task, struct lease_store, ready);
    store->handler->on_ready(store->context);
}

static void on_lost(struct loop_task *task)
{
    struct lease_store *store = container_of(task, struct lease_store, lost);
    store->handler->on_lost(store->context, "the test says so");
    loop_defer(store->loop, &store->ready);
}

static void on_left(struct loop_task *task)
{
    struct lease_store *store = container_of(task, struct lease_store, left);
    store->handler->on_left(store->context);
}

struct lease_store *lease_store_new(struct loop *loop, const struct lease_store_options *options,
                                    const struct lease_store_handler *handler, void *context)
{
    (void)options;
    struct lease_store *store = xcalloc(1, sizeof *store);
    store->loop = loop;
    store->handler = handler;
    store->context = context;
    store->answer.run = on_answer;
    store->alive.run = on_alive;
    store->ready.run = on_ready;
    store->lost.run = on_lost;
    store->left.run = on_left;
    server.store = store;
    loop_defer(loop, &store->ready);
    return store;
}

void lease_store_free(struct lease_store *store)
{
    free(store);
}

void lease_store_ask(struct lease_store *store, const struct lease_ask *asks, size_t count,
                     int64_t instances)
{
    (void)instances;
    pthread_mutex_lock(&server.mutex);
    server.statements++;
    for (size_t i = 0; i < count && !server.silent && !server.refuses; i++) {
        int64_t spent = asks[i].spent_minute;
        server.asks++;
        server.used += spent;
        server.spent += spent > 0 ? spent : 0;
        server.back -= spent < 0 ? spent : 0;
        server.wanted += asks[i].want;
        int64_t room = server.room - server.used;
        int64_t granted = room <= 0 ? 0 : room < asks[i].want ? room : asks[i].want;
        server.used += granted;
        store->answers[i] =
            (struct lease_answer){.granted = (int32_t)granted,
                                  .plenty = server.used * 2 <= server.room,
                                  .wait_us = server.room - server.used <= 0 ? server.wait_us : 0};
    }
    bool silent = server.silent;
    pthread_mutex_unlock(&server.mutex);
    if (!silent)
        loop_defer(store->loop, &store->answer);
}

void lease_store_alive(struct lease_store *store)
{
    loop_defer(store->loop, &store->alive);
}

void lease_store_leave(struct lease_store *store)
{
    pthread_mutex_lock(&server.mutex);
    server.left = true;
    pthread_mutex_unlock(&server.mutex);
    loop_defer(store->loop, &store->left);
}

void lease_store_drop(struct lease_store *store, const char *reason)
{
    (void)reason;
    loop_defer(store->loop, &store->lost);
}

/* ---- the test's side ---- */

static struct lease *lease;
static struct quota *quota;

static int64_t get(const int64_t *value)
{
    pthread_mutex_lock(&server.mutex);
    int64_t copy = *value;
    pthread_mutex_unlock(&server.mutex);
    return copy;
}

static void set_bool(bool *flag, bool value)
{
    pthread_mutex_lock(&server.mutex);
    *flag = value;
    pthread_mutex_unlock(&server.mutex);
}

/* By their contract they stay until the process ends. Not static, so that no compiler finds them
 * unused and a leak checker finds them reachable. */
struct lease *stopped[64];
size_t stopped_count;

static void end(struct lease *ending)
{
    lease_stop(ending);
    assert_true(stopped_count < sizeof stopped / sizeof *stopped);
    stopped[stopped_count++] = ending;
}

static int start(void **state)
{
    (void)state;
    static const struct config config = {.postgres = {.conninfo = ""}};
    server.room = 100;
    server.used = server.spent = server.back = server.wanted = 0;
    server.statements = server.asks = 0;
    server.wait_us = 30000000;
    server.instances = 3;
    server.silent = server.refuses = server.left = false;
    quotas_set_instances(100);
    lease = lease_start(&config);
    quota = quota_get("w", "zoom", (struct quota_limits){100, 1000});
    while (quotas_instances() != 3)
        usleep(1000);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    end(lease);
    quota_unref(quota);
    return 0;
}

/* As a delivery does it, without a loop: waits for tokens for a while. */
static bool take(int64_t patience_us)
{
    int64_t end = clock_mono_us() + patience_us, wait;
    enum quota_verdict verdict = quota_take(quota, clock_mono_us(), &wait);
    if (verdict != QUOTA_UNKNOWN)
        return verdict == QUOTA_TAKEN;
    atomic_fetch_add(&quota->waiting, 1);
    while ((verdict = quota_take(quota, clock_mono_us(), &wait)) == QUOTA_UNKNOWN &&
           clock_mono_us() < end) {
        quota_ask(quota);
        usleep(500);
    }
    atomic_fetch_sub(&quota->waiting, 1);
    return verdict == QUOTA_TAKEN;
}

static void until_equal(const int64_t *value, int64_t wanted, int64_t us)
{
    for (int64_t end = clock_mono_us() + us; get(value) != wanted && clock_mono_us() < end;)
        usleep(2000);
    assert_int_equal(get(value), wanted);
}

static void until_above(const int64_t *value, int64_t bound)
{
    for (int64_t end = clock_mono_us() + 2000000; get(value) <= bound && clock_mono_us() < end;)
        usleep(2000);
    assert_true(get(value) > bound);
}

static void a_sparse_sender_is_settled_behind(void **state)
{
    (void)state;
    assert_true(take(0)); /* at once */
    until_equal(&server.used, 1, 500000);
    assert_int_equal(get(&server.spent), 1);
    assert_int_equal(get(&server.wanted), 0); /* nothing is held for it */
    usleep(30000);
    assert_true(take(0)); /* the credit is there again */
    until_equal(&server.used, 2, 4000000);
}

static void a_flood_gets_the_limit_and_one_credit_at_most(void **state)
{
    (void)state;
    int64_t taken = 0;
    for (int i = 0; i < 300; i++)
        taken += take(2000000);
    assert_in_range(taken, 100, 101);
    until_equal(&server.used, taken, 1000000);
    /* Refusals ask nobody. */
    pthread_mutex_lock(&server.mutex);
    size_t before = server.statements;
    pthread_mutex_unlock(&server.mutex);
    for (int i = 0; i < 1000; i++)
        assert_false(take(0));
    pthread_mutex_lock(&server.mutex);
    assert_in_range(server.statements, before, before + 2);
    pthread_mutex_unlock(&server.mutex);
}

static void what_nobody_spends_is_given_back(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++)
        assert_true(take(2000000));
    until_above(&server.used, 5);
    until_equal(&server.used, 5, 4000000);
    assert_true(get(&server.back) > 0);
}

static void others_give_back_and_it_is_noticed(void **state)
{
    (void)state;
    while (take(2000000))
        ;
    pthread_mutex_lock(&server.mutex);
    server.room += 2;
    pthread_mutex_unlock(&server.mutex);
    int64_t end = clock_mono_us() + 4000000;
    while (!take(0) && clock_mono_us() < end)
        usleep(10000);
    assert_true(clock_mono_us() < end);
}

static void silence_leaves_the_own_share(void **state)
{
    (void)state;
    int64_t taken = 0, began;
    set_bool(&server.silent, true);
    assert_true(take(0)); /* the credit; its settlement is never answered */
    began = clock_mono_us();
    assert_true(take(2000000));
    assert_in_range(clock_mono_us() - began, 0, 400000);
    for (int i = 0; i < 60; i++)
        taken += take(200000);
    assert_int_equal(2 + taken, 33);
    /* Back again: it is settled, and all of the rest is there. */
    set_bool(&server.silent, false);
    while (get(&server.used) < 33)
        usleep(10000);
    assert_in_range(clock_mono_us() - get(&server.alive_us), 0, 500000); /* not a tick later */
    for (int i = 0; i < 200; i++)
        taken += take(2000000);
    assert_in_range(2 + taken, 100, 101);
}

static void a_refused_statement_leaves_the_own_share(void **state)
{
    (void)state;
    set_bool(&server.refuses, true);
    int64_t taken = 0;
    for (int i = 0; i < 60; i++)
        taken += take(200000);
    assert_int_equal(taken, 33);
    pthread_mutex_lock(&server.mutex);
    assert_in_range(server.statements, 1, 3); /* it is not asked over and over */
    server.refuses = false;
    pthread_mutex_unlock(&server.mutex);
}

/* Of all leases that this process had: those that ended keep their last word. */
static int local_shares(void)
{
    return (int)metric("\nhookgate_limit_local_share ");
}

/* A sign of life comes every three seconds and is answered all the time. */
static void signs_of_life_do_not_end_the_own_share(void **state)
{
    (void)state;
    assert_true(take(0));
    until_equal(&server.used, 1, 2000000);
    int shared = local_shares();
    set_bool(&server.refuses, true);
    assert_true(take(2000000));
    for (int64_t end = clock_mono_us() + 2000000;
         local_shares() == shared && clock_mono_us() < end;)
        usleep(2000);
    int64_t signs = get(&server.signs), statements = get((const int64_t *)&server.statements);
    for (int64_t end = clock_mono_us() + 10000000;
         get(&server.signs) < signs + 2 && clock_mono_us() < end;) {
        assert_int_equal(local_shares(), shared + 1);
        usleep(500);
    }
    for (int i = 0; i < 100; i++, usleep(500))
        assert_int_equal(local_shares(), shared + 1);
    /* Each tried a lease, so the first one that is answered ends it, though nobody takes tokens. */
    assert_in_range(get((const int64_t *)&server.statements), statements + 1, statements + 3);
    set_bool(&server.refuses, false);
    until_equal(&server.used, 2, 5000000);
    assert_int_equal(local_shares(), shared);
}

static void what_is_known_to_be_used_up_stays_so(void **state)
{
    (void)state;
    int64_t taken = 0;
    pthread_mutex_lock(&server.mutex);
    server.used = 95; /* by others: of our own share nearly nothing is spent */
    pthread_mutex_unlock(&server.mutex);
    while (take(2000000))
        taken++;
    assert_in_range(taken, 5, 6);
    set_bool(&server.silent, true);
    usleep(1100000);
    for (int i = 0; i < 50; i++) {
        assert_false(take(0));
        usleep(10000);
    }
    set_bool(&server.silent, false);
}

static void stopping_gives_back_at_once(void **state)
{
    (void)state;
    for (int i = 0; i < 7; i++)
        assert_true(take(2000000));
    until_above(&server.used, 7);
    int64_t began = clock_mono_us();
    end(lease);
    assert_in_range(clock_mono_us() - began, 0, 900000);
    assert_int_equal(server.used, 7);
    assert_true(server.left);
    quota_unref(quota);
}

/* Those that asked meanwhile owe something as well. */
static void stopping_behind_a_statement_ends_in_time(void **state)
{
    (void)state;
    struct quota *others[3];
    int64_t wait;
    set_bool(&server.silent, true);
    assert_true(take(2000000));
    until_equal((const int64_t *)&server.statements, 1, 2000000);
    for (int i = 0; i < 3; i++) {
        others[i] =
            quota_get((const char *[]){"a", "b", "c"}[i], "zoom", (struct quota_limits){100, 1000});
        assert_int_equal(quota_take(others[i], clock_mono_us(), &wait), QUOTA_TAKEN);
    }
    int64_t began = clock_mono_us();
    end(lease);
    assert_in_range(clock_mono_us() - began, 0, 2000000);
    for (int i = 0; i < 3; i++)
        quota_unref(others[i]);
    quota_unref(quota);
}

/* Or the others would not count this one any more. */
static void a_refused_sign_of_life_is_given_again(void **state)
{
    (void)state;
    pthread_mutex_lock(&server.mutex);
    server.instances = 0;
    int64_t before = server.signs;
    pthread_mutex_unlock(&server.mutex);
    until_equal(&server.signs, before + 2, 10000000);
    assert_int_equal(quotas_instances(), 3);
}

static void many_quotas_share_a_statement(void **state)
{
    (void)state;
    enum { COUNT = 2000 };
    static struct quota *many[COUNT];
    pthread_mutex_lock(&server.mutex);
    server.room = 1000000;
    pthread_mutex_unlock(&server.mutex);
    char name[16];
    int64_t wait;
    for (int i = 0; i < COUNT; i++) {
        snprintf(name, sizeof name, "m%d", i);
        many[i] = quota_get(name, "zoom", (struct quota_limits){100, 1000});
    }
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(quota_take(many[i], clock_mono_us(), &wait), QUOTA_TAKEN);
    until_equal(&server.used, COUNT, 5000000);
    pthread_mutex_lock(&server.mutex);
    assert_in_range(server.statements, 1, 100);
    pthread_mutex_unlock(&server.mutex);
    for (int i = 0; i < COUNT; i++)
        quota_unref(many[i]);
}

int main(void)
{
    log_set_level(LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_sparse_sender_is_settled_behind, start, stop),
        cmocka_unit_test_setup_teardown(a_flood_gets_the_limit_and_one_credit_at_most, start, stop),
        cmocka_unit_test_setup_teardown(what_nobody_spends_is_given_back, start, stop),
        cmocka_unit_test_setup_teardown(others_give_back_and_it_is_noticed, start, stop),
        cmocka_unit_test_setup_teardown(silence_leaves_the_own_share, start, stop),
        cmocka_unit_test_setup_teardown(a_refused_statement_leaves_the_own_share, start, stop),
        cmocka_unit_test_setup_teardown(signs_of_life_do_not_end_the_own_share, start, stop),
        cmocka_unit_test_setup_teardown(what_is_known_to_be_used_up_stays_so, start, stop),
        cmocka_unit_test_setup(stopping_gives_back_at_once, start),
        cmocka_unit_test_setup(stopping_behind_a_statement_ends_in_time, start),
        cmocka_unit_test_setup_teardown(a_refused_sign_of_life_is_given_again, start, stop),
        cmocka_unit_test_setup_teardown(many_quotas_share_a_statement, start, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
