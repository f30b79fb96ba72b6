/* The thread behind worker.h: builds its parts, runs the edge, samples its own health and drains.
 */
/* SPDX-License-Identifier: Apache-2.0 */
#include "worker.h"

#include "admin.h"
#include "clock.h"
#include "config.h"
#include "delivery.h"
#include "delivery_answer.h"
#include "directory.h"
#include "edge.h"
#include "edge_tls.h"
#include "gather.h"
#include "json.h"
#include "limit.h"
#include "log.h"
#include "loop.h"
#include "platform.h"
#include "publisher.h"
#include "setup.h"
#include "sighting.h"
#include "thread.h"
#include "topic.h"
#include "witness.h"

#include <fcntl.h>
#include <stdatomic.h>

#define SAMPLE_EVERY_US 100000
#define DRAIN_CHECK_US 10000

struct worker {
    struct worker_options options;
    pthread_t thread;
    struct edge *edge;
    struct loop *loop;
    struct setup *setup; /* the present one */
    struct delivery_env env;
    struct publisher *publisher;
    struct gather *gather;
    struct loop_timer sample;
    struct loop_timer drain_check;
    struct loop_task open, drain;
    int64_t drain_limit_us, drain_until_us;
    _Atomic bool directory_loaded, store_ready, broker_up, ended;
    _Atomic int64_t turned_us;
    _Atomic uint64_t news_sent, news_taken;
};

/* What is new, on its way to the worker. */
struct news {
    struct loop_task task;
    struct worker *worker;
    struct setup *setup;
    struct directory *directory;
    struct ssl_ctx_st *tls;
};

static void on_done(struct delivery *d, void *context)
{
    struct exchange *x = context;
    if (d->outcome == OUTCOME_CHALLENGED)
        admin_note_challenge(d->platform);
    struct delivery_answer answer;
    delivery_answer(d, &answer);
    static const struct exchange_header allow[] = {{"allow", "POST"}};
    /* A challenge's echo is a text of the caller's choosing. */
    static const struct exchange_header nosniff[] = {{"x-content-type-options", "nosniff"}};
    bool refused = answer.status == 405, echo = strcmp(answer.content_type, "text/plain") == 0;
    exchange_answer(x, &(struct exchange_answer){
                           .status = answer.status,
                           .content_type = answer.content_type,
                           .body = {answer.body, answer.len},
                           .retry_after_s = answer.retry_after_s,
                           .headers = refused ? allow : nosniff,
                           .header_count = refused || echo ? 1 : 0,
                       });
}

static void on_webhook(struct exchange *x, const struct inbound *in, void *context)
{
    struct worker *worker = context;
    delivery_start(&worker->env, in, on_done, x);
}

static void on_http_refusal(const struct inbound *in, int status, const char *why, void *context)
{
    struct worker *worker = context;
    delivery_refused(&worker->env, in, status == 413 ? OUTCOME_BODY_TOO_LARGE : OUTCOME_BAD_REQUEST,
                     why);
}

static size_t bytes_held(void *context)
{
    const struct worker *worker = context;
    return worker->env.held_bytes;
}

static void record(struct delivery_env *env, struct delivery *d)
{
    gather_record(container_of(env, struct worker, env)->gather, d);
}

static void on_sample(struct loop_timer *timer)
{
    struct worker *worker = container_of(timer, struct worker, sample);
    int64_t now = clock_mono_us();
    atomic_store_explicit(&worker->directory_loaded, worker->env.directory != NULL,
                          memory_order_relaxed);
    atomic_store_explicit(&worker->store_ready, gather_is_ready(worker->gather),
                          memory_order_relaxed);
    atomic_store_explicit(&worker->broker_up, publisher_is_up(worker->publisher),
                          memory_order_relaxed);
    atomic_store_explicit(&worker->turned_us, now, memory_order_relaxed);
    sighting_book_turn(worker->env.sightings);
    loop_timer_set(worker->loop, &worker->sample, now + SAMPLE_EVERY_US);
}

struct worker_health worker_health(const struct worker *worker)
{
    return (struct worker_health){
        .directory_loaded = atomic_load_explicit(&worker->directory_loaded, memory_order_relaxed),
        .store_ready = atomic_load_explicit(&worker->store_ready, memory_order_relaxed),
        .broker_up = atomic_load_explicit(&worker->broker_up, memory_order_relaxed),
        .turned_us = atomic_load_explicit(&worker->turned_us, memory_order_relaxed),
    };
}

/* Takes over the reference. Deliveries without a directory end in the turn that they begin in, so
 * the old setup may go at once. */
static void use_setup(struct worker *worker, struct setup *setup)
{
    const struct config *config = setup->config;
    worker->env.platforms = setup->platforms;
    worker->env.base_url = config->public_url;
    worker->env.proxies = &config->listen.proxies;
    worker->env.failed_signatures = config->limits.failed_signatures;
    worker->env.headers_max = (size_t)config->listen.headers;
    setup_unref(worker->setup);
    worker->setup = setup;
}

static struct news *news_new(struct worker *worker, void (*run)(struct loop_task *))
{
    struct news *news = xcalloc(1, sizeof *news);
    news->task.run = run;
    news->worker = worker;
    atomic_fetch_add(&worker->news_sent, 1);
    return news;
}

static void news_free(struct news *news)
{
    atomic_fetch_add(&news->worker->news_taken, 1);
    free(news);
}

bool worker_has_taken(const struct worker *worker)
{
    return atomic_load(&worker->news_taken) == atomic_load(&worker->news_sent);
}

static void on_news(struct loop_task *task)
{
    struct news *news = container_of(task, struct news, task);
    struct worker *worker = news->worker;
    struct directory *old = worker->env.directory;
    worker->env.directory = news->directory;
    if (news->setup != worker->setup)
        use_setup(worker, news->setup);
    else
        setup_unref(news->setup);
    directory_unref(old);
    news_free(news);
}

void worker_take(struct worker *worker, struct setup *setup, struct directory *directory)
{
    struct news *news = news_new(worker, on_news);
    news->setup = setup_ref(setup);
    news->directory = directory ? directory_ref(directory) : NULL;
    loop_post(worker->loop, &news->task);
}

static void on_new_tls(struct loop_task *task)
{
    struct news *news = container_of(task, struct news, task);
    edge_take_tls(news->worker->edge, news->tls);
    news_free(news);
}

void worker_take_tls(struct worker *worker, struct ssl_ctx_st *tls)
{
    struct news *news = news_new(worker, on_new_tls);
    news->tls = edge_tls_ref(tls);
    loop_post(worker->loop, &news->task);
}

/* What others found out about a topic, on its way to the worker. */
struct topic_news {
    struct loop_task task;
    struct worker *worker;
    void (*take)(struct topic *topic, int32_t number);
    int32_t number;
    char name[];
};

static void on_topic_news(struct loop_task *task)
{
    struct topic_news *news = container_of(task, struct topic_news, task);
    news->take(publisher_topic(news->worker->publisher, news->name), news->number);
    free(news);
}

static void post_topic_news(struct worker *worker, const char *name, int32_t number,
                            void (*take)(struct topic *topic, int32_t number))
{
    struct topic_news *news = xcalloc(1, sizeof *news + strlen(name) + 1);
    news->task.run = on_topic_news;
    news->worker = worker;
    news->take = take;
    news->number = number;
    memcpy(news->name, name, strlen(name));
    loop_post(worker->loop, &news->task);
}

void worker_topic_checked(struct worker *worker, const char *topic, int32_t partitions)
{
    post_topic_news(worker, topic, partitions, topic_checked);
}

void worker_topic_heard(struct worker *worker, const char *topic, int32_t partition)
{
    post_topic_news(worker, topic, partition, topic_heard);
}

static bool is_drained(const struct worker *worker)
{
    return edge_exchanges(worker->edge) == 0 && gather_pending(worker->gather) == 0;
}

static void on_drain_check(struct loop_timer *timer)
{
    struct worker *worker = container_of(timer, struct worker, drain_check);
    int64_t now = clock_mono_us();
    bool drained = is_drained(worker);
    if (now >= worker->drain_until_us || (drained && edge_connections(worker->edge) == 0) ||
        (drained && now >= worker->drain_until_us - worker->drain_limit_us / 2))
        edge_stop(worker->edge);
    else
        loop_timer_set(worker->loop, timer, now + DRAIN_CHECK_US);
}

static void on_open(struct loop_task *task)
{
    edge_open(container_of(task, struct worker, open)->edge);
}

void worker_open(struct worker *worker)
{
    loop_post(worker->loop, &worker->open);
}

static void on_drain(struct loop_task *task)
{
    struct worker *worker = container_of(task, struct worker, drain);
    worker->drain_until_us = clock_mono_us() + worker->drain_limit_us;
    edge_drain(worker->edge);
    on_drain_check(&worker->drain_check);
}

void worker_drain(struct worker *worker, int64_t limit_us)
{
    worker->drain_limit_us = limit_us;
    loop_post(worker->loop, &worker->drain);
}

static void *run(void *argument)
{
    struct worker *worker = argument;
    edge_run(worker->edge);
    atomic_store(&worker->ended, true);
    return NULL;
}

static void listen_on(struct worker *worker, int fd, struct ssl_ctx_st *tls)
{
    if (fd < 0)
        return;
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    assert(own >= 0);
    edge_listen(worker->edge, own, tls);
}

struct worker *worker_start(const struct worker_options *options, char **ret_reason)
{
    const struct config *config = options->setup->config;
    struct worker *worker = xcalloc(1, sizeof *worker);
    worker->options = *options;
    struct metrics *metrics = metrics_shard_new();
    worker->edge = edge_new(&(struct edge_options){
        .handler = on_webhook,
        .context = worker,
        .refused = on_http_refusal,
        .body_max = (size_t)config->listen.body * 2,
        .request_us = config->listen.request_us,
        .connections = (size_t)config->listen.connections / options->threads + 1,
        .memory = (size_t)config->listen.memory / options->threads,
        .held = bytes_held,
        .begin_shut = true,
        .metrics = metrics,
    });
    worker->loop = edge_loop(worker->edge);
    worker->publisher = publisher_new(worker->loop, config, metrics, ret_reason);
    if (worker->publisher == NULL) {
        free(worker);
        return NULL;
    }
    worker->gather = gather_new(worker->loop, config, options->gate, worker->publisher,
                                options->parking, metrics);
    worker->env = (struct delivery_env){
        .json = json_reader_new((size_t)config->listen.body),
        .metrics = metrics,
        .buckets = options->buckets,
        .sightings = witness_book(options->witness, metrics),
        .body_max = (size_t)config->listen.body,
        .answer_us = config->deadlines.answer_us,
        .limit = limit_new(worker->loop, metrics),
        .record = record,
    };
    worker->env.admission = gather_admission(worker->gather);
    use_setup(worker, setup_ref(options->setup));
    worker->sample.on_due = on_sample;
    worker->drain_check.on_due = on_drain_check;
    worker->open.run = on_open;
    worker->drain.run = on_drain;
    on_sample(&worker->sample);
    listen_on(worker, options->https_fd, options->tls);
    listen_on(worker, options->plain_fd, NULL);

    if (thread_start(&worker->thread, run, worker) != 0)
        abort();
    return worker;
}

bool worker_has_ended(const struct worker *worker)
{
    return atomic_load(&worker->ended);
}

bool worker_join(struct worker *worker)
{
    pthread_join(worker->thread, NULL);
    bool drained = is_drained(worker); /* anew: the last turn may have brought something */
    if (drained) { /* else the process ends as it is, and Postgres rolls back what is open */
        gather_free(worker->gather);
        publisher_free(worker->publisher);
        directory_unref(worker->env.directory);
        setup_unref(worker->setup);
        json_reader_free(worker->env.json);
        limit_free(worker->env.limit);
    }
    /* The edge and its loop stay until the process ends: a thread that looks up a name may still
     * post to it. */
    return drained;
}
