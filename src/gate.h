/* GATE: may this process claim and publish, or must it hold? Closed from the start, and again
 * whenever Postgres lets a transaction or a connection go; `unhold.c` opens it when Postgres takes
 * transactions and all markers are applied. Thread: any. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "obj.h"

#include <stdbool.h>
#include <stdint.h>

struct gate;

/* For the process' whole life. */
MUST_CHECK struct gate *gate_new(void);
bool gate_is_open(const struct gate *gate);
/* Has it ever been? */
bool gate_was_open(const struct gate *gate);
void gate_close(struct gate *gate);
/* A number that each gate_close() changes: ask for it before looking at Postgres. */
uint64_t gate_epoch(const struct gate *gate);
/* False when it was closed again since `epoch`. */
bool gate_open(struct gate *gate, uint64_t epoch);

/* Since when it is closed (monotonic); 0 = it is open. */
int64_t gate_closed_us(const struct gate *gate);
/* Counts what was held since it closed, or, below 0, what was not after all; returns the sum. */
int64_t gate_count(struct gate *gate, int64_t bytes);
