/* The thread behind topics_watch.h. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "topics_watch.h"

#include "clock.h"
#include "config.h"
#include "hash.h"
#include "log.h"
#include "platform.h"
#include "setup.h"
#include "thread.h"
#include "topics_ensure.h"

#include <stdatomic.h>

#define ANSWER_MS 3000
#define RETRY_S 1
#define EVERY_S 60
#define TOLD_UNREACHABLE 1
#define TOLD_REFUSED 2

struct topics_watch {
    struct topics_watch_options options;
    pthread_t thread;
    _Atomic enum topics_state state;
    uint64_t told; /* hash of the complaints that were told last, or TOLD_… */

    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t changed;
    struct setup *setup;
    bool stop, news;
};

static uint64_t hash_lines(uint64_t hash, const struct problems *problems)
{
    for (size_t i = 0; i < problems->count; i++)
        hash = hash_text(hash, problems->lines[i]);
    return hash;
}

/* The same complaints are told once. */
static void tell(struct topics_watch *watch, const struct problems *problems,
                 const struct problems *warnings)
{
    uint64_t hash = hash_lines(hash_lines(HASH_BASIS, problems), warnings);
    if (hash == watch->told)
        return;
    watch->told = hash;
    for (size_t i = 0; i < problems->count; i++)
        log_event(LOG_ERROR, "topic_refused", "%s", problems->lines[i]);
    for (size_t i = 0; i < warnings->count; i++)
        log_event(LOG_WARNING, "topic_weak", "%s", warnings->lines[i]);
}

/* The words of a refusal differ each time: by the milliseconds that it took. */
static void tell_unreachable(struct topics_watch *watch, const struct config *config,
                             const struct problems *problems)
{
    uint64_t now = problems_any(problems) ? TOLD_REFUSED : TOLD_UNREACHABLE;
    if (watch->told == now)
        return;
    watch->told = now;
    if (problems_any(problems))
        log_event(LOG_ERROR, "broker_refuses", "%s", problems->lines[0]);
    else
        log_event(LOG_WARNING, "broker_unreachable", "no Kafka broker answers at %s",
                  config->kafka.brokers);
}

static void check(struct topics_watch *watch, const struct setup *setup)
{
    struct problems problems = {0}, warnings = {0};
    size_t count = platforms_count(setup->platforms);
    const char **names = xcalloc(count + 2, sizeof *names);
    for (size_t i = 0; i < count; i++)
        names[i] = platforms_at(setup->platforms, i)->topic;
    names[count++] = setup->config->hold.topic;
    names[count++] = setup->config->hold.markers;
    int32_t *partitions = xcalloc(count, sizeof *partitions);
    enum topics_result result =
        topics_ensure(setup->config, names, count, ANSWER_MS, partitions, &problems, &warnings);
    if (result == TOPICS_UNREACHABLE) {
        tell_unreachable(watch, setup->config, &problems);
        if (atomic_load(&watch->state) == TOPICS_UNASKED)
            atomic_store(&watch->state, TOPICS_UNKNOWN);
    } else {
        tell(watch, &problems, &warnings);
        atomic_store(&watch->state, result == TOPICS_READY ? TOPICS_GOOD : TOPICS_REFUSED);
        for (size_t i = 0; i < count; i++)
            watch->options.on_checked(names[i], partitions[i], watch->options.context);
        watch->options.on_all_checked(watch->options.context);
    }
    free(names);
    free(partitions);
    problems_release(&problems);
    problems_release(&warnings);
}

/* With the lock held. */
static void wait_for_next(struct topics_watch *watch, bool good)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += good ? EVERY_S : RETRY_S;
    while (!watch->stop && !watch->news &&
           pthread_cond_timedwait(&watch->changed, &watch->lock, &until) == 0) {
    }
    watch->news = false;
}

static void *run(void *argument)
{
    struct topics_watch *watch = argument;
    pthread_mutex_lock(&watch->lock);
    while (!watch->stop) {
        struct setup *setup = setup_ref(watch->setup);
        pthread_mutex_unlock(&watch->lock);
        check(watch, setup);
        setup_unref(setup);
        pthread_mutex_lock(&watch->lock);
        wait_for_next(watch,
                      atomic_load(&watch->state) == TOPICS_GOOD && watch->told > TOLD_REFUSED);
    }
    pthread_mutex_unlock(&watch->lock);
    return NULL;
}

struct topics_watch *topics_watch_start(const struct topics_watch_options *options)
{
    struct topics_watch *watch = xcalloc(1, sizeof *watch);
    watch->options = *options;
    watch->setup = setup_ref(options->setup);
    pthread_mutex_init(&watch->lock, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&watch->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    if (thread_start(&watch->thread, run, watch) != 0)
        abort();
    return watch;
}

void topics_watch_stop(struct topics_watch *watch)
{
    pthread_mutex_lock(&watch->lock);
    watch->stop = true;
    pthread_cond_signal(&watch->changed);
    pthread_mutex_unlock(&watch->lock);
    pthread_join(watch->thread, NULL);
    setup_unref(watch->setup);
    pthread_mutex_destroy(&watch->lock);
    pthread_cond_destroy(&watch->changed);
    free(watch);
}

void topics_watch_take(struct topics_watch *watch, struct setup *setup)
{
    pthread_mutex_lock(&watch->lock);
    struct setup *old = watch->setup;
    if (setup != old) {
        watch->setup = setup_ref(setup);
        watch->news = true;
        pthread_cond_signal(&watch->changed);
    }
    pthread_mutex_unlock(&watch->lock);
    if (setup != old)
        setup_unref(old);
}

void topics_watch_wake(struct topics_watch *watch)
{
    pthread_mutex_lock(&watch->lock);
    watch->news = true;
    pthread_cond_signal(&watch->changed);
    pthread_mutex_unlock(&watch->lock);
}

enum topics_state topics_watch_state(const struct topics_watch *watch)
{
    return atomic_load(&watch->state);
}
