/* The lease thread: a loop, a connection and lists of quotas. A quota is resting (the thread
 * doesn't know it), hungry, in the statement that is under way, or active (looked at once a
 * second); its numbers are ledger.c's. Thread: its own; quota_ask() comes from others and wakes it.
 */
/* SPDX-License-Identifier: Apache-2.0 */
#include "lease.h"

#include "clock.h"
#include "config.h"
#include "lease_store.h"
#include "ledger.h"
#include "log.h"
#include "loop.h"
#include "metrics.h"
#include "quota.h"
#include "thread.h"

#include <inttypes.h>

#define SECOND INT64_C(1000000)
/* Between statements for which nobody waits: half a chunk lasts several times as long at the rate
 * that a limit allows, so a steady sender never notices, and many asks share a statement. */
#define PACE_US (SECOND / 5)
#define TICK_US SECOND
#define REST_US (60 * SECOND)
#define ALIVE_US (3 * SECOND)
#define STUCK_US (3 * SECOND)
#define STOP_US SECOND

struct lease {
    struct loop *loop;
    pthread_t thread;
    struct metrics *metrics;
    struct lease_store *store;
    struct list hungry, active;
    struct quota *sent[LEASE_ASKS_MAX];
    size_t sent_count; /* 0 = no statement is under way */
    int64_t sent_us;
    int64_t alive_us; /* when the last sign of life was sent */
    int64_t away_us;  /* since when; 0 = Postgres answers */
    int64_t retry_us; /* not before, after the server refused a statement */
    bool ready, alive_pending;
    bool hurry; /* a delivery waits */
    bool told;  /* of the outage */
    bool stopping, leaving, ended;
    struct loop_timer pace, patience, tick, limit;
    struct loop_task wake, stop;
    _Atomic bool woken, urgent;
};

/* One that stays as it is keeps its place: lists are walked meanwhile. */
static void set_state(struct lease *lease, struct quota *quota, enum quota_state state)
{
    if (quota->state == state)
        return;
    quota->state = state;
    list_remove(&quota->node);
    if (state == QUOTA_HUNGRY)
        list_append(&lease->hungry, &quota->node);
    else if (state == QUOTA_ACTIVE)
        list_append(&lease->active, &quota->node);
    else if (state == QUOTA_RESTING)
        quota_unref(quota);
}

/* ---- Postgres is away: our own share ---- */

static void grant_all_locally(struct lease *lease)
{
    int64_t now = clock_mono_us();
    list_each_safe(node, &lease->hungry)
    {
        struct quota *quota = container_of(node, struct quota, node);
        ledger_grant_locally(quota, now);
        set_state(lease, quota, QUOTA_ACTIVE);
    }
    lease->hurry = false;
    quotas_answered();
}

static void set_away(struct lease *lease, bool away)
{
    metrics_set(lease->metrics, METRIC_LIMIT_LOCAL, away);
    if (away == (lease->away_us != 0))
        return;
    lease->away_us = away ? clock_mono_us() : 0;
    if (away)
        return;
    if (lease->told)
        log_event(LOG_INFO, "limits_shared", "Postgres answers: limits are shared again");
    lease->told = false;
    /* What we decided alone is settled, and looked at again. */
    list_each_safe(node, &lease->active)
    {
        struct quota *quota = container_of(node, struct quota, node);
        if (quota->local > 0 || atomic_load(&quota->free_us) != 0)
            set_state(lease, quota, QUOTA_HUNGRY);
    }
}

/* ---- leases ---- */

static void send_leases(struct lease *lease)
{
    struct lease_ask asks[LEASE_ASKS_MAX];
    int64_t now = clock_mono_us();
    size_t count = 0;
    while (count < LEASE_ASKS_MAX && !list_is_empty(&lease->hungry)) {
        struct quota *quota = container_of(lease->hungry.next, struct quota, node);
        set_state(lease, quota, QUOTA_SENT);
        asks[count] = ledger_ask(quota, now, !lease->stopping);
        lease->sent[count++] = quota;
    }
    lease->sent_count = count;
    lease->sent_us = now;
    lease->hurry = lease->hurry && !list_is_empty(&lease->hungry);
    loop_timer_clear(lease->loop, &lease->pace);
    loop_timer_set(lease->loop, &lease->patience, now + LEASE_PATIENCE_US);
    metrics_add(lease->metrics, METRIC_LIMIT_LEASES, 1);
    lease_store_ask(lease->store, asks, count, quotas_instances());
}

/* Does what can be done for the hungry ones now. */
static void serve(struct lease *lease)
{
    if (list_is_empty(&lease->hungry)) {
        if (lease->stopping && lease->sent_count == 0 && !lease->leaving) {
            lease->leaving = true;
            lease_store_leave(lease->store);
        }
        return;
    }
    int64_t now = clock_mono_us(), due = lease->sent_us + PACE_US;
    bool can = lease->ready && lease->sent_count == 0 && now >= lease->retry_us;
    if (can && (lease->hurry || lease->stopping || now >= due))
        send_leases(lease);
    else if (lease->away_us != 0 && !lease->stopping)
        grant_all_locally(lease);
    else if (can)
        loop_timer_set(lease->loop, &lease->pace, due);
}

static void on_pace(struct loop_timer *timer)
{
    serve(container_of(timer, struct lease, pace));
}

static void on_patience(struct loop_timer *timer)
{
    struct lease *lease = container_of(timer, struct lease, patience);
    int64_t now = clock_mono_us();
    set_away(lease, true);
    for (size_t i = 0; i < lease->sent_count; i++)
        ledger_grant_locally(lease->sent[i], now);
    grant_all_locally(lease);
}

/* At the end: what nobody took is given back, and then it may rest. */
static void bring_home(struct lease *lease, struct quota *quota, int64_t now)
{
    ledger_look(quota, now);
    ledger_take_back(quota);
    bool done = quota->back == 0 && quota->spent <= quota->paid;
    set_state(lease, quota, done ? QUOTA_RESTING : QUOTA_HUNGRY);
}

static void settle(struct lease *lease, struct quota *quota, const struct lease_answer *answer)
{
    int64_t now = clock_mono_us();
    ledger_settle(quota, now, answer, !lease->stopping);
    if (lease->stopping) {
        bring_home(lease, quota, now);
        return;
    }
    ledger_publish(quota, now, answer->wait_us);
    set_state(lease, quota, quota->again ? QUOTA_HUNGRY : QUOTA_ACTIVE);
    lease->hurry |= quota->again && atomic_load(&quota->waiting) > 0;
    quota->again = false;
    metrics_add(lease->metrics, METRIC_LIMIT_GRANTED, answer->granted);
}

/* The statement is lost, or was refused: nobody knows whether it counted. */
static void forget_sent(struct lease *lease)
{
    for (size_t i = 0; i < lease->sent_count; i++) {
        struct quota *quota = lease->sent[i];
        ledger_forget(quota);
        quota->again = false;
        set_state(lease, quota, QUOTA_HUNGRY);
    }
    lease->sent_count = 0;
    loop_timer_clear(lease->loop, &lease->patience);
}

static void on_leased(void *context, const struct lease_answer *answers)
{
    struct lease *lease = context;
    if (answers == NULL) {
        lease->retry_us = clock_mono_us() + SECOND;
        forget_sent(lease);
        set_away(lease, true);
        grant_all_locally(lease);
        return;
    }
    loop_timer_clear(lease->loop, &lease->patience);
    set_away(lease, false);
    for (size_t i = 0; i < lease->sent_count; i++)
        settle(lease, lease->sent[i], &answers[i]);
    lease->sent_count = 0;
    quotas_answered();
    serve(lease);
}

/* ---- asks from other threads ---- */

static void wake(void *context, bool urgent)
{
    struct lease *lease = context;
    if (urgent)
        atomic_store(&lease->urgent, true);
    if (!atomic_exchange(&lease->woken, true))
        loop_post(lease->loop, &lease->wake);
}

static void take_ask(struct lease *lease, struct quota *quota)
{
    switch (quota->state) {
    case QUOTA_RESTING: /* the reference of the ask is kept */
        set_state(lease, quota, QUOTA_HUNGRY);
        return;
    case QUOTA_ACTIVE:
        set_state(lease, quota, QUOTA_HUNGRY);
        break;
    case QUOTA_SENT:
        quota->again = true;
        if (lease->away_us != 0)
            ledger_grant_locally(quota, clock_mono_us());
        break;
    case QUOTA_HUNGRY:
        break;
    }
    quota_unref(quota);
}

static void on_wake(struct loop_task *task)
{
    struct lease *lease = container_of(task, struct lease, wake);
    atomic_store(&lease->woken, false);
    lease->hurry |= atomic_exchange(&lease->urgent, false);
    for (struct quota *quota = quotas_asked(), *next; quota != NULL; quota = next) {
        next = quota->next_asked;
        take_ask(lease, quota);
    }
    if (lease->away_us != 0)
        quotas_answered(); /* those in the statement were granted something */
    serve(lease);
}

/* ---- once a second ---- */

/* Debts are settled, and what nobody takes is given back. */
static void look_after(struct lease *lease, struct quota *quota, int64_t now)
{
    ledger_look(quota, now);
    int64_t leased = quota->paid - quota->spent, idle_us = now - quota->busy_us;
    if (leased < 0) {
        set_state(lease, quota, QUOTA_HUNGRY);
    } else if (leased > 0 && idle_us >= LEDGER_IDLE_US) {
        if (ledger_take_back(quota) > 0)
            set_state(lease, quota, QUOTA_HUNGRY);
    } else if (idle_us >= REST_US && now - quota->asked_us >= REST_US &&
               now >= atomic_load(&quota->free_us)) {
        ledger_rest(quota, now);
        set_state(lease, quota, QUOTA_RESTING);
    }
}

static void tell_outage(struct lease *lease, int64_t now)
{
    if (lease->away_us == 0 || lease->told || now - lease->away_us < SECOND)
        return;
    lease->told = true;
    log_event(LOG_WARNING, "limits_local",
              "Postgres does not answer: this instance keeps to its share of each limit, one of "
              "%" PRId64,
              quotas_instances());
}

static void say_alive(struct lease *lease, int64_t now)
{
    lease->alive_us = now;
    lease->alive_pending = true;
    lease_store_alive(lease->store);
}

static void on_tick(struct loop_timer *timer)
{
    struct lease *lease = container_of(timer, struct lease, tick);
    int64_t now = clock_mono_us();
    loop_timer_set(lease->loop, timer, now + TICK_US);
    tell_outage(lease, now);
    if (lease->sent_count > 0 && now - lease->sent_us > STUCK_US)
        lease_store_drop(lease->store, "Postgres does not answer in time");
    if (lease->ready && !lease->stopping && !lease->alive_pending &&
        now - lease->alive_us >= ALIVE_US)
        say_alive(lease, now);
    if (!lease->ready || lease->stopping || lease->away_us != 0)
        return;
    list_each_safe(node, &lease->active)
        look_after(lease, container_of(node, struct quota, node), now);
    serve(lease);
}

/* ---- the connection ---- */

static void on_ready(void *context)
{
    struct lease *lease = context;
    lease->ready = true;
    say_alive(lease, clock_mono_us());
}

/* A sign of life says nothing of leases: the mode goes back when one is answered. Where no quota is
 * in use, nothing depends on it. */
static void probe(struct lease *lease)
{
    if (list_is_empty(&lease->hungry) && !list_is_empty(&lease->active))
        set_state(lease, container_of(lease->active.next, struct quota, node), QUOTA_HUNGRY);
    if (list_is_empty(&lease->hungry))
        set_away(lease, false);
    else if (clock_mono_us() >= lease->retry_us)
        send_leases(lease);
}

static void on_alive(void *context, int64_t instances)
{
    struct lease *lease = context;
    lease->alive_pending = false;
    if (instances == 0)
        return;
    quotas_set_instances(instances);
    metrics_set(lease->metrics, METRIC_LIMIT_INSTANCES, instances);
    if (lease->away_us != 0 && lease->sent_count == 0)
        probe(lease);
    serve(lease);
}

static void on_lost(void *context, const char *reason)
{
    (void)reason; /* the lanes and the loader tell it */
    struct lease *lease = context;
    lease->ready = lease->alive_pending = false;
    forget_sent(lease);
    set_away(lease, true);
    if (lease->stopping)
        lease->ended = true;
    else
        grant_all_locally(lease);
}

static void on_left(void *context)
{
    struct lease *lease = context;
    lease->ended = true;
}

static const struct lease_store_handler store_handler = {
    .on_ready = on_ready,
    .on_leased = on_leased,
    .on_alive = on_alive,
    .on_left = on_left,
    .on_lost = on_lost,
};

/* ---- life ---- */

static void on_limit(struct loop_timer *timer)
{
    container_of(timer, struct lease, limit)->ended = true;
}

static void on_stop(struct loop_task *task)
{
    struct lease *lease = container_of(task, struct lease, stop);
    int64_t now = clock_mono_us();
    lease->stopping = true;
    lease->ended = !lease->ready;
    loop_timer_set(lease->loop, &lease->limit, now + STOP_US);
    list_each_safe(node, &lease->hungry)
        bring_home(lease, container_of(node, struct quota, node), now);
    list_each_safe(other, &lease->active)
        bring_home(lease, container_of(other, struct quota, node), now);
    serve(lease);
}

static void release(struct lease *lease)
{
    quotas_serve(NULL, NULL);
    lease_store_free(lease->store);
    forget_sent(lease);
    for (struct list *node; (node = list_pop(&lease->hungry)) != NULL;)
        quota_unref(container_of(node, struct quota, node));
    for (struct list *node; (node = list_pop(&lease->active)) != NULL;)
        quota_unref(container_of(node, struct quota, node));
    for (struct quota *quota = quotas_asked(), *next; quota != NULL; quota = next) {
        next = quota->next_asked;
        quota_unref(quota);
    }
}

static void *run(void *argument)
{
    struct lease *lease = argument;
    while (!lease->ended)
        loop_turn(lease->loop, -1);
    release(lease);
    return NULL;
}

struct lease *lease_start(const struct config *config)
{
    struct lease *lease = xcalloc(1, sizeof *lease);
    lease->loop = loop_new();
    lease->metrics = metrics_shard_new();
    list_init(&lease->hungry);
    list_init(&lease->active);
    lease->pace.on_due = on_pace;
    lease->patience.on_due = on_patience;
    lease->tick.on_due = on_tick;
    lease->limit.on_due = on_limit;
    lease->wake.run = on_wake;
    lease->stop.run = on_stop;
    lease->store = lease_store_new(
        lease->loop,
        &(struct lease_store_options){.conninfo = config->postgres.conninfo,
                                      .password_file = config->postgres.password_file},
        &store_handler, lease);
    set_away(lease, true); /* until Postgres was heard */
    loop_timer_set(lease->loop, &lease->tick, clock_mono_us() + TICK_US);
    quotas_serve(wake, lease);

    if (thread_start(&lease->thread, run, lease) != 0)
        abort();
    return lease;
}

void lease_stop(struct lease *lease)
{
    if (lease == NULL)
        return;
    loop_post(lease->loop, &lease->stop);
    pthread_join(lease->thread, NULL);
}
