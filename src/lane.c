/* The transaction of a batch behind lane.h: what Postgres answers, or that it does not, is turned
 * into what happens next. The records' own fate is batch.c's. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "lane.h"

#include "batch.h"
#include "clock.h"
#include "config.h"
#include "log.h"
#include "topic.h"

/* statement_timeout ends a claim that waits; this much later the server itself must be gone. */
#define CLAIM_GRACE_US 200000

enum lane_state { LANE_DOWN, LANE_PROBING, LANE_IDLE, LANE_CLAIMING, LANE_PUBLISHING };

struct lane {
    const struct batch_env *env;
    enum gather_queue queue;
    struct store *store;
    enum lane_state state;
    struct batch *batch;      /* claiming or publishing */
    struct batch *committing; /* behind it */
    struct batch *orphan; /* its transaction is lost; before it is claimed again nothing new is */
    bool told_unreachable;
    bool split;                     /* the claim under way steps over held keys */
    struct loop_timer timer;        /* of claims and probe */
    struct loop_timer commit_timer; /* of `committing` */
    struct loop_timer orphan_timer; /* the last moment at which claiming it again makes sense */
    struct delivery **taken;
    struct event_id *ids; /* that are asked for, and their items */
    struct item **asked;
    struct store_place *places; /* of an orphan's */
    size_t asked_count;
};

static void set_state(struct lane *lane, enum lane_state state)
{
    static const unsigned allowed[] = {
        [LANE_DOWN] = 1u << LANE_IDLE,
        [LANE_PROBING] = 1u << LANE_IDLE | 1u << LANE_DOWN,
        [LANE_IDLE] = 1u << LANE_CLAIMING | 1u << LANE_PROBING | 1u << LANE_DOWN,
        [LANE_CLAIMING] = 1u << LANE_PUBLISHING | 1u << LANE_IDLE | 1u << LANE_DOWN,
        [LANE_PUBLISHING] = 1u << LANE_IDLE | 1u << LANE_DOWN,
    };
    assert(allowed[lane->state] & 1u << state);
    lane->state = state;
}

bool lane_is_ready(const struct lane *lane)
{
    return lane->state != LANE_DOWN && lane->state != LANE_PROBING;
}

static const struct config *config_of(const struct lane *lane)
{
    return lane->env->config;
}

/* ---- claim ---- */

/* Asks for what is not answered yet, sorted as the items are. */
static void fill_ids(struct lane *lane)
{
    lane->asked_count = 0;
    for (size_t i = 0; i < lane->batch->count; i++) {
        struct item *item = &lane->batch->items[i];
        if (item->d == NULL)
            continue;
        lane->ids[lane->asked_count] = item->d->id;
        lane->asked[lane->asked_count++] = item;
    }
}

/* Behind a commit the claims begin when that is answered: both together may take the time of both.
 */
static void set_claim_timer(struct lane *lane)
{
    int64_t patience = config_of(lane)->deadlines.claim_us + CLAIM_GRACE_US;
    if (lane->committing)
        patience += config_of(lane)->deadlines.commit_us;
    loop_timer_set(lane->env->loop, &lane->timer, clock_mono_us() + patience);
}

static void on_settled(struct batch *batch);

static void claim_next(struct lane *lane)
{
    size_t max = lane->queue == GATHER_SUSPECT ? 1 : (size_t)config_of(lane)->pipeline.batch;
    size_t count = gather_take(lane->env->gather, lane->queue, lane->taken, max);
    if (count == 0)
        return;
    lane->batch = batch_new(lane->env, lane->taken, count, on_settled, lane);
    lane->split = false;
    metrics_batch(lane->env->metrics, count);
    set_state(lane, LANE_CLAIMING);
    set_claim_timer(lane);
    fill_ids(lane);
    store_claim(lane->store, lane->ids, lane->asked_count);
}

/* An orphan is claimed key by key: whoever took one of its keys meanwhile keeps only that. */
static void claim_orphan(struct lane *lane)
{
    lane->batch = lane->orphan;
    lane->orphan = NULL;
    loop_timer_clear(lane->env->loop, &lane->orphan_timer);
    set_state(lane, LANE_CLAIMING);
    set_claim_timer(lane);
    fill_ids(lane);
    for (size_t i = 0; i < lane->asked_count; i++)
        lane->places[i] = batch_place(lane->asked[i]);
    metrics_add(lane->env->metrics, METRIC_STORE_RECLAIMED, (int64_t)lane->asked_count);
    store_claim_again(lane->store, lane->ids, lane->places, lane->asked_count);
}

static void start_probe(struct lane *lane)
{
    set_state(lane, LANE_PROBING);
    loop_timer_set(lane->env->loop, &lane->timer,
                   clock_mono_us() + config_of(lane)->deadlines.claim_us +
                       config_of(lane)->deadlines.commit_us);
    store_probe(lane->store);
}

void lane_wake(struct lane *lane)
{
    if (lane->state != LANE_IDLE)
        return;
    if (gather_breaker_is_open(lane->env->gather)) {
        if (lane->committing == NULL)
            start_probe(lane);
    } else if (lane->orphan) {
        if (lane->orphan->settled)
            claim_orphan(lane);
    } else {
        claim_next(lane);
    }
}

/* The batch is over without a commit under way: the lane is free for the next one. */
static void lane_rest(struct lane *lane)
{
    loop_timer_clear(lane->env->loop, &lane->timer);
    batch_end(lane->batch);
    lane->batch = NULL;
    set_state(lane, LANE_IDLE);
    gather_wake(lane->env->gather);
}

/* A key is held by another transaction, and this batch waited for it in vain: claim what is free,
 * and let only the suspects wait, each by itself. */
static void split_batch(struct lane *lane)
{
    metrics_add(lane->env->metrics, METRIC_STORE_SPLIT, 1);
    lane->split = true;
    set_claim_timer(lane);
    store_claim_unblocked(lane->store, lane->ids, lane->asked_count);
}

static void take_verdicts(struct lane *lane, const enum claim_verdict *verdicts)
{
    for (size_t i = 0; i < lane->asked_count; i++) {
        struct item *item = lane->asked[i];
        if (verdicts[i] == CLAIM_NEW)
            continue;
        if (verdicts[i] == CLAIM_KNOWN) {
            batch_finish(item, OUTCOME_DUPLICATE, NULL);
        } else {
            struct delivery *d = item->d;
            item->d = NULL;
            item->state = ITEM_FINISHED;
            gather_suspect(lane->env->gather, d);
        }
    }
}

static void count_double(struct lane *lane, const struct item *item)
{
    if (batch_maybe_in_kafka(item))
        metrics_add(lane->env->metrics, METRIC_DOUBLES_STORE_LOST, 1);
}

/* Own: the commit came through although its answer was lost. Known: a copy was quicker. */
static void take_orphan_verdicts(struct lane *lane, const enum claim_verdict *verdicts)
{
    for (size_t i = 0; i < lane->asked_count; i++) {
        struct item *item = lane->asked[i];
        if (verdicts[i] == CLAIM_NEW)
            continue;
        if (verdicts[i] == CLAIM_OWN) {
            batch_finish(item, OUTCOME_ACCEPTED, "committed, but the answer to that was lost");
        } else if (verdicts[i] == CLAIM_KNOWN) {
            count_double(lane, item);
            batch_finish(item, OUTCOME_DUPLICATE, "a copy was claimed while the session was lost");
        } else {
            count_double(lane, item);
            batch_finish(item, OUTCOME_STORE_SLOW,
                         "a copy is being claimed since the session was lost");
        }
    }
}

static void commit(struct lane *lane);

static void on_claimed(void *context, enum claim_result result, const enum claim_verdict *verdicts,
                       const char *reason)
{
    struct lane *lane = context;
    assert(lane->state == LANE_CLAIMING);
    struct batch *batch = lane->batch;
    int64_t took = clock_mono_us() - batch->claim_us;
    if (result == CLAIM_FAILED) {
        log_event(LOG_ERROR, "claim_failed", "%s", reason);
        gather_store_failed(lane->env->gather, reason);
    }
    if (batch->orphaned) {
        if (result == CLAIMED) {
            take_orphan_verdicts(lane, verdicts);
            commit(lane);
        } else {
            store_drop(lane->store, reason); /* it may be claimed once more, over a new session */
        }
        return;
    }
    metrics_step(lane->env->metrics, STEP_CLAIM, took);
    for (size_t i = 0; i < batch->count; i++)
        batch->items[i].d->receipt.claim_us = took;
    switch (result) {
    case CLAIMED:
        loop_timer_clear(lane->env->loop, &lane->timer);
        take_verdicts(lane, verdicts);
        set_state(lane, LANE_PUBLISHING);
        batch_publish(batch);
        return;
    case CLAIM_BLOCKED:
        if (lane->queue == GATHER_FRESH && !lane->split) {
            split_batch(lane);
            return;
        }
        if (lane->split) { /* it waits for no key: Postgres itself is slow */
            gather_store_failed(lane->env->gather, reason);
            batch_return(batch);
            break;
        }
        batch_refuse(batch, OUTCOME_STORE_SLOW, "another transaction holds this event");
        break;
    case CLAIM_FAILED:
        batch_return(batch); /* to be held */
        break;
    }
    lane_rest(lane);
}

/* ---- commit ---- */

/* Sends what is to be written and COMMIT, and makes room for the next batch behind them. */
static void commit(struct lane *lane)
{
    struct batch *batch = lane->batch;
    assert(lane->committing == NULL); /* its answer came before that to this batch's claims */
    if (batch_write(batch, lane->store) == 0) {
        store_rollback(lane->store);
        batch_refuse_failed(batch);
        lane_rest(lane);
        return;
    }
    lane->batch = NULL;
    lane->committing = batch;
    batch->commit_us = clock_mono_us();
    loop_timer_clear(lane->env->loop, &lane->timer);
    loop_timer_set(lane->env->loop, &lane->commit_timer,
                   batch->commit_us + config_of(lane)->deadlines.commit_us);
    store_commit(lane->store);
    set_state(lane, LANE_IDLE);
    batch_refuse_failed(batch);
    gather_wake(lane->env->gather);
}

static void end_orphan(struct lane *lane)
{
    batch_end(lane->orphan);
    lane->orphan = NULL;
    loop_timer_clear(lane->env->loop, &lane->orphan_timer);
}

static void on_settled(struct batch *batch)
{
    struct lane *lane = batch->owner;
    if (batch == lane->batch) {
        commit(lane);
        return;
    }
    assert(batch == lane->orphan);
    batch_refuse_failed(batch); /* nothing of them is claimed, and nothing will be */
    if (batch_is_over(batch))
        end_orphan(lane);
    gather_wake(lane->env->gather);
}

static void on_committed(void *context)
{
    struct lane *lane = context;
    struct batch *batch = lane->committing;
    assert(batch != NULL);
    lane->committing = NULL;
    loop_timer_clear(lane->env->loop, &lane->commit_timer);
    int64_t now = clock_mono_us();
    metrics_step(lane->env->metrics, STEP_COMMIT, now - batch->commit_us);
    batch_accept(batch, now);
    batch_end(batch);
    if (lane->state == LANE_CLAIMING) /* its claims had to wait for this commit */
        set_claim_timer(lane);
    else if (gather_breaker_is_open(lane->env->gather))
        gather_wake(lane->env->gather); /* its probe had to */
}

/* ---- deadlines and the connection ---- */

static void on_timer(struct loop_timer *timer)
{
    struct lane *lane = container_of(timer, struct lane, timer);
    store_drop(lane->store, lane->state == LANE_PROBING ? "the probe was not answered in time"
                                                        : "claims were not answered in time");
}

static void on_commit_timer(struct loop_timer *timer)
{
    struct lane *lane = container_of(timer, struct lane, commit_timer);
    store_drop(lane->store, "COMMIT was not answered in time");
}

static void on_ready(void *context)
{
    struct lane *lane = context;
    set_state(lane, LANE_IDLE);
    lane->told_unreachable = false;
    metrics_add(lane->env->metrics, METRIC_STORE_READY, 1);
    log_event(LOG_INFO, "store_ready", "a Postgres connection is ready");
    gather_wake(lane->env->gather);
}

static void on_probed(void *context)
{
    struct lane *lane = context;
    loop_timer_clear(lane->env->loop, &lane->timer);
    set_state(lane, LANE_IDLE);
    gather_store_proven(lane->env->gather);
}

/* ---- a lost transaction ---- */

/* The claims can't be had again in time: what Kafka has leaves a marker, what it surely does not
 * have is held. It may have, or get, the rest: the sender comes again, and then perhaps the same
 * record with the same event id. */
static void give_up_item(struct lane *lane, struct item *item)
{
    if (item->state != ITEM_PUBLISHED && batch_maybe_in_kafka(item)) {
        count_double(lane, item);
        batch_finish(item, OUTCOME_STORE_DOWN,
                     "the connection was lost over Kafka's acknowledgement");
        return;
    }
    struct delivery *d = item->d;
    item->d = NULL;
    if (item->state == ITEM_PUBLISHED)
        gather_mark(lane->env->gather, d, topic_name(item->op.topic), item->partition,
                    item->offset);
    else
        gather_hold(lane->env->gather, d);
    item->state = ITEM_FINISHED;
}

static void give_up_orphan(struct lane *lane)
{
    for (size_t i = 0; i < lane->orphan->count; i++) {
        struct item *item = &lane->orphan->items[i];
        if (item->d)
            give_up_item(lane, item);
    }
    end_orphan(lane);
    gather_wake(lane->env->gather);
}

static void on_orphan_timer(struct loop_timer *timer)
{
    give_up_orphan(container_of(timer, struct lane, orphan_timer));
}

/* The acknowledged ones are claimed again at once over the next connection; those in flight wait
 * for their reports meanwhile. */
static void orphan(struct lane *lane, struct batch *batch)
{
    assert(lane->orphan == NULL); /* before it is claimed again, nothing new is */
    batch->orphaned = true;
    lane->orphan = batch;
    int64_t last_call = INT64_MAX;
    for (size_t i = 0; i < batch->count; i++) {
        const struct delivery *d = batch->items[i].d;
        if (d && d->deadline_us < last_call)
            last_call = d->deadline_us;
    }
    loop_timer_set(lane->env->loop, &lane->orphan_timer,
                   last_call - config_of(lane)->deadlines.claim_us -
                       config_of(lane)->deadlines.commit_us);
}

static void on_lost(void *context, const char *reason)
{
    struct lane *lane = context;
    enum lane_state state = lane->state;
    struct batch *batch = lane->batch, *committing = lane->committing;
    lane->batch = lane->committing = NULL;
    log_event(LOG_WARNING, "store_lost", "a Postgres connection is lost: %s", reason);
    metrics_add(lane->env->metrics, METRIC_STORE_LOST, 1);
    metrics_add(lane->env->metrics, METRIC_STORE_READY, -1);
    set_state(lane, LANE_DOWN);
    loop_timer_clear(lane->env->loop, &lane->timer);
    loop_timer_clear(lane->env->loop, &lane->commit_timer);
    gather_store_failed(lane->env->gather, reason);
    if (committing)
        orphan(lane, committing);
    if (batch == NULL)
        return;
    if (state == LANE_PUBLISHING || batch->orphaned) {
        orphan(lane, batch);
        return;
    }
    batch_return(batch); /* nothing went to Kafka: another transaction may try, if there is time */
    batch_end(batch);
}

/* Told once for each outage, not for each attempt. */
static void on_unreachable(void *context, const char *reason)
{
    struct lane *lane = context;
    if (!lane->told_unreachable)
        log_event(LOG_WARNING, "store_unreachable", "Postgres can't be reached; trying again: %s",
                  reason);
    lane->told_unreachable = true;
}

static const struct store_handler store_handler = {
    .on_unreachable = on_unreachable,
    .on_ready = on_ready,
    .on_claimed = on_claimed,
    .on_committed = on_committed,
    .on_probed = on_probed,
    .on_lost = on_lost,
};

struct lane *lane_new(const struct batch_env *env, enum gather_queue queue)
{
    struct lane *lane = xcalloc(1, sizeof *lane);
    const struct config *config = env->config;
    lane->env = env;
    lane->queue = queue;
    lane->timer.on_due = on_timer;
    lane->commit_timer.on_due = on_commit_timer;
    lane->orphan_timer.on_due = on_orphan_timer;
    size_t max = (size_t)config->pipeline.batch;
    lane->taken = xcalloc(max, sizeof *lane->taken);
    lane->ids = xcalloc(max, sizeof *lane->ids);
    lane->asked = xcalloc(max, sizeof *lane->asked);
    lane->places = xcalloc(max, sizeof *lane->places);
    const struct store_options options = {
        .conninfo = config->postgres.conninfo,
        .password_file = config->postgres.password_file,
        .claim_us = config->deadlines.claim_us,
    };
    lane->store = store_new(env->loop, &options, &store_handler, lane);
    return lane;
}

void lane_free(struct lane *lane)
{
    if (lane == NULL)
        return;
    assert(lane->batch == NULL && lane->committing == NULL && lane->orphan == NULL);
    loop_timer_clear(lane->env->loop, &lane->timer);
    store_free(lane->store);
    free(lane->taken);
    free(lane->ids);
    free(lane->asked);
    free(lane->places);
    free(lane);
}
