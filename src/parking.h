/* PARKING: how much waits in the outbox (mcp.webhook_outbox), and whether more may. The one thing
 * that the event loops and the drainer share: a few atomic numbers. The drainer reads the true ones
 * from Postgres every second or so; in between, each loop adds what it parks, so that an instance
 * can't run past the budget between two looks. Thread: any. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "obj.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct config;
struct parking;

MUST_CHECK struct parking *parking_new(const struct config *config);
void parking_free(struct parking *parking);

/* May events be parked: is the outbox below park.bytes, and its oldest event younger than park.age?
 */
bool parking_admits(const struct parking *parking);
/* So many bytes were committed to the outbox. */
void parking_add(struct parking *parking, size_t bytes);

/* For the drainer. */

/* What the outbox of all instances holds; `oldest_us` is the age of its oldest event. */
void parking_set(struct parking *parking, int64_t bytes, int64_t oldest_us);
/* Was anything added since the last call? */
bool parking_take_news(struct parking *parking);
