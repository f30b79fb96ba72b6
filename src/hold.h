/* HOLD: what takes an event over on this loop while Postgres is away: the payload goes into the
 * holding topic, and an event that Kafka has acknowledged already leaves a marker. Acknowledged =
 * accepted. `unhold.c` takes both back. tests/model/README.md is the protocol. Thread: the loop's.
 */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "gather.h"

#include <stdint.h>

struct gate;
struct hold;

MUST_CHECK struct hold *hold_new(struct loop *loop, const struct config *config, struct gate *gate,
                                 struct gather *gather, struct publisher *publisher,
                                 struct metrics *metrics);
/* When nothing is under way. */
void hold_free(struct hold *hold);

/* Both end the delivery by gather_finish(), in time, and never before they return. */
void hold_payload(struct hold *hold, struct delivery *d);
/* The event is in `topic` at this place (offset -1 = not told), but its claim was lost. */
void hold_marker(struct hold *hold, struct delivery *d, const char *topic, int32_t partition,
                 int64_t offset);
