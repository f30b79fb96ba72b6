/* DELIVERY_MEMORY: how long a delivery lives. It is held once from the start to the end of
 * delivery_finish(), and by whoever else needs its bytes. Thread: the loop's. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "obj.h"

struct delivery;
struct delivery_env;
struct inbound;

/* `in` lives until delivery_keep() or delivery_finish(). Holds a reference to the environment's
 * directory. */
MUST_CHECK struct delivery *delivery_new(struct delivery_env *env, const struct inbound *in);
/* The event is known: gives it its id and one block with a copy of all that is kept, so that
 * nothing points into the request or the JSON document any more. */
void delivery_keep(struct delivery *d);

/* Keeps and lets go the memory beyond delivery_finish(), for bytes that librdkafka still reads. */
void delivery_hold(struct delivery *d);
void delivery_release(struct delivery *d);
