/* `hookgate serve`: starts the parts, answers the private listener and the signals on the control
 * thread, and stops everything in order: readyz says no, the drain delay passes, listeners close,
 * what is under way is answered. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "activation.h"
#include "admin.h"
#include "bucket.h"
#include "clock.h"
#include "command.h"
#include "config.h"
#include "drain.h"
#include "edge.h"
#include "edge_tls.h"
#include "gate.h"
#include "harden.h"
#include "heap.h"
#include "lease.h"
#include "listen.h"
#include "loader.h"
#include "log.h"
#include "loop.h"
#include "metrics.h"
#include "options.h"
#include "parking.h"
#include "platform.h"
#include "reload.h"
#include "setup.h"
#include "topics_watch.h"
#include "unhold.h"
#include "witness.h"
#include "worker.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

/* Descriptors that are not webhook connections: servers, files, the private listener. */
#define RESERVED_FDS 200
/* And of each event loop: two producers, while one replaces the other, and its lanes. */
#define LOOP_FDS 40
#define STALLED_US 5000000
#define STOP_CHECK_US 10000
#define OPEN_CHECK_US 10000
/* Zoom hangs up after 3 s. */
#define OPEN_PATIENCE_US 2000000
#define WAITERS_MAX 16

/* Who asked for a reload on the private listener. */
struct waiter {
    struct exchange *x;
    uint64_t number;
};

struct service {
    struct setup *setup; /* of the start: its configuration is used by what needs a restart */
    struct setup *shown; /* the present one, on the control loop */
    struct reload *reload;
    struct waiter waiters[WAITERS_MAX];
    size_t waiter_count;
    uint64_t reload_number; /* of the last one that was begun */
    struct ssl_ctx_st *tls;
    int https_fd, plain_fd, admin_fd;
    struct worker *workers[CONFIG_THREADS_MAX];
    size_t worker_count;
    struct loader *loader;
    struct witness *witness;
    struct lease *lease;
    struct gate *gate;
    struct unhold *unhold;
    struct edge *control;
    struct admin admin;
    struct loop_watch signals;
    struct loop_timer stop_timer;
    struct loop_timer watchdog; /* the service manager's */
    struct loop_timer open_timer;
    int64_t started_us;
    bool stopping, draining_workers;
    struct parking *parking;
    struct drain *drain;
    struct topics_watch *topics;
    _Atomic bool draining;
};

/* ---- readiness ---- */

static size_t not_ready(void *context, const char **ret_reasons, size_t max)
{
    struct service *service = context;
    bool directory = true, store = true, broker = true, turning = true;
    int64_t now = clock_mono_us();
    for (size_t i = 0; i < service->worker_count; i++) {
        struct worker_health health = worker_health(service->workers[i]);
        directory &= health.directory_loaded;
        store &= health.store_ready;
        broker &= health.broker_up;
        turning &= now - health.turned_us < STALLED_US;
    }
    enum topics_state topics = topics_watch_state(service->topics);
    bool parks = parking_admits(service->parking);
    bool caught_up = gate_was_open(service->gate), holds = caught_up && broker;
    const struct {
        bool wrong;
        const char *reason;
    } checks[] = {
        {atomic_load(&service->draining), "draining"},
        {!turning, "an event loop is stalled"},
        {!directory, "directory: not loaded yet"},
        {!caught_up, "postgres: not caught up yet with what is held in Kafka"},
        /* While events can be held, this instance serves without Postgres. */
        {!store && !holds, "postgres: no connection, or it does not commit"},
        {topics == TOPICS_REFUSED, "kafka: a topic is missing or not durable; the log tells which"},
        /* As long as Kafka's part can be parked, this instance serves. */
        {topics == TOPICS_UNASKED || (topics == TOPICS_UNKNOWN && !parks),
         "kafka: topics not checked yet"},
        {!broker && !parks, "kafka: no broker answers, and the outbox is full or too old"},
    };
    size_t count = 0;
    for (size_t i = 0; i < sizeof checks / sizeof *checks && count < max; i++) {
        if (checks[i].wrong)
            ret_reasons[count++] = checks[i].reason;
    }
    return count;
}

/* ---- directory and topics ---- */

static void on_loaded(struct setup *setup, struct directory *directory, void *context)
{
    struct service *service = context;
    topics_watch_take(service->topics, setup);
    for (size_t i = 0; i < service->worker_count; i++)
        worker_take(service->workers[i], setup, directory);
}

static void on_topic_checked(const char *name, int32_t partitions, void *context)
{
    struct service *service = context;
    for (size_t i = 0; i < service->worker_count; i++)
        worker_topic_checked(service->workers[i], name, partitions);
    drain_topic_checked(service->drain, name, partitions);
}

static void on_all_topics_checked(void *context)
{
    struct service *service = context;
    drain_topics_named(service->drain);
}

static void on_topic_heard(const char *name, int32_t partition, void *context)
{
    struct service *service = context;
    for (size_t i = 0; i < service->worker_count; i++)
        worker_topic_heard(service->workers[i], name, partition);
}

/* Whoever holds events may try Kafka again. */
static void on_kafka_answers(void *context)
{
    struct service *service = context;
    on_topic_heard(service->setup->config->hold.topic, -1, service);
    on_topic_heard(service->setup->config->hold.markers, -1, service);
}

/* The watch makes it anew where it may. */
static void on_topic_missing(void *context)
{
    const struct service *service = context;
    topics_watch_wake(service->topics);
}

static bool start_unholding(struct service *service)
{
    char *reason = NULL;
    service->unhold = unhold_start(&(struct unhold_options){.config = service->setup->config,
                                                            .gate = service->gate,
                                                            .on_kafka = on_kafka_answers,
                                                            .on_missing = on_topic_missing,
                                                            .context = service},
                                   &reason);
    if (service->unhold == NULL)
        fprintf(stderr, "%s: kafka: %s\n", service->setup->config->path, reason);
    free(reason);
    return service->unhold != NULL;
}

static void start_topics(struct service *service)
{
    const struct config *config = service->setup->config;
    service->drain = drain_start(&(struct drain_options){.config = config,
                                                         .parking = service->parking,
                                                         .on_heard = on_topic_heard,
                                                         .context = service});
    service->topics = topics_watch_start(&(struct topics_watch_options){
        .setup = service->setup,
        .on_checked = on_topic_checked,
        .on_all_checked = on_all_topics_checked,
        .context = service,
    });
}

/* ---- the service manager ---- */

/* Twice per period, and only while every loop turns: a stalled one is what it watches for. */
static void on_watchdog(struct loop_timer *timer)
{
    struct service *service = container_of(timer, struct service, watchdog);
    int64_t now = clock_mono_us();
    bool turning = true;
    for (size_t i = 0; i < service->worker_count; i++)
        turning &= worker_has_ended(service->workers[i]) ||
                   now - worker_health(service->workers[i]).turned_us < STALLED_US;
    if (turning)
        activation_notify("WATCHDOG=1");
    loop_timer_set(edge_loop(service->control), timer, now + activation_watchdog_us() / 2);
}

/* A program that has just started refuses what it could take a moment later: who connects waits in
 * the kernel's queue until all is ready, or until waiting is worse than an honest 503. */
static void on_open_timer(struct loop_timer *timer)
{
    struct service *service = container_of(timer, struct service, open_timer);
    const char *reasons[1];
    int64_t now = clock_mono_us();
    if (service->stopping)
        return;
    if (not_ready(service, reasons, 1) > 0 && now < service->started_us + OPEN_PATIENCE_US) {
        loop_timer_set(edge_loop(service->control), timer, now + OPEN_CHECK_US);
        return;
    }
    for (size_t i = 0; i < service->worker_count; i++)
        worker_open(service->workers[i]);
    activation_notify("READY=1");
}

static void open_when_ready(struct service *service)
{
    service->started_us = clock_mono_us();
    service->open_timer.on_due = on_open_timer;
    on_open_timer(&service->open_timer);
    service->watchdog.on_due = on_watchdog;
    if (activation_watchdog_us() > 0)
        on_watchdog(&service->watchdog);
}

/* ---- reload ---- */

/* With a charset it would pass for one of libh2o's own errors, which the edge replaces. */
static void answer_text(struct exchange *x, int status, struct slice text)
{
    exchange_answer(
        x, &(struct exchange_answer){.status = status, .content_type = "text/plain", .body = text});
}

/* systemd's Type=notify-reload waits from the first word to READY=1. */
static uint64_t begin_reload(struct service *service)
{
    char text[64];
    snprintf(text, sizeof text, "RELOADING=1\nMONOTONIC_USEC=%lld", (long long)clock_mono_us());
    activation_notify(text);
    service->reload_number = reload_request(service->reload);
    return service->reload_number;
}

static void on_reload_wanted(void *context, struct exchange *x)
{
    struct service *service = context;
    if (service->stopping)
        answer_text(x, 503, SLICE_LITERAL("refused: the gateway is stopping\n"));
    else if (service->waiter_count == WAITERS_MAX)
        answer_text(x, 503, SLICE_LITERAL("refused: too many wait for a reload already\n"));
    else
        service->waiters[service->waiter_count++] = (struct waiter){x, begin_reload(service)};
}

static void show(struct service *service, struct setup *setup)
{
    setup_ref(setup);
    setup_unref(service->shown);
    service->shown = setup;
    service->admin.platforms = setup->platforms;
    service->admin.public_url = setup->config->public_url;
}

static void on_reload_done(const struct reload_report *report, struct setup *setup, void *context)
{
    struct service *service = context;
    show(service, setup);
    char *text = NULL;
    size_t len = 0, left = 0;
    FILE *out = open_memstream(&text, &len);
    if (out == NULL)
        abort(); /* no memory */
    reload_print(report, out);
    fclose(out);
    for (size_t i = 0; i < service->waiter_count; i++) {
        if (service->waiters[i].number > report->number)
            service->waiters[left++] = service->waiters[i];
        else
            answer_text(service->waiters[i].x, report->taken ? 200 : 409,
                        (struct slice){text, len});
    }
    service->waiter_count = left;
    free(text);
    if (report->number == service->reload_number && !service->stopping)
        activation_notify("READY=1");
}

/* ---- stopping ---- */

/* First the drain delay, then the workers' end; the private listener answers until all have ended.
 */
static void on_stop_timer(struct loop_timer *timer)
{
    struct service *service = container_of(timer, struct service, stop_timer);
    bool ended = true;
    for (size_t i = 0; i < service->worker_count; i++) {
        if (!service->draining_workers)
            worker_drain(service->workers[i], service->shown->config->deadlines.stop_us);
        ended &= worker_has_ended(service->workers[i]);
    }
    service->draining_workers = true;
    if (ended && witness_is_finished(service->witness))
        edge_stop(service->control);
    else
        loop_timer_set(edge_loop(service->control), timer, clock_mono_us() + STOP_CHECK_US);
}

static void on_signal(struct loop_watch *watch, unsigned events)
{
    (void)events;
    struct service *service = container_of(watch, struct service, signals);
    struct signalfd_siginfo info;
    if (read(watch->fd, &info, sizeof info) != sizeof info)
        return;
    if (info.ssi_signo == SIGHUP) {
        if (!service->stopping)
            begin_reload(service);
        return;
    }
    if (service->stopping) {
        log_event(LOG_WARNING, "stop_now", "a second signal: exiting without waiting");
        log_stop();
        _exit(1);
    }
    service->stopping = true;
    atomic_store(&service->draining, true);
    activation_notify("STOPPING=1");
    log_event(LOG_INFO, "stopping", "readyz says no; listeners close after the drain delay");
    loop_timer_set(edge_loop(service->control), &service->stop_timer,
                   clock_mono_us() + service->shown->config->deadlines.drain_delay_us);
}

static void block_signals(struct service *service)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGPIPE); /* blocked for good: writes tell */
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    sigdelset(&set, SIGPIPE);
    service->signals.on_ready = on_signal;
    loop_watch(edge_loop(service->control), &service->signals,
               signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC), LOOP_READ);
    service->stop_timer.on_due = on_stop_timer;
}

/* ---- starting ---- */

/* The connection cap must lie below the descriptors that we may open, or accept() would fail
 * instead of pausing. */
static void check_descriptors(const struct config *config, struct problems *problems)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    int64_t needed = config->listen.connections + RESERVED_FDS + config_threads(config) * LOOP_FDS;
    if (limit.rlim_cur != RLIM_INFINITY && (int64_t)limit.rlim_cur < needed)
        yaml_problem(config_place(config, "listen", "connections"), problems,
                     "%lld connections need %lld file descriptors, but only "
                     "%llu are allowed; raise "
                     "LimitNOFILE (ulimit -n) or lower it",
                     (long long)config->listen.connections, (long long)needed,
                     (unsigned long long)limit.rlim_cur);
}

static void open_listeners(struct service *service, struct problems *problems)
{
    const struct config *config = service->setup->config;
    service->https_fd = service->plain_fd = service->admin_fd = -1;
    if (config->listen.https.text) {
        service->tls = edge_tls_new(config->listen.certificate, config->listen.key, problems);
        service->https_fd =
            listen_open(config->listen.https.text, config->listen.backlog, problems);
    }
    if (config->listen.plain.text)
        service->plain_fd =
            listen_open(config->listen.plain.text, config->listen.backlog, problems);
    if (config->listen.admin.text)
        service->admin_fd = listen_open(config->listen.admin.text, 64, problems);
    activation_finish(problems);
}

static void prepare(struct service *service, const char *path, struct problems *problems)
{
    service->setup = setup_read(path, problems);
    if (service->setup == NULL)
        return;
    harden_check_user(service->setup->config->allow_root, path, problems);
    check_descriptors(service->setup->config, problems);
    if (!problems_any(problems))
        open_listeners(service, problems);
}

static void close_listener(int fd)
{
    if (fd >= 0)
        close(fd);
}

static bool start_workers(struct service *service)
{
    int64_t threads = config_threads(service->setup->config);
    const struct worker_options options = {
        .setup = service->setup,
        .gate = service->gate,
        .witness = service->witness,
        .buckets = buckets_new(), /* for good: a worker that is stuck may hold it */
        .parking = service->parking,
        .tls = service->tls,
        .https_fd = service->https_fd,
        .plain_fd = service->plain_fd,
        .threads = (size_t)threads,
    };
    for (int64_t i = 0; i < threads; i++) {
        char *reason = NULL;
        struct worker *worker = worker_start(&options, &reason);
        if (worker == NULL) {
            fprintf(stderr, "%s: kafka: %s\n", service->setup->config->path, reason);
            free(reason);
            return false;
        }
        service->workers[service->worker_count++] = worker;
    }
    /* The workers have duplicates: with these open the kernel would go on accepting after the
     * drain, for nobody. */
    close_listener(service->https_fd);
    close_listener(service->plain_fd);
    /* So have they references to this: the first key goes when a reload brings another. */
    edge_tls_unref(service->tls);
    service->tls = NULL;
    return true;
}

static void start_control(struct service *service)
{
    service->admin =
        (struct admin){.not_ready = not_ready, .reload = on_reload_wanted, .context = service};
    show(service, service->setup);
    struct metrics *metrics = metrics_shard_new();
    service->control = edge_new(&(struct edge_options){.handler = admin_handle,
                                                       .context = &service->admin,
                                                       .body_max = 4096,
                                                       .request_us = 10000000,
                                                       .connections = 64,
                                                       .memory = (size_t)16 << 20,
                                                       .metrics = metrics});
    service->witness = witness_new(edge_loop(service->control), service->setup->config, metrics);
    if (service->admin_fd >= 0)
        edge_listen(service->control, service->admin_fd, NULL);
    block_signals(service);
}

static int serve(const char *path)
{
    static struct service the_service; /* lives as long as the process */
    struct service *service = &the_service;
    struct problems problems = {0};
    harden_process();
    heap_setup();
    activation_begin();
    prepare(service, path, &problems);
    bool wrong = problems_any(&problems);
    problems_print(&problems);
    problems_release(&problems);
    if (wrong)
        return 2;
    log_set_level((enum log_level)service->setup->config->log_level);
    log_start();
    start_control(service); /* first: every later thread inherits the blocked signals */
    heap_watch(edge_loop(service->control));
    service->parking = parking_new(service->setup->config);
    service->gate = gate_new();
    if (!start_workers(service))
        return 2;
    start_topics(service);
    if (!start_unholding(service))
        return 2;
    service->lease = lease_start(service->setup->config);
    service->loader = loader_start(service->setup, on_loaded, service);
    service->reload = reload_start(&(struct reload_options){.setup = service->setup,
                                                            .loader = service->loader,
                                                            .workers = service->workers,
                                                            .worker_count = service->worker_count,
                                                            .control = edge_loop(service->control),
                                                            .on_done = on_reload_done,
                                                            .context = service});
    log_event(LOG_INFO, "started", "hookgate " HOOKGATE_VERSION " with %zu event loops",
              service->worker_count);
    open_when_ready(service);

    edge_run(service->control);

    reload_stop(service->reload);
    loader_stop(service->loader);
    unhold_stop(service->unhold);
    topics_watch_stop(service->topics);
    drain_stop(service->drain);
    bool drained = true;
    for (size_t i = 0; i < service->worker_count; i++)
        drained &= worker_join(service->workers[i]);
    witness_free(service->witness);
    lease_stop(service->lease); /* nobody takes tokens any more */
    log_event(drained ? LOG_INFO : LOG_ERROR, "stopped",
              drained ? "everything was answered"
                      : "the limit passed before everything was answered");
    log_stop();
    return drained ? 0 : 1;
}

static int usage(FILE *out, int status)
{
    fputs("usage: hookgate serve [--config FILE]\n\n"
          "Receives webhooks until SIGTERM; a second SIGTERM exits at once. SIGHUP takes the "
          "configuration\nanew, as hookgate reload does. The configuration is "
          "conf/hookgate.yaml of the working directory,\nelse /etc/hookgate/hookgate.yaml.\n",
          out);
    return status;
}

int command_serve(int argc, char **argv)
{
    const char *path = NULL;
    const struct command_option known[] = {{"config", .value = &path}, {0}};
    int status = options_read(argc, argv, known, usage, NULL);
    return status >= 0 ? status : serve(path ? path : config_default_path());
}
