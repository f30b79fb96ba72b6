/* Shards of counters and their sum as Prometheus text. The owner of a shard writes it with a
 * relaxed load and store (nobody else does, so no locked instruction is needed); metrics_render()
 * reads all shards while they count on, so a scrape may be a few events behind but never torn. Only
 * series that exist are rendered: the declared pairs' `accepted`, and whatever else has occurred.
 * Thread: see metrics.h. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "metrics.h"

#include "log.h"
#include "obj.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#define MAX_BUCKETS 14

typedef _Atomic uint64_t cell;

struct bounds {
    size_t count;
    const char *le[MAX_BUCKETS];
    int64_t at[MAX_BUCKETS]; /* the same, in the unit that is observed */
};

static const struct bounds seconds = {
    14,
    {"0.0005", "0.001", "0.002", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2",
     "2.5", "3"},
    {500, 1000, 2000, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2000000, 2500000,
     3000000},
};
static const struct bounds events = {
    10,
    {"1", "2", "4", "8", "16", "32", "64", "128", "256", "512"},
    {1, 2, 4, 8, 16, 32, 64, 128, 256, 512},
};

struct histogram {
    cell buckets[MAX_BUCKETS + 1]; /* not cumulative; the last one is beyond all bounds */
    cell sum;
};

struct metrics {
    cell requests[METRICS_MAX_SERIES][OUTCOME_COUNT];
    struct histogram durations[METRICS_MAX_SERIES];
    struct histogram steps[METRIC_STEP_COUNT];
    struct histogram batches;
    cell plain[METRIC_COUNT]; /* of gauges the bits of an int64_t */
    cell queued[METRICS_MAX_PLATFORMS];
    cell signatures[METRICS_MAX_SIGNATURES];
};

struct series {
    const char *platform, *event_type;
    int platform_index;
};

struct signature {
    const char *platform, *kind, *secret;
};

/* Grows under the mutex, at load; a thread that was given an index may read its entry without. */
static struct {
    pthread_mutex_t mutex;
    struct series series[METRICS_MAX_SERIES];
    size_t series_count;
    const char *platforms[METRICS_MAX_PLATFORMS];
    size_t platform_count;
    struct signature signatures[METRICS_MAX_SIGNATURES];
    size_t signature_count;
    struct metrics *shards[METRICS_MAX_SHARDS];
    size_t shard_count;
} all = {
    .mutex = PTHREAD_MUTEX_INITIALIZER,
    .series = {{"other", "other", 0}},
    .series_count = 1,
    .platforms = {"other"},
    .platform_count = 1,
    .signatures = {{"other", "other", "other"}},
    .signature_count = 1,
};

static const struct {
    const char *type, *name, *labels, *help;
} plain_info[METRIC_COUNT] = {
#define METRIC(id, kind, title, label, text) {(kind), (title), (label), (text)},
#include "metrics.def"
#undef METRIC
};

static const char *const step_names[METRIC_STEP_COUNT] = {
    [STEP_VERIFY] = "verify", [STEP_EXTRACT] = "extract", [STEP_GATHER] = "gather",
    [STEP_CLAIM] = "claim",   [STEP_PUBLISH] = "publish", [STEP_COMMIT] = "commit",
};

/* -1 when the table is full. */
static int platform_index(const char *name)
{
    for (size_t i = 0; i < all.platform_count; i++)
        if (strcmp(all.platforms[i], name) == 0)
            return (int)i;
    if (all.platform_count == METRICS_MAX_PLATFORMS)
        return -1;
    all.platforms[all.platform_count] = xstrdup(name);
    return (int)all.platform_count++;
}

static int series_index(const char *platform, const char *event_type)
{
    for (size_t i = 0; i < all.series_count; i++)
        if (strcmp(all.series[i].platform, platform) == 0 &&
            strcmp(all.series[i].event_type, event_type) == 0)
            return (int)i;
    if (all.series_count == METRICS_MAX_SERIES)
        return 0;
    int index = platform_index(platform);
    if (index < 0)
        return 0;
    all.series[all.series_count] = (struct series){xstrdup(platform), xstrdup(event_type), index};
    return (int)all.series_count++;
}

int metrics_series(const char *platform, const char *event_type)
{
    pthread_mutex_lock(&all.mutex);
    int index = series_index(platform, event_type);
    pthread_mutex_unlock(&all.mutex);
    return index;
}

static int signature_index(const char *platform, const char *kind, const char *secret)
{
    for (size_t i = 0; i < all.signature_count; i++)
        if (strcmp(all.signatures[i].platform, platform) == 0 &&
            strcmp(all.signatures[i].kind, kind) == 0 &&
            strcmp(all.signatures[i].secret, secret) == 0)
            return (int)i;
    if (all.signature_count == METRICS_MAX_SIGNATURES)
        return 0;
    all.signatures[all.signature_count] =
        (struct signature){xstrdup(platform), xstrdup(kind), xstrdup(secret)};
    return (int)all.signature_count++;
}

int metrics_signature(const char *platform, const char *kind, const char *secret)
{
    pthread_mutex_lock(&all.mutex);
    int index = signature_index(platform, kind, secret);
    pthread_mutex_unlock(&all.mutex);
    return index;
}

struct metrics *metrics_shard_new(void)
{
    struct metrics *metrics = xcalloc(1, sizeof(*metrics));
    pthread_mutex_lock(&all.mutex);
    assert(all.shard_count < METRICS_MAX_SHARDS);
    all.shards[all.shard_count++] = metrics;
    pthread_mutex_unlock(&all.mutex);
    return metrics;
}

static void cell_add(cell *c, uint64_t delta)
{
    atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + delta,
                          memory_order_relaxed);
}

static uint64_t cell_get(const cell *c)
{
    return atomic_load_explicit(c, memory_order_relaxed);
}

static void observe(struct histogram *histogram, const struct bounds *bounds, int64_t value)
{
    if (value < 0)
        value = 0;
    size_t i = 0;
    while (i < bounds->count && value > bounds->at[i])
        i++;
    cell_add(&histogram->buckets[i], 1);
    cell_add(&histogram->sum, (uint64_t)value);
}

void metrics_delivery(struct metrics *metrics, int series, enum outcome outcome,
                      int64_t duration_us)
{
    assert(series >= 0 && series < METRICS_MAX_SERIES);
    assert(outcome > OUTCOME_NONE && outcome < OUTCOME_COUNT);
    cell_add(&metrics->requests[series][outcome], 1);
    observe(&metrics->durations[series], &seconds, duration_us);
}

void metrics_signed(struct metrics *metrics, int signature)
{
    assert(signature >= 0 && signature < METRICS_MAX_SIGNATURES);
    cell_add(&metrics->signatures[signature], 1);
}

void metrics_step(struct metrics *metrics, enum metric_step step, int64_t duration_us)
{
    observe(&metrics->steps[step], &seconds, duration_us);
}

void metrics_batch(struct metrics *metrics, size_t count)
{
    observe(&metrics->batches, &events, (int64_t)count);
}

void metrics_add(struct metrics *metrics, enum metric metric, int64_t delta)
{
    assert(delta >= 0 || plain_info[metric].type[0] == 'g');
    cell_add(&metrics->plain[metric], (uint64_t)delta);
}

void metrics_set(struct metrics *metrics, enum metric metric, int64_t value)
{
    atomic_store_explicit(&metrics->plain[metric], (uint64_t)value, memory_order_relaxed);
}

void metrics_queue(struct metrics *metrics, int series, int delta)
{
    assert(series >= 0 && series < METRICS_MAX_SERIES);
    cell_add(&metrics->queued[all.series[series].platform_index], (uint64_t)(int64_t)delta);
}

/* From here on: rendering, with the mutex held. */

/* The cell at `offset` of every shard, summed; wraps right for gauges. */
static uint64_t sum_at(size_t offset)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < all.shard_count; i++)
        sum += cell_get((const cell *)(const void *)((const char *)all.shards[i] + offset));
    return sum;
}

static uint64_t sum_requests(size_t series, size_t outcome)
{
    return sum_at(offsetof(struct metrics, requests) +
                  (series * OUTCOME_COUNT + outcome) * sizeof(cell));
}

static void put_escaped(FILE *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '\n')
            fputs("\\n", out);
        else if (*text == '"' || *text == '\\')
            fprintf(out, "\\%c", *text);
        else
            fputc(*text, out);
    }
}

static void put_label(FILE *out, const char *before, const char *key, const char *value)
{
    fprintf(out, "%s%s=\"", before, key);
    put_escaped(out, value);
    fputc('"', out);
}

static void put_head(FILE *out, const char *name, const char *type, const char *help)
{
    fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* `labels` without braces. `scale` is how many of the observed unit make one of the told one. */
static void put_histogram(FILE *out, const char *name, const char *labels,
                          const struct bounds *bounds, size_t offset, uint64_t scale)
{
    const char *comma = labels[0] ? "," : "";
    uint64_t count = 0;
    for (size_t i = 0; i <= bounds->count; i++) {
        count += sum_at(offset + offsetof(struct histogram, buckets) + i * sizeof(cell));
        fprintf(out, "%s_bucket{%s%sle=\"%s\"} %" PRIu64 "\n", name, labels, comma,
                i < bounds->count ? bounds->le[i] : "+Inf", count);
    }
    const char *open = labels[0] ? "{" : "", *close = labels[0] ? "}" : "";
    uint64_t sum = sum_at(offset + offsetof(struct histogram, sum));
    fprintf(out, "%s_sum%s%s%s %" PRIu64, name, open, labels, close, sum / scale);
    if (scale > 1)
        fprintf(out, ".%06" PRIu64, sum % scale);
    fprintf(out, "\n%s_count%s%s%s %" PRIu64 "\n", name, open, labels, close, count);
}

/* True when an earlier outcome has the same label, so that this one's count is in its line. */
static bool told_before(size_t outcome, const char *(*label)(size_t))
{
    for (size_t i = OUTCOME_NONE + 1; i < outcome; i++)
        if (label(i) && strcmp(label(i), label(outcome)) == 0)
            return true;
    return false;
}

static const char *status_of(size_t outcome)
{
    return outcome_info((enum outcome)outcome)->status_label;
}

static const char *error_of(size_t outcome)
{
    return outcome_info((enum outcome)outcome)->error_type;
}

static void render_requests(FILE *out)
{
    static const char name[] = "webhook_requests_total";
    put_head(out, name, "counter", "Webhook requests answered, by what became of them.");
    for (size_t s = 0; s < all.series_count; s++) {
        for (size_t o = OUTCOME_NONE + 1; o < OUTCOME_COUNT; o++) {
            if (told_before(o, status_of))
                continue;
            uint64_t sum = 0;
            for (size_t i = o; i < OUTCOME_COUNT; i++)
                if (strcmp(status_of(i), status_of(o)) == 0)
                    sum += sum_requests(s, i);
            bool declared = s > 0 && o == OUTCOME_ACCEPTED; /* rate() needs a start */
            if (sum == 0 && !declared)
                continue;
            put_label(out, "webhook_requests_total{", "platform", all.series[s].platform);
            put_label(out, ",", "event_type", all.series[s].event_type);
            put_label(out, ",", "status", status_of(o));
            fprintf(out, "} %" PRIu64 "\n", sum);
        }
    }
}

static uint64_t sum_failures(size_t platform, const char *error_type)
{
    uint64_t sum = 0;
    for (size_t o = OUTCOME_NONE + 1; o < OUTCOME_COUNT; o++)
        if (error_of(o) && strcmp(error_of(o), error_type) == 0)
            for (size_t s = 0; s < all.series_count; s++)
                if (all.series[s].platform_index == (int)platform)
                    sum += sum_requests(s, o);
    return sum;
}

static void render_failures(FILE *out)
{
    put_head(out, "webhook_failures_total", "counter",
             "Webhook requests that were not recorded, by cause.");
    for (size_t p = 0; p < all.platform_count; p++) {
        for (size_t o = OUTCOME_NONE + 1; o < OUTCOME_COUNT; o++) {
            if (!error_of(o) || told_before(o, error_of))
                continue;
            uint64_t sum = sum_failures(p, error_of(o));
            if (sum == 0)
                continue;
            put_label(out, "webhook_failures_total{", "platform", all.platforms[p]);
            put_label(out, ",", "error_type", error_of(o));
            fprintf(out, "} %" PRIu64 "\n", sum);
        }
    }
}

static bool has_occurred(size_t series)
{
    for (size_t o = OUTCOME_NONE + 1; o < OUTCOME_COUNT; o++)
        if (sum_requests(series, o) > 0)
            return true;
    return false;
}

static void render_durations(FILE *out)
{
    static const char name[] = "webhook_processing_duration_seconds";
    put_head(out, name, "histogram", "From the last byte of the body to the answer.");
    for (size_t s = 0; s < all.series_count; s++) {
        if (!has_occurred(s))
            continue;
        char *labels = NULL;
        size_t len;
        FILE *text = open_memstream(&labels, &len);
        if (text == NULL)
            abort();
        put_label(text, "", "platform", all.series[s].platform);
        put_label(text, ",", "event_type", all.series[s].event_type);
        fclose(text);
        put_histogram(out, name, labels, &seconds,
                      offsetof(struct metrics, durations) + s * sizeof(struct histogram), 1000000);
        free(labels);
    }
}

static void render_queues(FILE *out)
{
    put_head(out, "webhook_queue_size", "gauge",
             "Deliveries accepted for recording and not answered yet.");
    for (size_t p = 1; p < all.platform_count; p++) {
        put_label(out, "webhook_queue_size{", "platform", all.platforms[p]);
        fprintf(out, "} %" PRId64 "\n",
                (int64_t)sum_at(offsetof(struct metrics, queued) + p * sizeof(cell)));
    }
}

/* Those that are declared are told with 0, too: that an old secret is not used any more is what one
 * wants to see. */
static void render_signatures(FILE *out)
{
    put_head(out, "hookgate_signatures_total", "counter",
             "Requests that were authentic, by the credential that proved it.");
    for (size_t i = 0; i < all.signature_count; i++) {
        uint64_t sum = sum_at(offsetof(struct metrics, signatures) + i * sizeof(cell));
        if (i == 0 && sum == 0)
            continue;
        put_label(out, "hookgate_signatures_total{", "platform", all.signatures[i].platform);
        put_label(out, ",", "kind", all.signatures[i].kind);
        put_label(out, ",", "secret", all.signatures[i].secret);
        fprintf(out, "} %" PRIu64 "\n", sum);
    }
}

static void render_steps(FILE *out)
{
    static const char name[] = "hookgate_step_duration_seconds";
    put_head(out, name, "histogram", "Time that one step of a delivery took.");
    for (size_t i = 0; i < METRIC_STEP_COUNT; i++) {
        char labels[64];
        snprintf(labels, sizeof(labels), "step=\"%s\"", step_names[i]);
        put_histogram(out, name, labels, &seconds,
                      offsetof(struct metrics, steps) + i * sizeof(struct histogram), 1000000);
    }
    put_head(out, "hookgate_batch_events", "histogram", "Events in one claim transaction.");
    put_histogram(out, "hookgate_batch_events", "", &events, offsetof(struct metrics, batches), 1);
}

static void render_plain(FILE *out)
{
    for (size_t i = 0; i < METRIC_COUNT; i++) {
        if (i == 0 || strcmp(plain_info[i - 1].name, plain_info[i].name) != 0)
            put_head(out, plain_info[i].name, plain_info[i].type, plain_info[i].help);
        int64_t value = (int64_t)sum_at(offsetof(struct metrics, plain) + i * sizeof(cell));
        if (i == METRIC_LOG_DROPPED)
            value += (int64_t)log_dropped();
        bool bare = plain_info[i].labels[0] == '\0';
        fprintf(out, "%s%s%s%s %" PRId64 "\n", plain_info[i].name, bare ? "" : "{",
                plain_info[i].labels, bare ? "" : "}", value);
    }
}

void metrics_render(FILE *out)
{
    pthread_mutex_lock(&all.mutex);
    render_requests(out);
    render_failures(out);
    render_durations(out);
    render_queues(out);
    render_signatures(out);
    render_steps(out);
    render_plain(out);
    pthread_mutex_unlock(&all.mutex);
    put_head(out, "hookgate_build_info", "gauge", "Always 1; the label tells the version.");
    fprintf(out, "hookgate_build_info{version=\"%s\"} 1\n", HOOKGATE_VERSION);
    metrics_render_process(out);
}
