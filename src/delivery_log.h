/* DELIVERY_LOG: what operators and security officers read of a delivery. Its outcome is known when
 * these are called, once each. Before the signature has matched nothing of the body is known, so
 * nothing of it can be told; never a path, token, body or signature. Thread: the loop's. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdint.h>

struct delivery;

/* The one log line of a delivery, which took so long. */
void delivery_log(const struct delivery *d, int64_t duration_us);
/* Notes in the loop's book of sightings what a security officer should hear of. */
void delivery_sight(const struct delivery *d);
