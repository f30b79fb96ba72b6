/* Counters and histograms: one shard per event loop (relaxed atomics, no locks), summed when
 * Prometheus scrapes. Label sets are declared when platforms are loaded, so cardinality is bounded;
 * never a path, address or token. metrics.def is the list of plain counters and gauges. Thread: a
 * shard is written by its owner, read by any. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "outcome.h"

#include <stdint.h>
#include <stdio.h>

#define METRICS_MAX_SERIES 512 /* (platform, event type) pairs */
#define METRICS_MAX_PLATFORMS 64
#define METRICS_MAX_SIGNATURES 512 /* credentials that are told apart */
#define METRICS_MAX_SHARDS 80      /* 64 event loops, and threads that count little */

/* The index of a pair, made on first use; 0 ("other") when the table is full. Texts are copied.
 * Takes a lock: at load only. */
int metrics_series(const char *platform, const char *event_type);

/* The index of a credential of a platform for metrics_signed(), as above. `kind` is "application",
 * "integration" or "endpoint_token"; `secret` tells which of them. */
int metrics_signature(const char *platform, const char *kind, const char *secret);

enum metric_step {
    STEP_VERIFY,
    STEP_EXTRACT,
    STEP_GATHER,
    STEP_CLAIM,
    STEP_PUBLISH,
    STEP_COMMIT,
    METRIC_STEP_COUNT
};

enum metric {
#define METRIC(id, type, name, labels, help) METRIC_##id,
#include "metrics.def"
#undef METRIC
    METRIC_COUNT
};

struct metrics; /* a shard */

/* The shard of one thread; lives until exit. */
struct metrics *metrics_shard_new(void);

/* One delivery ended: webhook_requests_total, webhook_failures_total and
 * webhook_processing_duration_seconds. `series` 0 = no platform known. */
void metrics_delivery(struct metrics *metrics, int series, enum outcome outcome,
                      int64_t duration_us);
/* hookgate_signatures_total: a request was authentic by this credential. */
void metrics_signed(struct metrics *metrics, int signature);
void metrics_step(struct metrics *metrics, enum metric_step step, int64_t duration_us);
/* hookgate_batch_events: how many events one claim transaction carried. */
void metrics_batch(struct metrics *metrics, size_t events);
/* Counters only grow; gauges may be given a negative delta. Shards are summed: a gauge that speaks
 * of the whole process (a time, a yes or no) is set by one owner only. */
void metrics_add(struct metrics *metrics, enum metric metric, int64_t delta);
void metrics_set(struct metrics *metrics, enum metric metric, int64_t value);
/* webhook_queue_size{platform}: deliveries accepted for recording and not answered yet. */
void metrics_queue(struct metrics *metrics, int series, int delta);

/* Prometheus text format 0.0.4 of everything, process_* and hookgate_build_info included. */
void metrics_render(FILE *out);

/* The process_* part of it (metrics_process.c). */
void metrics_render_process(FILE *out);
