/* The loop: timers in order and not before their time, messages from other threads, deferred work
 * at the end of the turn, and no callback after a watch was taken back. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "clock.h"
#include "loop.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

struct probe {
    struct loop *loop;
    struct loop_timer timer;
    struct loop_task task;
    struct loop_watch watch;
    struct loop_watch *victim;
    int64_t ran_us;
    int runs;
    int order;
};

static int sequence;

static void on_timer(struct loop_timer *timer)
{
    struct probe *probe = container_of(timer, struct probe, timer);
    probe->ran_us = clock_mono_us();
    probe->runs++;
    probe->order = ++sequence;
}

static void on_task(struct loop_task *task)
{
    struct probe *probe = container_of(task, struct probe, task);
    probe->runs++;
    probe->order = ++sequence;
}

static void on_ready(struct loop_watch *watch, unsigned events)
{
    struct probe *probe = container_of(watch, struct probe, watch);
    (void)events;
    probe->runs++;
    if (probe->victim)
        loop_unwatch(probe->loop, probe->victim);
}

static void timers_run_in_order_and_not_early(void **state)
{
    (void)state;
    struct loop *loop = loop_new();
    struct probe late = {.timer.on_due = on_timer}, early = {.timer.on_due = on_timer},
                 never = early;
    int64_t now = clock_mono_us();
    loop_timer_set(loop, &late.timer, now + 20000);
    loop_timer_set(loop, &never.timer, now + 15000);
    loop_timer_set(loop, &early.timer, now + 10000);
    loop_timer_clear(loop, &never.timer);
    while (late.runs == 0)
        loop_turn(loop, 1000);
    assert_int_equal(early.runs, 1);
    assert_int_equal(never.runs, 0);
    assert_true(early.order < late.order);
    assert_true(early.ran_us >= now + 10000);
    assert_true(late.ran_us >= now + 20000);
    loop_free(loop);
}

static void a_timer_that_is_set_again_runs_once(void **state)
{
    (void)state;
    struct loop *loop = loop_new();
    struct probe probe = {.timer.on_due = on_timer};
    loop_timer_set(loop, &probe.timer, clock_mono_us() + 1000);
    loop_timer_set(loop, &probe.timer, clock_mono_us() + 5000);
    while (probe.runs == 0)
        loop_turn(loop, 1000);
    loop_turn(loop, 0);
    assert_int_equal(probe.runs, 1);
    loop_free(loop);
}

static void deferred_work_runs_once_at_the_end_of_the_turn(void **state)
{
    (void)state;
    struct loop *loop = loop_new();
    struct probe kept = {.task.run = on_task}, cancelled = {.task.run = on_task};
    loop_defer(loop, &kept.task);
    loop_defer(loop, &kept.task);
    loop_defer(loop, &cancelled.task);
    loop_cancel(&cancelled.task);
    assert_int_equal(kept.runs, 0);
    loop_poll(loop); /* leaves it */
    assert_int_equal(kept.runs, 0);
    loop_turn(loop, -1); /* does not wait for an event */
    assert_int_equal(kept.runs, 1);
    assert_int_equal(cancelled.runs, 0);
    loop_free(loop);
}

static void an_unwatched_descriptor_is_not_reported_in_the_same_turn(void **state)
{
    (void)state;
    struct loop *loop = loop_new();
    struct probe a = {.loop = loop, .watch.on_ready = on_ready}, b = a;
    a.victim = &b.watch;
    b.victim = &a.watch;
    int fd_a = eventfd(1, EFD_CLOEXEC), fd_b = eventfd(1, EFD_CLOEXEC);
    loop_watch(loop, &a.watch, fd_a, LOOP_READ);
    loop_watch(loop, &b.watch, fd_b, LOOP_READ);
    loop_turn(loop, 1000);
    assert_int_equal(a.runs + b.runs, 1); /* whoever came first took the other back */
    loop_free(loop);
    close(fd_a);
    close(fd_b);
}

#define POSTERS 4
#define POSTS 500

struct poster {
    struct loop *loop;
    struct probe probes[POSTS];
};

static void *post_all(void *argument)
{
    struct poster *poster = argument;
    for (int i = 0; i < POSTS; i++) {
        poster->probes[i].task.run = on_task;
        loop_post(poster->loop, &poster->probes[i].task);
    }
    return NULL;
}

static void messages_of_many_threads_all_arrive_once_and_in_order(void **state)
{
    (void)state;
    struct loop *loop = loop_new();
    struct poster *posters = xcalloc(POSTERS, sizeof *posters);
    pthread_t threads[POSTERS];
    sequence = 0;
    for (int i = 0; i < POSTERS; i++) {
        posters[i].loop = loop;
        pthread_create(&threads[i], NULL, post_all, &posters[i]);
    }
    while (sequence < POSTERS * POSTS)
        loop_turn(loop, 1000);
    for (int i = 0; i < POSTERS; i++) {
        pthread_join(threads[i], NULL);
        for (int k = 0; k < POSTS; k++) {
            assert_int_equal(posters[i].probes[k].runs, 1);
            assert_true(k == 0 || posters[i].probes[k - 1].order < posters[i].probes[k].order);
        }
    }
    free(posters);
    loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timers_run_in_order_and_not_early),
        cmocka_unit_test(a_timer_that_is_set_again_runs_once),
        cmocka_unit_test(deferred_work_runs_once_at_the_end_of_the_turn),
        cmocka_unit_test(an_unwatched_descriptor_is_not_reported_in_the_same_turn),
        cmocka_unit_test(messages_of_many_threads_all_arrive_once_and_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
