/* AUDIT: is everything that was answered 2xx where it should be? Joins the receipts since a moment
 * with the records in their topics, over event ids and not over counters. Blocking. Thread: any but
 * an event loop's. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "event.h"
#include "obj.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct config;

#define AUDIT_SAMPLES 20

struct audit_options {
    const struct config *config;
    const char *const *topics; /* of the platforms, besides those that receipts name */
    size_t topic_count;
    int64_t since_wall_us;
    int64_t deadline_us; /* monotonic */
};

struct audit_report {
    /* Receipts, refused ones and markers: each stands for a 2xx. So does what is held, but copies
     * are not told apart there. */
    int64_t acknowledged;
    int64_t in_kafka; /* of these, found in their topic */
    int64_t missing;  /* published by their receipt, yet in no topic; or waiting, yet not kept */
    int64_t doubled;  /* event ids with more than one record */
    int64_t parked, stuck;
    int64_t held;      /* in the holding topic; and markers that are not taken over yet */
    int64_t expired;   /* published, and older than what their topic still keeps: can't be told */
    int64_t unclaimed; /* in a topic without a receipt: told 503, and not sent again since */
    int64_t filled;    /* receipts whose offset was not known and is now */
    struct event_id missing_ids[AUDIT_SAMPLES], doubled_ids[AUDIT_SAMPLES];
};

/* False with a line on `err` when Postgres or Kafka could not be read to the end: then nothing was
 * audited. */
MUST_CHECK bool audit_run(const struct audit_options *options, struct audit_report *ret, FILE *err);
