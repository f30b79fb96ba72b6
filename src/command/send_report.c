/* The report behind send_report.h: a histogram and two ways to print. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "send_report.h"

#include <inttypes.h>

/* The first 128 buckets hold one value each; after them each power of two has 64 that are used by
 * shifting, so neighbours never overlap. */
static size_t bucket_of(uint64_t value)
{
    if (value < HISTOGRAM_SUB)
        return (size_t)value;
    unsigned shift = 63 - (unsigned)__builtin_clzll(value) - 6;
    size_t bucket = shift * (HISTOGRAM_SUB / 2) + (size_t)(value >> shift);
    return bucket < HISTOGRAM_BUCKETS ? bucket : HISTOGRAM_BUCKETS - 1;
}

/* The largest value of the bucket. */
static uint64_t bucket_end(size_t bucket)
{
    if (bucket < HISTOGRAM_SUB)
        return bucket;
    size_t shift = bucket / (HISTOGRAM_SUB / 2) - 1;
    uint64_t top = bucket - shift * (HISTOGRAM_SUB / 2);
    return ((top + 1) << shift) - 1;
}

void histogram_add(struct histogram *histogram, int64_t value_us)
{
    if (value_us < 0)
        value_us = 0;
    histogram->counts[bucket_of((uint64_t)value_us)]++;
    histogram->total++;
    if (value_us > histogram->max_us)
        histogram->max_us = value_us;
}

/* The value that `share` (0..1) of all values do not exceed; 0 when there is none. */
static int64_t histogram_quantile(const struct histogram *histogram, double share)
{
    uint64_t wanted = (uint64_t)(share * (double)histogram->total + 0.999999);
    uint64_t seen = 0;
    for (size_t i = 0; i < HISTOGRAM_BUCKETS && histogram->total > 0; i++) {
        seen += histogram->counts[i];
        if (seen >= wanted && seen > 0) {
            int64_t end = (int64_t)bucket_end(i);
            return end < histogram->max_us ? end : histogram->max_us;
        }
    }
    return histogram->max_us;
}

static double ms(int64_t us)
{
    return (double)us / 1000;
}

static double rate(const struct send_report *report)
{
    return report->seconds > 0 ? (double)report->answered / report->seconds : 0;
}

void send_report_print(const struct send_report *report, FILE *out)
{
    fprintf(out,
            "sent %" PRIu64 ", answered %" PRIu64 ": accepted %" PRIu64 ", duplicate %" PRIu64
            ", ignored %" PRIu64 "\n",
            report->sent, report->answered, report->accepted, report->duplicate, report->ignored);
    for (size_t i = 0; i < 1000; i++) {
        if (report->status[i] > 0 && i != 200)
            fprintf(out, "status %zu: %" PRIu64 "\n", i, report->status[i]);
    }
    if (report->errors > 0)
        fprintf(out,
                "no answer: %" PRIu64 " (unreachable %" PRIu64 ", broken off %" PRIu64
                ", too late %" PRIu64 ", garbled %" PRIu64 "); last: %s\n",
                report->errors, report->unreachable, report->broken, report->timeouts,
                report->garbled, report->last_failure);
    if (report->reconnects > 0)
        fprintf(out, "reconnects: %" PRIu64 "\n", report->reconnects);
    if (report->unsent > 0)
        fprintf(out, "not sent, though due: %" PRIu64 "\n", report->unsent);
    const struct histogram *latency = &report->latency;
    fprintf(out,
            "%.2f s, %.1f answers/s, CPU %.1f us per event here\n"
            "latency ms: p50 %.2f, p90 %.2f, p99 %.2f, p99.9 %.2f, max %.2f\n",
            report->seconds, rate(report), report->cpu_us_per_event,
            ms(histogram_quantile(latency, 0.5)), ms(histogram_quantile(latency, 0.9)),
            ms(histogram_quantile(latency, 0.99)), ms(histogram_quantile(latency, 0.999)),
            ms(latency->max_us));
}

static void put_quantiles(FILE *out, const char *name, const struct histogram *latency)
{
    fprintf(out, ",\"%s\":{\"p50\":%.3f,\"p90\":%.3f,\"p99\":%.3f,\"p999\":%.3f,\"max\":%.3f}",
            name, ms(histogram_quantile(latency, 0.5)), ms(histogram_quantile(latency, 0.9)),
            ms(histogram_quantile(latency, 0.99)), ms(histogram_quantile(latency, 0.999)),
            ms(latency->max_us));
}

void send_report_print_json(const struct send_report *report, struct slice answer, FILE *out)
{
    fprintf(out,
            "{\"sent\":%" PRIu64 ",\"answered\":%" PRIu64 ",\"accepted\":%" PRIu64
            ",\"duplicate\":%" PRIu64 ",\"ignored\":%" PRIu64 ",\"status\":{",
            report->sent, report->answered, report->accepted, report->duplicate, report->ignored);
    const char *comma = "";
    for (size_t i = 0; i < 1000; i++) {
        if (report->status[i] == 0)
            continue;
        fprintf(out, "%s\"%zu\":%" PRIu64, comma, i, report->status[i]);
        comma = ",";
    }
    fprintf(out,
            "},\"errors\":%" PRIu64 ",\"reconnects\":%" PRIu64 ",\"unsent\":%" PRIu64
            ",\"seconds\":%.3f,\"rate\":%.1f",
            report->errors, report->reconnects, report->unsent, report->seconds, rate(report));
    put_quantiles(out, "latency_ms", &report->latency);
    put_quantiles(out, "accepted_latency_ms", &report->accepted_latency);
    fprintf(out, ",\"cpu_us_per_event\":%.1f", report->cpu_us_per_event);
    if (answer.len > 0)
        fprintf(out, ",\"answer\":%.*s", (int)answer.len, answer.ptr);
    fputs("}\n", out);
}
