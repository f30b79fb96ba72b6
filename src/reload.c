/* The thread behind reload.h. Called by serve, on SIGHUP and on POST /reload of the private
 * listener. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "reload.h"

#include "clock.h"
#include "edge_tls.h"
#include "loader.h"
#include "log.h"
#include "loop.h"
#include "metrics.h"
#include "platform.h"
#include "setup.h"
#include "thread.h"
#include "topics_ensure.h"
#include "worker.h"

#include <unistd.h>

#define SECOND INT64_C(1000000)
#define TOPICS_TIMEOUT_MS 3000
/* A loop turns many times a second; one that hangs for so long is told by /readyz. */
#define LOOPS_US (5 * SECOND)
#define LOOPS_CHECK_US 500

struct reload {
    struct reload_options options;
    pthread_t thread;
    struct metrics *metrics;
    pthread_mutex_t lock;
    pthread_cond_t wanted;
    struct setup *setup; /* the present one; its thread's alone */
    uint64_t requested, done;
    bool stopping;
};

/* On its way to the control loop. */
struct outcome_of_reload {
    struct loop_task task;
    struct reload *reload;
    struct setup *setup;
    struct reload_report report;
};

/* What is built beside the old one. */
struct next {
    struct setup *setup;
    struct ssl_ctx_st *tls;
};

/* ---- phase 1: build and check ---- */

static bool has_topic(const struct platforms *platforms, const char *topic)
{
    for (size_t i = 0; i < platforms_count(platforms); i++) {
        if (strcmp(platforms_at(platforms, i)->topic, topic) == 0)
            return true;
    }
    return false;
}

/* Those of new platforms alone: a reload that brings none needs no Kafka. The workers know of them
 * before they know of the platforms. */
static void ensure_topics(const struct reload *reload, const struct setup *next,
                          struct problems *problems)
{
    const struct setup *present = reload->setup;
    size_t count = platforms_count(next->platforms), wanted = 0;
    const char **names = xcalloc(count, sizeof *names);
    for (size_t i = 0; i < count; i++) {
        const char *topic = platforms_at(next->platforms, i)->topic;
        if (!has_topic(present->platforms, topic))
            names[wanted++] = topic;
    }
    struct problems warnings = {0}; /* the watch of the topics tells them */
    int32_t *partitions = xcalloc(count, sizeof *partitions);
    if (wanted > 0 &&
        topics_ensure(next->config, names, wanted, TOPICS_TIMEOUT_MS, partitions, problems,
                      &warnings) == TOPICS_UNREACHABLE &&
        !problems_any(problems))
        problem_add(problems, next->config->path, 0, 0,
                    "no Kafka broker answers at %s, so topic %s can't be checked; try again when "
                    "one does",
                    next->config->kafka.brokers, names[0]);
    for (size_t i = 0; i < wanted * reload->options.worker_count; i++)
        worker_topic_checked(reload->options.workers[i / wanted], names[i % wanted],
                             partitions[i % wanted]);
    problems_release(&warnings);
    free(partitions);
    free(names);
}

static void build(const struct reload *reload, struct next *next, struct reload_report *report)
{
    const struct setup *present = reload->setup;
    const struct config *start = reload->options.setup->config;
    next->setup = setup_read(start->path, &report->refused);
    if (next->setup == NULL)
        return;
    config_compare(next->setup->config, present->config, start, &report->changes);
    const struct config *config = next->setup->config;
    config_check_held(config, next->setup->platforms, &report->refused);
    /* A file that drops `https` may drop them too, although that needs a restart. */
    if (config->listen.https.text != NULL && config->listen.certificate != NULL &&
        config->listen.key != NULL)
        next->tls = edge_tls_new(config->listen.certificate, config->listen.key, &report->refused);
    if (!problems_any(&report->refused))
        ensure_topics(reload, next->setup, &report->refused);
}

/* ---- phase 2: hand over ---- */

static void wait_for_loops(const struct reload *reload)
{
    int64_t deadline = clock_mono_us() + LOOPS_US;
    for (size_t i = 0; i < reload->options.worker_count; i++) {
        const struct worker *worker = reload->options.workers[i];
        while (!worker_has_taken(worker) && !worker_has_ended(worker) && clock_mono_us() < deadline)
            usleep(LOOPS_CHECK_US);
    }
}

/* The directory is the last that can fail; it reaches the loops together with its setup. */
static bool hand_over(struct reload *reload, const struct next *next, struct problems *problems)
{
    const struct config *config = next->setup->config;
    char *reason = NULL;
    if (!loader_take(reload->options.loader, next->setup, &reason)) {
        problem_add(problems, NULL, 0, 0, "%s", reason);
        free(reason);
        return false;
    }
    for (size_t i = 0; next->tls != NULL && i < reload->options.worker_count; i++)
        worker_take_tls(reload->options.workers[i], next->tls);
    log_set_level((enum log_level)config->log_level);
    wait_for_loops(reload);
    return true;
}

/* ---- telling ---- */

/* Names that are in `a` and not in `b`, as ", x, y"; "" when there are none. */
static const char *list_others(const struct platforms *a, const struct platforms *b, char *text,
                               size_t size)
{
    size_t len = 0;
    text[0] = '\0';
    for (size_t i = 0; i < platforms_count(a) && len < size; i++) {
        const char *name = platforms_at(a, i)->name;
        if (platforms_find(b, slice_of(name)) == NULL)
            len += (size_t)snprintf(text + len, size - len, "%s %s", len > 0 ? "," : "", name);
    }
    return text;
}

static void tell_parts(const struct setup *next, const struct setup *present,
                       struct problems *parts)
{
    char added[1024], gone[1024];
    size_t secrets = 0;
    for (size_t i = 0; i < platforms_count(next->platforms); i++)
        secrets += platforms_at(next->platforms, i)->secrets.count;
    list_others(next->platforms, present->platforms, added, sizeof added);
    list_others(present->platforms, next->platforms, gone, sizeof gone);
    problem_add(parts, NULL, 0, 0, "%zu platforms%s%s%s%s, %zu application secrets",
                platforms_count(next->platforms), added[0] ? "; new:" : "", added,
                gone[0] ? "; gone:" : "", gone, secrets);
    if (next->config->listen.certificate != NULL)
        problem_add(parts, NULL, 0, 0, "certificate %s", next->config->listen.certificate);
}

static void log_lines(enum log_level level, const char *event, const struct problems *problems)
{
    for (size_t i = 0; i < problems->count; i++)
        log_event(level, event, "%s", problems->lines[i]);
    if (problems->dropped > 0)
        log_event(level, event, "and %zu more", problems->dropped);
}

static void tell(struct reload *reload, const struct reload_report *report)
{
    log_lines(LOG_ERROR, "reload_refused", &report->refused);
    metrics_set(reload->metrics, METRIC_RELOAD_SUCCESSFUL, report->taken);
    if (!report->taken) {
        metrics_add(reload->metrics, METRIC_RELOAD_FAILED, 1);
        return;
    }
    metrics_set(reload->metrics, METRIC_RELOAD_TIMESTAMP, clock_wall_us() / SECOND);
    log_lines(LOG_INFO, "reload_taken", &report->parts);
    log_lines(LOG_INFO, "reload_taken", &report->changes.taken);
    log_lines(LOG_WARNING, "reload_needs_restart", &report->changes.restart);
}

static void print_lines(FILE *out, const char *word, const struct problems *problems)
{
    for (size_t i = 0; i < problems->count; i++)
        fprintf(out, "%s: %s\n", word, problems->lines[i]);
    if (problems->dropped > 0)
        fprintf(out, "%s: and %zu more\n", word, problems->dropped);
}

void reload_print(const struct reload_report *report, FILE *out)
{
    if (!report->taken) {
        print_lines(out, "refused", &report->refused);
        fputs("nothing was changed\n", out);
        return;
    }
    print_lines(out, "taken", &report->parts);
    print_lines(out, "taken", &report->changes.taken);
    print_lines(out, "restart", &report->changes.restart);
}

static void on_outcome(struct loop_task *task)
{
    struct outcome_of_reload *outcome = container_of(task, struct outcome_of_reload, task);
    const struct reload_options *options = &outcome->reload->options;
    options->on_done(&outcome->report, outcome->setup, options->context);
    problems_release(&outcome->report.refused);
    problems_release(&outcome->report.parts);
    config_changes_release(&outcome->report.changes);
    setup_unref(outcome->setup);
    free(outcome);
}

/* ---- the thread ---- */

static void reload_once(struct reload *reload, uint64_t number)
{
    struct outcome_of_reload *outcome = xcalloc(1, sizeof *outcome);
    struct reload_report *report = &outcome->report;
    struct next next = {0};
    report->number = number;
    build(reload, &next, report);
    report->taken = !problems_any(&report->refused) && hand_over(reload, &next, &report->refused);
    if (report->taken) {
        tell_parts(next.setup, reload->setup, &report->parts);
        setup_unref(reload->setup);
        reload->setup = setup_ref(next.setup);
    }
    tell(reload, report);
    edge_tls_unref(next.tls);
    setup_unref(next.setup);
    outcome->task.run = on_outcome;
    outcome->reload = reload;
    outcome->setup = setup_ref(reload->setup);
    loop_post(reload->options.control, &outcome->task);
}

static void *run(void *argument)
{
    struct reload *reload = argument;
    pthread_mutex_lock(&reload->lock);
    while (!reload->stopping) {
        if (reload->done == reload->requested) {
            pthread_cond_wait(&reload->wanted, &reload->lock);
            continue;
        }
        uint64_t number = reload->requested;
        pthread_mutex_unlock(&reload->lock);
        reload_once(reload, number);
        pthread_mutex_lock(&reload->lock);
        reload->done = number;
    }
    pthread_mutex_unlock(&reload->lock);
    return NULL;
}

struct reload *reload_start(const struct reload_options *options)
{
    struct reload *reload = xcalloc(1, sizeof *reload);
    reload->options = *options;
    reload->setup = setup_ref(options->setup);
    reload->metrics = metrics_shard_new();
    metrics_set(reload->metrics, METRIC_RELOAD_SUCCESSFUL, 1);
    metrics_set(reload->metrics, METRIC_RELOAD_TIMESTAMP, clock_wall_us() / SECOND);
    pthread_mutex_init(&reload->lock, NULL);
    pthread_cond_init(&reload->wanted, NULL);
    if (thread_start(&reload->thread, run, reload) != 0)
        abort();
    return reload;
}

uint64_t reload_request(struct reload *reload)
{
    pthread_mutex_lock(&reload->lock);
    uint64_t number = ++reload->requested;
    pthread_cond_signal(&reload->wanted);
    pthread_mutex_unlock(&reload->lock);
    return number;
}

void reload_stop(struct reload *reload)
{
    pthread_mutex_lock(&reload->lock);
    reload->stopping = true;
    pthread_cond_signal(&reload->wanted);
    pthread_mutex_unlock(&reload->lock);
    pthread_join(reload->thread, NULL);
    setup_unref(reload->setup);
    pthread_cond_destroy(&reload->wanted);
    pthread_mutex_destroy(&reload->lock);
    free(reload);
}
