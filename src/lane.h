/* LANE: one Postgres connection that carries batches through claim, publication and commit, one
 * after another.
 *
 *   IDLE -> CLAIMING -> PUBLISHING -> IDLE, while the batch that was published is committed behind
 *
 * The next batch is claimed right behind the commit, without waiting for its answer: one round trip
 * and no pause between batches. Every state has a deadline; a connection that misses one is given
 * up, and Postgres rolls its claims back. What of it is in Kafka already is claimed again over the
 * next connection, as long as there is time. While Postgres' breaker (gather.h) is open, an idle
 * lane does nothing but probe. Thread: the loop's. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "gather.h"

struct lane;

/* `queue` says what the lane carries; for suspects each batch is one event, and waits for its key.
 */
struct batch_env;
MUST_CHECK struct lane *lane_new(const struct batch_env *env, enum gather_queue queue);
/* Only when it carries nothing. */
void lane_free(struct lane *lane);
bool lane_is_ready(const struct lane *lane);
/* Takes a batch when it is idle and something waits. */
void lane_wake(struct lane *lane);
