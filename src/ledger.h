/* LEDGER: the numbers of one quota (quota.h) as the lease thread keeps them: what was handed out,
 * spent, leased, lent and granted alone. What was spent is never counted as it happens: it is what
 * was handed out less what is left. `now`: monotonic microseconds. Thread: its own. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "lease_store.h"
#include "quota.h"

#include <stdbool.h>

/* Tokens that nobody takes for so long are given back; asks that are closer mean traffic. */
#define LEDGER_IDLE_US INT64_C(1000000)

/* What deliveries have taken since the last look goes into the local windows. */
void ledger_look(struct quota *quota, int64_t now);

/* What to ask Postgres for: debts are told, and `more` = new tokens may be wanted. Its texts are
 * the quota's. Settled by ledger_settle(), or ledger_forget() when nobody knows if it counted. */
MUST_CHECK struct lease_ask ledger_ask(struct quota *quota, int64_t now, bool more);
/* The answer: hands out what was granted, and a credit when `lend`. */
void ledger_settle(struct quota *quota, int64_t now, const struct lease_answer *answer, bool lend);
void ledger_forget(struct quota *quota);
/* Takes out what is leased and not spent, for the next ask to give back; returns how much. */
int64_t ledger_take_back(struct quota *quota);

/* Nobody answers: tokens out of this process' own share of the limit. */
void ledger_grant_locally(struct quota *quota, int64_t now);
/* Nobody used it for a while: it lives on its credit, and asks when that is touched. */
void ledger_rest(struct quota *quota, int64_t now);
/* Tells the takers how things stand; `wait_us` 0 = nothing is known to be used up. */
void ledger_publish(struct quota *quota, int64_t now, int64_t wait_us);
