/* Waiting for tokens on a loop: who is woken, who is refused, and who overdraws when nobody
 * answers. The quotas are real; the test plays the lease thread. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "clock.h"
#include "limit.h"
#include "loop.h"
#include "metrics.h"
#include "quota.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define OPS LIMIT_WAITING_MAX

struct waiter {
    struct limit_op op;
    int calls;
    enum limit_verdict verdict;
    int64_t wait_us;
};

static struct loop *loop;
static struct limit *limit;
static struct quota *quota;
static struct waiter waiters[OPS];

static void on_done(struct limit_op *op, enum limit_verdict verdict, int64_t wait_us)
{
    struct waiter *waiter = container_of(op, struct waiter, op);
    waiter->calls++;
    waiter->verdict = verdict;
    waiter->wait_us = wait_us;
}

static int setup(void **state)
{
    (void)state;
    loop = loop_new();
    limit = limit_new(loop, metrics_shard_new());
    quota = quota_get("w", "zoom", (struct quota_limits){100, 1000});
    atomic_store(&quota->tokens, 0);
    atomic_store(&quota->floor, 0);
    memset(waiters, 0, sizeof waiters);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (struct quota *asked = quotas_asked(), *next; asked != NULL; asked = next) {
        next = asked->next_asked;
        quota_unref(asked);
    }
    limit_free(limit);
    quota_unref(quota);
    loop_free(loop);
    return 0;
}

static void wait_for(struct waiter *waiter)
{
    int64_t wait_us;
    assert_int_equal(limit_take(limit, quota, &wait_us), LIMIT_WAIT);
    waiter->op.quota = quota;
    waiter->op.on_done = on_done;
    limit_wait(limit, &waiter->op);
    assert_int_equal(waiter->calls, 0);
}

static void turn_for(int64_t us)
{
    for (int64_t end = clock_mono_us() + us, now; (now = clock_mono_us()) < end;)
        loop_turn(loop, (int)((end - now) / 1000) + 1);
}

/* As the lease thread does it: from another thread. */
static void *answer(void *tokens)
{
    atomic_fetch_add(&quota->tokens, *(int *)tokens);
    quotas_answered();
    return NULL;
}

static void grant(int tokens)
{
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, answer, &tokens), 0);
    pthread_join(thread, NULL);
}

static void the_first_in_line_gets_what_comes(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++)
        wait_for(&waiters[i]);
    assert_int_equal(quota->waiting, 3);
    assert_true(quota->asked);
    grant(2);
    turn_for(20000);
    assert_int_equal(waiters[0].verdict, LIMIT_GRANTED);
    assert_int_equal(waiters[0].calls, 1);
    assert_int_equal(waiters[1].calls, 1);
    assert_int_equal(waiters[2].calls, 0);
    assert_int_equal(quota->waiting, 1);
    grant(1);
    turn_for(20000);
    assert_int_equal(waiters[2].calls, 1);
    assert_int_equal(waiters[2].verdict, LIMIT_GRANTED);
}

static void an_exhausted_quota_refuses_those_who_wait(void **state)
{
    (void)state;
    wait_for(&waiters[0]);
    atomic_store(&quota->free_us, clock_mono_us() + 30000000);
    atomic_store(&quota->recheck_us, INT64_MAX);
    grant(0);
    turn_for(20000);
    assert_int_equal(waiters[0].verdict, LIMIT_EXCEEDED);
    assert_in_range(waiters[0].wait_us, 29000000, 30000000);
    int64_t wait_us = 0;
    assert_int_equal(limit_take(limit, quota, &wait_us), LIMIT_EXCEEDED);
    assert_in_range(wait_us, 29000000, 30000000);
}

static void nobody_answers_the_own_share_is_taken(void **state)
{
    (void)state;
    atomic_store(&quota->floor, -1);
    int64_t began = clock_mono_us();
    wait_for(&waiters[0]);
    wait_for(&waiters[1]);
    while (waiters[1].calls == 0)
        loop_turn(loop, 1000);
    assert_in_range(clock_mono_us() - began, LIMIT_WAIT_US, LIMIT_WAIT_US + 400000);
    assert_int_equal(waiters[0].verdict, LIMIT_GRANTED);
    assert_int_equal(waiters[1].verdict, LIMIT_EXCEEDED); /* one was the whole share */
    assert_true(waiters[1].wait_us > 0);
    assert_int_equal(quota->waiting, 0);
}

static void the_list_has_a_bound(void **state)
{
    (void)state;
    for (int i = 0; i < OPS; i++)
        wait_for(&waiters[i]);
    int64_t wait_us = 0;
    assert_int_equal(limit_take(limit, quota, &wait_us), LIMIT_EXCEEDED);
    atomic_store(&quota->floor, -1);
    assert_int_equal(limit_take(limit, quota, &wait_us), LIMIT_GRANTED);
    grant(OPS + 1);
    turn_for(20000);
    for (int i = 0; i < OPS; i++)
        assert_int_equal(waiters[i].calls, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_first_in_line_gets_what_comes, setup, teardown),
        cmocka_unit_test_setup_teardown(an_exhausted_quota_refuses_those_who_wait, setup, teardown),
        cmocka_unit_test_setup_teardown(nobody_answers_the_own_share_is_taken, setup, teardown),
        cmocka_unit_test_setup_teardown(the_list_has_a_bound, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
