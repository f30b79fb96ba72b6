/* The registry of quotas and taking from them, from one thread and from many. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "quota.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static int wakes, urgent_wakes;

static void on_wake(void *context, bool urgent)
{
    (void)context;
    wakes++;
    urgent_wakes += urgent;
}

/* Takes the asks off the stack; returns how many. */
static size_t asked(void)
{
    size_t count = 0;
    for (struct quota *quota = quotas_asked(), *next; quota != NULL; quota = next, count++) {
        next = quota->next_asked;
        atomic_store(&quota->asked, false);
        quota_unref(quota);
    }
    return count;
}

static void put(struct quota *quota, int64_t tokens)
{
    atomic_store(&quota->tokens, tokens);
}

static void one_per_workspace_and_platform(void **state)
{
    (void)state;
    struct quota *a = quota_get("w", "zoom", (struct quota_limits){100, 1000});
    struct quota *same = quota_get("w", "zoom", (struct quota_limits){50, 0});
    struct quota *b = quota_get("w", "otter", (struct quota_limits){100, 1000});
    struct quota *c = quota_get("w2", "zoom", (struct quota_limits){100, 1000});
    assert_ptr_equal(a, same);
    assert_int_equal(a->limit_minute, 50); /* the newest figures count */
    assert_int_equal(a->limit_hour, 0);
    assert_ptr_not_equal(a, b);
    assert_ptr_not_equal(a, c);
    assert_null(quota_get("w", "zoom", (struct quota_limits){0, 0}));
    put(a, 77);
    quota_unref(same);
    assert_int_equal(a->tokens, 77);
    quota_unref(a); /* the last reference: forgotten */
    a = quota_get("w", "zoom", (struct quota_limits){50, 0});
    assert_int_equal(a->tokens, 1);
    quota_unref(a);
    quota_unref(b);
    quota_unref(c);
}

static void many_workspaces(void **state)
{
    (void)state;
    static struct quota *quotas[5000];
    char name[16];
    for (int i = 0; i < 5000; i++) {
        snprintf(name, sizeof name, "w%d", i);
        quotas[i] = quota_get(name, "zoom", (struct quota_limits){i + 1, 0});
    }
    for (int i = 0; i < 5000; i++) {
        snprintf(name, sizeof name, "w%d", i);
        struct quota *again = quota_get(name, "zoom", (struct quota_limits){i + 1, 0});
        assert_ptr_equal(again, quotas[i]);
        quota_unref(again);
        quota_unref(quotas[i]);
    }
}

static void sizes_follow_the_tighter_limit(void **state)
{
    (void)state;
    struct quota *quota = quota_get("w", "zoom", (struct quota_limits){0, 10000});
    assert_int_equal(quota_credit(quota), 100);
    assert_int_equal(quota_chunk(quota), 300);
    quota_unref(quota_get("w", "zoom", (struct quota_limits){100, 1000}));
    assert_int_equal(quota_credit(quota), 1);
    assert_int_equal(quota_chunk(quota), 3);
    quota_unref(quota_get("w", "zoom", (struct quota_limits){10000, 200}));
    assert_int_equal(quota_chunk(quota), 6);
    quota_unref(quota_get("w", "zoom", (struct quota_limits){2, 0}));
    assert_int_equal(quota_chunk(quota), 1); /* never nothing */
    quota_unref(quota);
}

static void a_first_event_needs_nobodys_leave(void **state)
{
    (void)state;
    wakes = 0;
    quotas_serve(on_wake, NULL);
    struct quota *quota = quota_get("w", "zoom", (struct quota_limits){100, 1000});
    int64_t wait = 0;
    assert_int_equal(quota_take(quota, 1, &wait), QUOTA_TAKEN);
    assert_int_equal(wakes, 1); /* and is told at once */
    assert_int_equal(quota_take(quota, 1, &wait), QUOTA_UNKNOWN);
    assert_int_equal(asked(), 1);
    quotas_serve(NULL, NULL);
    quota_unref(quota);
}

static void asks_once_and_again_when_somebody_waits(void **state)
{
    (void)state;
    wakes = urgent_wakes = 0;
    quotas_serve(on_wake, NULL);
    struct quota *quota = quota_get("w", "zoom", (struct quota_limits){100, 1000});
    put(quota, 10);
    atomic_store(&quota->low, 8);
    int64_t wait;
    quota_take(quota, 1, &wait);
    assert_int_equal(wakes, 0); /* nine left */
    quota_take(quota, 1, &wait);
    quota_take(quota, 1, &wait);
    assert_int_equal(wakes, 1);
    atomic_store(&quota->waiting, 1);
    quota_ask(quota);
    assert_int_equal(wakes, 2);
    assert_int_equal(urgent_wakes, 1);
    assert_int_equal(asked(), 1); /* it is there once all the same */
    quota_ask(quota);
    assert_int_equal(asked(), 1);
    quotas_serve(NULL, NULL);
    quota_unref(quota);
}

static void exhausted_is_refused_until_it_is_free(void **state)
{
    (void)state;
    struct quota *quota = quota_get("w", "zoom", (struct quota_limits){100, 1000});
    put(quota, 0);
    atomic_store(&quota->free_us, 5000);
    atomic_store(&quota->recheck_us, 2000);
    int64_t wait = 0;
    assert_int_equal(quota_take(quota, 1000, &wait), QUOTA_EXHAUSTED);
    assert_int_equal(wait, 4000);
    assert_int_equal(asked(), 0); /* a flood costs nothing */
    assert_int_equal(quota_take(quota, 2000, &wait), QUOTA_EXHAUSTED);
    assert_int_equal(asked(), 1); /* but others may have given back */
    assert_int_equal(quota_take(quota, 5000, &wait), QUOTA_UNKNOWN);
    quota_unref(quota);
}

static void an_overdraft_has_a_floor(void **state)
{
    (void)state;
    struct quota *quota = quota_get("w", "zoom", (struct quota_limits){100, 1000});
    put(quota, 1);
    atomic_store(&quota->floor, -2);
    assert_true(quota_overdraw(quota));
    assert_true(quota_overdraw(quota));
    assert_true(quota_overdraw(quota));
    assert_false(quota_overdraw(quota));
    assert_int_equal(quota->tokens, -2);
    assert_int_equal(asked(), 1);
    quota_unref(quota);
}

/* ---- many threads ---- */

#define TAKERS 4
#define HANDED 200000

static struct quota *shared;
static _Atomic bool finished;

static void *take(void *context)
{
    int64_t *taken = context, wait;
    while (!atomic_load(&finished)) {
        if (quota_take(shared, 1, &wait) == QUOTA_TAKEN)
            ++*taken;
        else
            quota_ask(shared);
        /* The directory comes and goes meanwhile. */
        struct quota *again = quota_get("w", "zoom", (struct quota_limits){100, 1000});
        assert_ptr_equal(again, shared);
        quota_unref(again);
    }
    return NULL;
}

static void threads_take_what_is_there_and_no_more(void **state)
{
    (void)state;
    shared = quota_get("w", "zoom", (struct quota_limits){100, 1000});
    put(shared, 0);
    pthread_t threads[TAKERS];
    int64_t taken[TAKERS] = {0}, handed = 0, sum = 0;
    atomic_store(&finished, false);
    for (int i = 0; i < TAKERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take, &taken[i]), 0);
    while (handed < HANDED) {
        if (asked() == 0)
            continue;
        atomic_fetch_add(&shared->tokens, 50);
        handed += 50;
    }
    while (atomic_load(&shared->tokens) > 0)
        ;
    atomic_store(&finished, true);
    for (int i = 0; i < TAKERS; i++) {
        pthread_join(threads[i], NULL);
        sum += taken[i];
    }
    asked();
    assert_int_equal(sum, handed);
    assert_int_equal(shared->tokens, 0);
    quota_unref(shared);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_per_workspace_and_platform),
        cmocka_unit_test(many_workspaces),
        cmocka_unit_test(sizes_follow_the_tighter_limit),
        cmocka_unit_test(a_first_event_needs_nobodys_leave),
        cmocka_unit_test(asks_once_and_again_when_somebody_waits),
        cmocka_unit_test(exhausted_is_refused_until_it_is_free),
        cmocka_unit_test(an_overdraft_has_a_floor),
        cmocka_unit_test(threads_take_what_is_there_and_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
