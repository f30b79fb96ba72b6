/* The arithmetic behind ledger.h. Called by lease.c. Thread: the lease thread. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "ledger.h"

/* An exhausted quota that is still wanted asks so often: others may have given something back. */
#define RECHECK_US INT64_C(1000000)
/* What is granted at once is used up for so long at least. */
#define SHARE_WAIT_MIN_US INT64_C(10000)

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

void ledger_look(struct quota *quota, int64_t now)
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

int64_t ledger_take_back(struct quota *quota)
{
    int64_t back = withdraw(quota, quota->paid - quota->spent);
    quota->paid -= back;
    quota->back += back;
    return back;
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

void ledger_publish(struct quota *quota, int64_t now, int64_t wait_us)
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

static int64_t wanted(const struct quota *quota, int64_t now)
{
    int64_t waiting = atomic_load(&quota->waiting);
    bool busy = quota->asked_us != 0 && now - quota->asked_us < LEDGER_IDLE_US;
    if (waiting == 0 && !busy && atomic_load(&quota->free_us) == 0)
        return 0;
    return max64(0, quota_chunk(quota) + waiting - max64(0, quota->paid - quota->spent));
}

struct lease_ask ledger_ask(struct quota *quota, int64_t now, bool more)
{
    atomic_store(&quota->asked, false); /* before the look: what comes later asks again */
    ledger_look(quota, now);
    quota->owed = max64(0, quota->spent - quota->paid);
    int64_t want = more ? wanted(quota, now) : 0;
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

void ledger_settle(struct quota *quota, int64_t now, const struct lease_answer *answer, bool lend)
{
    ledger_look(quota, now);
    quota->paid += quota->owed + answer->granted;
    quota->owed = quota->back = quota->local = 0;
    quota->credit = answer->plenty && lend ? quota_credit(quota) : 0;
    hand_out(quota);
}

void ledger_forget(struct quota *quota)
{
    quota->owed = quota->back = 0;
}

void ledger_rest(struct quota *quota, int64_t now)
{
    quota->local = 0;
    quota->credit = quota_credit(quota);
    hand_out(quota);
    ledger_publish(quota, now, 0);
    atomic_store(&quota->low, quota->credit - 1); /* or we would not hear of the next one */
}

void ledger_grant_locally(struct quota *quota, int64_t now)
{
    atomic_store(&quota->asked, false);
    ledger_look(quota, now);
    int64_t free_us = atomic_load(&quota->free_us);
    if (now < free_us) { /* what Postgres knew last still holds */
        ledger_publish(quota, now, free_us - now);
        return;
    }
    int64_t more = min64(share_left(quota, now) - max64(0, tokens_of(quota)),
                         quota_chunk(quota) + atomic_load(&quota->waiting));
    quota->local += max64(0, more);
    hand_out(quota);
    ledger_publish(quota, now, max64(SHARE_WAIT_MIN_US, share_wait_us(quota, now)));
}
