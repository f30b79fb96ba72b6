/* WITNESS: writes what the loops have sighted to mcp.security_events, about once a second, summed
 * by hour and source. Postgres away: it keeps what there is within the bound of its table, sums the
 * rest by platform, and drops and counts what fits nowhere; deliveries never notice. Thread: that
 * of the loop it was given. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "obj.h"

#include <stdbool.h>

struct config;
struct loop;
struct metrics;
struct sighting_book;
struct witness;

MUST_CHECK struct witness *witness_new(struct loop *loop, const struct config *config,
                                       struct metrics *metrics);
/* After the threads that fill its books have ended. */
void witness_free(struct witness *witness);
/* A book for one more thread (WITNESS_BOOKS at most), whose counters are `metrics`; the witness
 * owns it. */
#define WITNESS_BOOKS 64
struct sighting_book *witness_book(struct witness *witness, struct metrics *metrics);
/* For the end of the process: asks for the last ones to be written. True when they are, or when
 * waiting for it has taken a second. */
bool witness_is_finished(struct witness *witness);
