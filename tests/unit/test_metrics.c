/* Counters and their rendering: sums over shards, what is shown and what is not, labels that need
 * escaping, bounds of the tables, and promtool's own opinion of the page. Series live for the whole
 * process, so each case uses platforms of its own. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "metrics.h"

#include "obj.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/wait.h>
/* cmocka.h needs those before it */
#include <cmocka.h>

static char *render(void)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    assert_non_null(out);
    metrics_render(out);
    fclose(out);
    return text;
}

/* How many lines of the page begin with `prefix`. */
static size_t lines_with(const char *page, const char *prefix)
{
    size_t count = 0, len = strlen(prefix);
    for (const char *line = page; line != NULL && *line; line = strchr(line, '\n')) {
        line += *line == '\n';
        count += strncmp(line, prefix, len) == 0;
    }
    return count;
}

static void assert_line(const char *line)
{
    char *page = render(), with_end[512];
    snprintf(with_end, sizeof(with_end), "%s\n", line);
    if (lines_with(page, with_end) != 1)
        fail_msg("not there, or not once: %s", line);
    free(page);
}

static void assert_absent(const char *prefix)
{
    char *page = render();
    assert_int_equal(lines_with(page, prefix), 0);
    free(page);
}

static struct metrics *shard(void)
{
    static struct metrics *shards[2];
    static unsigned next;
    struct metrics **one = &shards[next++ % 2]; /* in turn, so that sums matter */
    if (*one == NULL)
        *one = metrics_shard_new();
    return *one;
}

static void test_series_are_made_once(void **state)
{
    (void)state;
    int a = metrics_series("once", "a"), b = metrics_series("once", "b");
    assert_true(a > 0 && b > 0 && a != b);
    assert_int_equal(metrics_series("once", "a"), a);
    assert_int_equal(metrics_series("once", "b"), b);
}

static void test_declared_series_start_at_zero(void **state)
{
    (void)state;
    metrics_series("quiet", "meeting.ended");
    char *page = render();
    assert_int_equal(lines_with(page, "webhook_requests_total{platform=\"quiet\""), 1);
    free(page);
    assert_line("webhook_requests_total{platform=\"quiet\",event_type=\"meeting.ended\","
                "status=\"accepted\"} 0");
    assert_line("webhook_queue_size{platform=\"quiet\"} 0");
    assert_absent("webhook_failures_total{platform=\"quiet\"");
    assert_absent("webhook_processing_duration_seconds_count{platform=\"quiet\"");
    assert_absent("webhook_requests_total{platform=\"other\"");
}

/* Outcomes with one status label make one line; error types stay apart and ignore event types. */
static void test_outcomes_sum_by_label(void **state)
{
    (void)state;
    int a = metrics_series("sums", "a"), b = metrics_series("sums", "b");
    metrics_delivery(shard(), a, OUTCOME_ACCEPTED, 1);
    metrics_delivery(shard(), a, OUTCOME_ACCEPTED, 1);
    metrics_delivery(shard(), a, OUTCOME_SIGNATURE_MISMATCH, 1);
    metrics_delivery(shard(), a, OUTCOME_TIMESTAMP_STALE, 1);
    metrics_delivery(shard(), b, OUTCOME_TIMESTAMP_STALE, 1);
    assert_line("webhook_requests_total{platform=\"sums\",event_type=\"a\",status=\"accepted\"} 2");
    assert_line(
        "webhook_requests_total{platform=\"sums\",event_type=\"a\",status=\"unauthorized\"} 2");
    assert_line(
        "webhook_requests_total{platform=\"sums\",event_type=\"b\",status=\"unauthorized\"} 1");
    assert_line("webhook_failures_total{platform=\"sums\",error_type=\"signature_mismatch\"} 1");
    assert_line("webhook_failures_total{platform=\"sums\",error_type=\"timestamp_stale\"} 2");
    char *page = render();
    assert_int_equal(lines_with(page, "webhook_failures_total{platform=\"sums\""), 2);
    free(page);
}

static void test_histogram_bounds(void **state)
{
    (void)state;
    int s = metrics_series("bounds", "a");
    static const int64_t durations[] = {-5, 500, 501, 2500000, 2500001, 3000001, INT32_MAX};
    for (size_t i = 0; i < sizeof(durations) / sizeof(durations[0]); i++)
        metrics_delivery(shard(), s, OUTCOME_ACCEPTED, durations[i]);
#define B "webhook_processing_duration_seconds_bucket{platform=\"bounds\",event_type=\"a\",le="
    assert_line(B "\"0.0005\"} 2"); /* a bound belongs to its bucket */
    assert_line(B "\"0.001\"} 3");
    assert_line(B "\"2\"} 3");
    assert_line(B "\"2.5\"} 4");
    assert_line(B "\"3\"} 5");
    assert_line(B "\"+Inf\"} 7");
#undef B
    assert_line(
        "webhook_processing_duration_seconds_count{platform=\"bounds\",event_type=\"a\"} 7");
    assert_line("webhook_processing_duration_seconds_sum{platform=\"bounds\",event_type=\"a\"} "
                "2155.484650");
}

static void test_steps_and_batches(void **state)
{
    (void)state;
    metrics_step(shard(), STEP_CLAIM, 1500);
    metrics_step(shard(), STEP_CLAIM, 1500);
    metrics_batch(shard(), 1);
    metrics_batch(shard(), 100000);
    assert_line("hookgate_step_duration_seconds_bucket{step=\"claim\",le=\"0.001\"} 0");
    assert_line("hookgate_step_duration_seconds_bucket{step=\"claim\",le=\"0.002\"} 2");
    assert_line("hookgate_step_duration_seconds_sum{step=\"claim\"} 0.003000");
    assert_line("hookgate_batch_events_bucket{le=\"1\"} 1");
    assert_line("hookgate_batch_events_bucket{le=\"512\"} 1");
    assert_line("hookgate_batch_events_bucket{le=\"+Inf\"} 2");
    assert_line("hookgate_batch_events_sum 100001");
}

static void test_gauges_go_down(void **state)
{
    (void)state;
    int a = metrics_series("queue", "a"), b = metrics_series("queue", "b");
    struct metrics *first = shard(), *second = shard();
    metrics_queue(first, a, 3);
    metrics_queue(second, b, 2);
    metrics_queue(second, a, -1); /* a shard alone may be below zero, the sum is not */
    metrics_queue(second, a, -2);
    assert_line("webhook_queue_size{platform=\"queue\"} 2");
    metrics_add(first, METRIC_CONNECTIONS_OPEN, 5);
    metrics_add(second, METRIC_CONNECTIONS_OPEN, -2);
    assert_line("hookgate_connections{listener=\"webhooks\"} 3");
    metrics_set(first, METRIC_DIRECTORY_SIZE, 7);
    metrics_set(first, METRIC_DIRECTORY_SIZE, 4);
    assert_line("hookgate_directory_integrations 4");
    metrics_set(first, METRIC_BREAKERS_OPEN, -1);
    assert_line("hookgate_broker_breakers_open -1");
    metrics_set(first, METRIC_BREAKERS_OPEN, 1);
}

static void test_labels_are_escaped(void **state)
{
    (void)state;
    int s = metrics_series("esc\"\\\n", "x\"} 1\nevil_total 1");
    metrics_delivery(shard(), s, OUTCOME_BAD_JSON, 1);
    assert_line("webhook_failures_total{platform=\"esc\\\"\\\\\\n\",error_type=\"bad_json\"} 1");
    assert_absent("evil_total");
}

static void test_unknown_platform(void **state)
{
    (void)state;
    metrics_delivery(shard(), 0, OUTCOME_UNKNOWN_PLATFORM, 1);
    assert_line("webhook_requests_total{platform=\"other\",event_type=\"other\","
                "status=\"not_found\"} 1");
    assert_line("webhook_failures_total{platform=\"other\",error_type=\"unknown_platform\"} 1");
    assert_absent("webhook_requests_total{platform=\"other\",event_type=\"other\",status=\"acc");
}

static void test_heads_come_once(void **state)
{
    (void)state;
    char *page = render();
    assert_int_equal(lines_with(page, "# TYPE hookgate_possible_doubles_total counter\n"), 1);
    assert_int_equal(lines_with(page, "# HELP hookgate_possible_doubles_total "), 1);
    assert_int_equal(lines_with(page, "hookgate_possible_doubles_total{cause="), 3);
    assert_int_equal(lines_with(page, "hookgate_build_info{version=\"" HOOKGATE_VERSION "\"} 1"),
                     1);
    free(page);
}

static double value_of(const char *page, const char *name)
{
    char start[128];
    snprintf(start, sizeof(start), "\n%s ", name);
    const char *at = strstr(page, start);
    if (at == NULL)
        fail_msg("no %s", name);
    return strtod(at + strlen(start), NULL);
}

static void test_process(void **state)
{
    (void)state;
    char *page = render();
    double now = (double)time(NULL), start = value_of(page, "process_start_time_seconds");
    assert_true(start > now - 600 && start < now + 2);
    assert_true(value_of(page, "process_resident_memory_bytes") > 100000);
    assert_true(value_of(page, "process_virtual_memory_bytes") >=
                value_of(page, "process_resident_memory_bytes"));
    assert_true(value_of(page, "process_cpu_seconds_total") > 0);
    assert_true(value_of(page, "process_max_fds") >= 3);
    assert_true(value_of(page, "process_threads") >= 1);
    double before = value_of(page, "process_open_fds");
    free(page);
    FILE *one_more = fopen("/dev/null", "r");
    page = render();
    assert_true(value_of(page, "process_open_fds") == before + 1);
    free(page);
    fclose(one_more);
}

#define COUNTS 200000

static void *count(void *series)
{
    struct metrics *own = metrics_shard_new();
    for (int i = 0; i < COUNTS; i++)
        metrics_delivery(own, *(int *)series, OUTCOME_ACCEPTED, 1);
    return NULL;
}

/* Scrapes while others count: nothing is lost, and a count never goes back. */
static void test_scrape_while_counting(void **state)
{
    (void)state;
    int series = metrics_series("busy", "a");
    pthread_t threads[3];
    for (size_t i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, count, &series);
    double last = 0;
    for (int i = 0; i < 20; i++) {
        char *page = render();
        double now = value_of(
            page, "webhook_requests_total{platform=\"busy\",event_type=\"a\",status=\"accepted\"}");
        assert_true(now >= last);
        last = now;
        free(page);
    }
    for (size_t i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    char line[128];
    snprintf(line, sizeof(line),
             "webhook_requests_total{platform=\"busy\",event_type=\"a\",status=\"accepted\"} %d",
             3 * COUNTS);
    assert_line(line);
}

/* Prometheus' own checker; its absence is a failure, or this would pass where it does nothing. */
static void test_promtool(void **state)
{
    (void)state;
    FILE *promtool = popen("promtool check metrics 2>&1", "w");
    assert_non_null(promtool);
    metrics_render(promtool);
    int status = pclose(promtool);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* Last: it fills the tables. */
static void test_full_tables(void **state)
{
    (void)state;
    char name[32];
    for (int i = 0; i < METRICS_MAX_PLATFORMS + 5; i++) {
        snprintf(name, sizeof(name), "many%d", i);
        metrics_series(name, "a");
    }
    assert_int_equal(metrics_series("one-too-many", "a"), 0);
    for (int i = 0; i < METRICS_MAX_SERIES; i++) {
        snprintf(name, sizeof(name), "type%d", i);
        int index = metrics_series("many0", name);
        assert_in_range(index, 0, METRICS_MAX_SERIES - 1);
    }
    assert_int_equal(metrics_series("many0", "one-too-many"), 0);
    assert_true(metrics_series("once", "a") > 0); /* those that exist are still found */
    metrics_delivery(shard(), METRICS_MAX_SERIES - 1, OUTCOME_ACCEPTED, 1);
    test_promtool(state);
}

/* A credential that is declared is told with 0: that nobody uses an old secret is the answer one
 * looks for. */
static void test_signatures(void **state)
{
    (void)state;
    struct metrics *metrics = metrics_shard_new();
    int new = metrics_signature("signed", "application", "new");
    int old = metrics_signature("signed", "application", "old");
    assert_int_equal(metrics_signature("signed", "application", "new"), new);
    assert_int_not_equal(metrics_signature("signed", "integration", "new"), new);
    assert_int_not_equal(old, new);
    metrics_signed(metrics, new);
    metrics_signed(metrics, new);
    char *text = render();
    assert_non_null(
        strstr(text, "\nhookgate_signatures_total{platform=\"signed\",kind=\"application\",secret="
                     "\"new\"} 2\n"));
    assert_non_null(
        strstr(text, "\nhookgate_signatures_total{platform=\"signed\",kind=\"application\",secret="
                     "\"old\"} 0\n"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_series_are_made_once),
        cmocka_unit_test(test_declared_series_start_at_zero),
        cmocka_unit_test(test_outcomes_sum_by_label),
        cmocka_unit_test(test_histogram_bounds),
        cmocka_unit_test(test_steps_and_batches),
        cmocka_unit_test(test_gauges_go_down),
        cmocka_unit_test(test_labels_are_escaped),
        cmocka_unit_test(test_unknown_platform),
        cmocka_unit_test(test_signatures),
        cmocka_unit_test(test_heads_come_once),
        cmocka_unit_test(test_process),
        cmocka_unit_test(test_scrape_while_counting),
        cmocka_unit_test(test_promtool),
        cmocka_unit_test(test_full_tables),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
