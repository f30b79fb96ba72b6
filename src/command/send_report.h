/* What `hookgate send` counts and tells at the end. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "slice.h"

#include <stdint.h>
#include <stdio.h>

/* Log-linear buckets: 128 a power of two, so that a value is told within 0.8 %. */
#define HISTOGRAM_SUB 128
#define HISTOGRAM_BUCKETS (HISTOGRAM_SUB * 32)

struct histogram {
    uint64_t counts[HISTOGRAM_BUCKETS];
    uint64_t total;
    int64_t max_us;
};

void histogram_add(struct histogram *histogram, int64_t value_us);

struct send_report {
    uint64_t sent, answered, accepted, duplicate, ignored;
    uint64_t status[1000];
    uint64_t errors, unreachable, broken, timeouts, garbled;
    uint64_t reconnects, unsent;
    uint64_t surprises; /* answers (or their want) that an orderly gateway would not have given */
    char last_failure[160];
    double seconds, cpu_us_per_event;
    struct histogram latency;          /* of answered requests */
    struct histogram accepted_latency; /* of those that were accepted */
};

void send_report_print(const struct send_report *report, FILE *out);
/* `answer`: of the only request, JSON; empty = none. */
void send_report_print_json(const struct send_report *report, struct slice answer, FILE *out);
