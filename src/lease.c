/* The lease thread: a loop, a connection and the bookkeeping of quotas. A quota is resting (the
 * thread doesn't know it), hungry, in the statement that is under way, or active (looked at once a
 * second). What was spent is never counted as it happens: it is what was handed out less what is
 * left. Thread: its own; quota_ask() comes from others and wakes it. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "lease.h"

#include "clock.h"
#include "config.h"
#include "lease_store.h"
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
/* Tokens that nobody takes for so long are given back; asks that are closer mean traffic. */
#define IDLE_US SECOND
#define REST_US (60 * SECOND)
/* An exhausted quota that is still wanted asks so often: others may have given something back. */
#define RECHECK_US SECOND
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

/* ---- bookkeeping of one quota ---- */

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t tokens_of(const struct quota *quota)
{
    return atomic_load(&quota->tokens);
}

/* What deliveries have taken since the last look goes into the local windows. */
static void look(struct quota *quota, int64_t now)
{
    int64_t spent = quota->handed - tokens_of(quota), delta = spent - quota->spent;
    if (delta <= 0)
        return;
    window_add(&quota->minute, QUOTA_MINUTE_US, now, delta);
    window_add(&quota->hour, QUOTA_HOUR_US, now, delta);
    quota->spent = spent;
    quota->busy_us = now;
}

/* Up to `count` tokens that nobody took; returns how many. */
static int64_t withdraw(struct quota *quota, int64_t count)
{
    int64_t tokens = tokens_of(quota), taken;
    do {
        taken = min64(count, tokens);
        if (taken <= 0)
            return 0;
    } while (!atomic_compare_exchange_weak(&quota->tokens, &tokens, tokens - taken));
    quota->handed -= taken;
    return taken;
}

static void hand_out(struct quota *quota)
{
    int64_t more = quota->paid + quota->credit + quota->local - quota->handed;
    if (more > 0) {
        quota->handed += more;
        atomic_fetch_add(&quota->tokens, more);
    } else {
        withdraw(quota, -more);
    }
}

/* What this process may still spend in the window if it shares the limit evenly with the others. */
static int64_t share_left(struct quota *quota, int64_t now)
{
    int64_t minute = atomic_load(&quota->limit_minute), hour = atomic_load(&quota->limit_hour);
    int64_t left = INT64_MAX, instances = quotas_instances();
    if (minute > 0)
        left = max64(1, minute / instances) - window_sum(&quota->minute, QUOTA_MINUTE_US, now);
    if (hour > 0)
        left =
            min64(left, max64(1, hour / instances) - window_sum(&quota->hour, QUOTA_HOUR_US, now));
    return left == INT64_MAX ? 0 : left;
}

static int64_t share_wait_us(struct quota *quota, int64_t now)
{
    int64_t minute = atomic_load(&quota->limit_minute), hour = atomic_load(&quota->limit_hour);
    int64_t wait = 0, instances = quotas_instances();
    if (minute > 0)
        wait = window_wait_us(&quota->minute, QUOTA_MINUTE_US, now, max64(1, minute / instances));
    if (hour > 0)
        wait = max64(wait,
                     window_wait_us(&quota->hour, QUOTA_HOUR_US, now, max64(1, hour / instances)));
    return wait;
}

/* Tells the takers how things stand; `wait_us` 0 = nothing is known to be used up. */
static void publish(struct quota *quota, int64_t now, int64_t wait_us)
{
    int64_t tokens = tokens_of(quota), leased = quota->paid - quota->spent;
    bool exhausted = tokens <= 0 && wait_us > 0;
    atomic_store(&quota->low, leased > 0 || quota->local > 0
                                  ? quota->credit + min64(quota_chunk(quota), tokens) / 2
                                  : quota->credit / 2);
    atomic_store(&quota->floor, exhausted ? 0 : -max64(0, share_left(quota, now) / 2));
    atomic_store(&quota->recheck_us, exhausted ? now + min64(wait_us, RECHECK_US) : 0);
    atomic_store(&quota->free_us, exhausted ? now + wait_us : 0);
}

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

static void grant_locally(struct quota *quota, int64_t now)
{
    atomic_store(&quota->asked, false);
    look(quota, now);
    int64_t free_us = atomic_load(&quota->free_us);
    if (now < free_us) { /* what Postgres knew last still holds */
        publish(quota, now, free_us - now);
        return;
    }
    int64_t more = min64(share_left(quota, now) - max64(0, tokens_of(quota)),
                         quota_chunk(quota) + atomic_load(&quota->waiting));
    quota->local += max64(0, more);
    hand_out(quota);
    publish(quota, now, max64(SECOND / 100, share_wait_us(quota, now)));
}

static void grant_all_locally(struct lease *lease)
{
    int64_t now = clock_mono_us();
    list_each_safe(node, &lease->hungry)
    {
        struct quota *quota = container_of(node, struct quota, node);
        grant_locally(quota, now);
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

static int64_t wanted(const struct quota *quota, int64_t now)
{
    int64_t waiting = atomic_load(&quota->waiting);
    bool busy = quota->asked_us != 0 && now - quota->asked_us < IDLE_US;
    if (waiting == 0 && !busy && atomic_load(&quota->free_us) == 0)
        return 0;
    return max64(0, quota_chunk(quota) + waiting - max64(0, quota->paid - quota->spent));
}

static struct lease_ask ask_of(const struct lease *lease, struct quota *quota, int64_t now)
{
    atomic_store(&quota->asked, false); /* before the look: what comes later asks again */
    look(quota, now);
    quota->owed = max64(0, quota->spent - quota->paid);
    int64_t want = lease->stopping ? 0 : wanted(quota, now);
    quota->asked_us = now;
    /* After an outage, what is older than a window is in it no more. */
    return (struct lease_ask){
        .workspace = quota->workspace,
        .platform = quota->platform,
        .limit_minute = (int32_t)atomic_load(&quota->limit_minute),
        .limit_hour = (int32_t)atomic_load(&quota->limit_hour),
        .spent_minute =
            min64(quota->owed, window_sum(&quota->minute, QUOTA_MINUTE_US, now)) - quota->back,
        .spent_hour =
            min64(quota->owed, window_sum(&quota->hour, QUOTA_HOUR_US, now)) - quota->back,
        .want = (int32_t)min64(want, QUOTA_LIMIT_MAX),
    };
}

static void send_leases(struct lease *lease)
{
    struct lease_ask asks[LEASE_ASKS_MAX];
    int64_t now = clock_mono_us();
    size_t count = 0;
    while (count < LEASE_ASKS_MAX && !list_is_empty(&lease->hungry)) {
        struct quota *quota = container_of(lease->hungry.next, struct quota, node);
        set_state(lease, quota, QUOTA_SENT);
        asks[count] = ask_of(lease, quota, now);
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
        grant_locally(lease->sent[i], now);
    grant_all_locally(lease);
}

/* At the end: what nobody took is given back, and then it may rest. */
static void bring_home(struct lease *lease, struct quota *quota, int64_t now)
{
    look(quota, now);
    int64_t back = withdraw(quota, quota->paid - quota->spent);
    quota->paid -= back;
    quota->back += back;
    bool done = quota->back == 0 && quota->spent <= quota->paid;
    set_state(lease, quota, done ? QUOTA_RESTING : QUOTA_HUNGRY);
}

static void settle(struct lease *lease, struct quota *quota, const struct lease_answer *answer)
{
    int64_t now = clock_mono_us();
    look(quota, now);
    quota->paid += quota->owed + answer->granted;
    quota->owed = quota->back = quota->local = 0;
    quota->credit = answer->plenty && !lease->stopping ? quota_credit(quota) : 0;
    hand_out(quota);
    if (lease->stopping) {
        bring_home(lease, quota, now);
        return;
    }
    publish(quota, now, answer->wait_us);
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
        quota->owed = quota->back = 0;
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
            grant_locally(quota, clock_mono_us());
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
    look(quota, now);
    int64_t leased = quota->paid - quota->spent, used_us = max64(quota->busy_us, quota->asked_us);
    if (leased < 0) {
        set_state(lease, quota, QUOTA_HUNGRY);
    } else if (leased > 0 && now - quota->busy_us >= IDLE_US) {
        int64_t back = withdraw(quota, leased);
        quota->paid -= back;
        quota->back += back;
        if (back > 0)
            set_state(lease, quota, QUOTA_HUNGRY);
    } else if (now - used_us >= REST_US && now >= atomic_load(&quota->free_us)) {
        quota->local = 0;
        quota->credit = quota_credit(quota);
        hand_out(quota);
        publish(quota, now, 0);
        atomic_store(&quota->low, quota->credit - 1); /* or we would not hear of the next one */
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
