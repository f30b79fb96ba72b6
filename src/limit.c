/* Who waits for tokens on one loop: a list in the order of coming, so in the order of its
 * deadlines, and one timer. The lease thread's answers come as a posted task. Called by
 * delivery.c. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "limit.h"

#include "clock.h"
#include "loop.h"
#include "metrics.h"
#include "quota.h"

/* Told when only our own share of the limit is known to be used up. */
#define UNKNOWN_WAIT_US 1000000

struct limit {
    struct loop *loop;
    struct metrics *metrics;
    struct list waiting;
    _Atomic size_t count; /* of them; the lease thread reads it */
    struct loop_timer timer;
    struct loop_task answered;
    _Atomic bool posted; /* `answered` is on its way */
    struct quota_listener listener;
};

static void arm(struct limit *limit)
{
    if (list_is_empty(&limit->waiting))
        loop_timer_clear(limit->loop, &limit->timer);
    else
        loop_timer_set(limit->loop, &limit->timer,
                       container_of(limit->waiting.next, struct limit_op, node)->due_us);
}

static enum limit_verdict overdraw(struct quota *quota, int64_t *ret_wait_us)
{
    *ret_wait_us = UNKNOWN_WAIT_US;
    return quota_overdraw(quota) ? LIMIT_GRANTED : LIMIT_EXCEEDED;
}

enum limit_verdict limit_take(struct limit *limit, struct quota *quota, int64_t *ret_wait_us)
{
    switch (quota_take(quota, clock_mono_us(), ret_wait_us)) {
    case QUOTA_TAKEN:
        return LIMIT_GRANTED;
    case QUOTA_EXHAUSTED:
        return LIMIT_EXCEEDED;
    case QUOTA_UNKNOWN:
        break;
    }
    if (atomic_load_explicit(&limit->count, memory_order_relaxed) < LIMIT_WAITING_MAX)
        return LIMIT_WAIT;
    return overdraw(quota, ret_wait_us);
}

void limit_wait(struct limit *limit, struct limit_op *op)
{
    assert(limit->count < LIMIT_WAITING_MAX);
    op->due_us = clock_mono_us() + LIMIT_WAIT_US;
    list_init(&op->node);
    list_append(&limit->waiting, &op->node);
    atomic_fetch_add(&limit->count, 1);
    atomic_fetch_add(&op->quota->waiting, 1);
    metrics_add(limit->metrics, METRIC_LIMIT_WAITS, 1);
    quota_ask(op->quota);
    if (limit->waiting.next == &op->node)
        arm(limit);
}

static void end(struct limit *limit, struct limit_op *op, enum limit_verdict verdict,
                int64_t wait_us)
{
    list_remove(&op->node);
    atomic_fetch_sub(&limit->count, 1);
    atomic_fetch_sub(&op->quota->waiting, 1);
    op->on_done(op, verdict, wait_us); /* op may be gone */
}

/* Each may take what is there now; those whose time is up overdraw. */
static void look_again(struct limit *limit)
{
    int64_t now = clock_mono_us();
    list_each_safe(node, &limit->waiting)
    {
        struct limit_op *op = container_of(node, struct limit_op, node);
        int64_t wait_us = 0;
        enum quota_verdict verdict = quota_take(op->quota, now, &wait_us);
        if (verdict != QUOTA_UNKNOWN)
            end(limit, op, verdict == QUOTA_TAKEN ? LIMIT_GRANTED : LIMIT_EXCEEDED, wait_us);
        else if (now < op->due_us)
            quota_ask(op->quota);
        else {
            enum limit_verdict last = overdraw(op->quota, &wait_us);
            end(limit, op, last, wait_us);
        }
    }
    arm(limit);
}

static void on_due(struct loop_timer *timer)
{
    look_again(container_of(timer, struct limit, timer));
}

static void on_answered(struct loop_task *task)
{
    struct limit *limit = container_of(task, struct limit, answered);
    atomic_store(&limit->posted, false);
    look_again(limit);
}

/* On the lease thread. */
static void on_answer(struct quota_listener *listener)
{
    struct limit *limit = container_of(listener, struct limit, listener);
    if (atomic_load(&limit->count) > 0 && !atomic_exchange(&limit->posted, true))
        loop_post(limit->loop, &limit->answered);
}

struct limit *limit_new(struct loop *loop, struct metrics *metrics)
{
    struct limit *limit = xcalloc(1, sizeof *limit);
    limit->loop = loop;
    limit->metrics = metrics;
    list_init(&limit->waiting);
    limit->timer.on_due = on_due;
    limit->answered.run = on_answered;
    limit->listener.on_answer = on_answer;
    quotas_listen(&limit->listener);
    return limit;
}

void limit_free(struct limit *limit)
{
    if (limit == NULL)
        return;
    assert(list_is_empty(&limit->waiting));
    quotas_unlisten(&limit->listener);
    free(limit);
}
