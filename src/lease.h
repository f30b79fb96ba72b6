/* LEASE: the thread that gets quota from Postgres, so that all instances together keep to a limit
 * and no delivery pays for it with a round trip. Quotas that are short of tokens ask; all that ask
 * in a moment are served by one statement, in chunks of a few hundredths of the limit. What is not
 * spent within a second or two is given back.
 *
 * Postgres away, silent for LEASE_PATIENCE_US, or refusing a lease: the process grants its own
 * share of each limit, and settles that when a lease is answered again. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "obj.h"

#define LEASE_PATIENCE_US 80000

struct config;
struct lease;

/* Starts the thread; takes from `config` how to reach Postgres. */
MUST_CHECK struct lease *lease_start(const struct config *config);
/* Once nobody takes tokens any more: gives back what is not spent, for a second at most, and ends
 * the thread. The object and its loop stay until the process ends, because a thread that looks up a
 * name may still post to it. */
void lease_stop(struct lease *lease);
