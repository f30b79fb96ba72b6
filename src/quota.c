/* The registry of quotas and their fast side. Taking is lock-free; the mutex guards the registry's
 * table, which loading the directory and the lease thread use. Asks go through a stack that any
 * thread pushes to and the lease thread takes whole. Thread: see quota.h. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "quota.h"

#include "hash.h"

#include <pthread.h>
#include <string.h>

#define BUCKETS_MIN 256

static struct {
    pthread_mutex_t mutex;
    struct quota **buckets; /* a power of two of them */
    size_t bucket_count, count;
    struct list listeners;

    _Atomic(struct quota *) asked;
    _Atomic int64_t instances;
    void (*_Atomic wake)(void *, bool);
    void *_Atomic wake_context;
} all = {
    .mutex = PTHREAD_MUTEX_INITIALIZER,
    .listeners = {&all.listeners, &all.listeners},
    /* Until Postgres was heard: nobody spends more than a credit on his own. */
    .instances = 100,
};

static uint64_t hash_of(const char *workspace, const char *platform)
{
    uint64_t hash = hash_text(hash_text(HASH_BASIS, workspace), "/");
    hash = hash_text(hash, platform);
    return hash ^ (hash >> 32);
}

/* The tighter of both windows, in so many hundredths. */
static int64_t hundredths(const struct quota *quota, int64_t parts)
{
    int64_t minute = atomic_load_explicit(&quota->limit_minute, memory_order_relaxed);
    int64_t hour = atomic_load_explicit(&quota->limit_hour, memory_order_relaxed);
    int64_t limit = minute == 0 || (hour != 0 && hour < minute) ? hour : minute;
    int64_t part = limit * parts / 100;
    return part > 0 ? part : 1;
}

int64_t quota_credit(const struct quota *quota)
{
    return hundredths(quota, 1);
}

int64_t quota_chunk(const struct quota *quota)
{
    return hundredths(quota, 3);
}

static struct quota *quota_new(const char *workspace, const char *platform, uint64_t hash,
                               struct quota_limits limits)
{
    struct quota *quota = xcalloc(1, sizeof *quota);
    quota->magic = QUOTA_MAGIC;
    quota->workspace = xstrdup(workspace);
    quota->platform = xstrdup(platform);
    quota->hash = hash;
    list_init(&quota->node);
    atomic_init(&quota->limit_minute, limits.minute);
    atomic_init(&quota->limit_hour, limits.hour);
    quota->credit = quota->handed = quota_credit(quota);
    atomic_init(&quota->tokens, quota->credit);
    atomic_init(&quota->low, quota->credit - 1); /* the first one taken is told */
    atomic_init(&quota->floor, -(hundredths(quota, 50) / quotas_instances()));
    return quota;
}

/* With the mutex held. */
static void grow(void)
{
    size_t old_count = all.bucket_count;
    struct quota **old = all.buckets;
    all.bucket_count = old_count ? old_count * 2 : BUCKETS_MIN;
    all.buckets = xcalloc(all.bucket_count, sizeof(struct quota *));
    for (size_t i = 0; i < old_count; i++) {
        for (struct quota *quota = old[i], *next; quota != NULL; quota = next) {
            struct quota **bucket = &all.buckets[quota->hash & (all.bucket_count - 1)];
            next = quota->next;
            quota->next = *bucket;
            *bucket = quota;
        }
    }
    free(old);
}

static void quota_ref(struct quota *quota)
{
    CHECK_OBJ(quota, QUOTA_MAGIC);
    atomic_fetch_add_explicit(&quota->references, 1, memory_order_relaxed);
}

struct quota *quota_get(const char *workspace, const char *platform, struct quota_limits limits)
{
    if (limits.minute == 0 && limits.hour == 0)
        return NULL;
    uint64_t hash = hash_of(workspace, platform);
    pthread_mutex_lock(&all.mutex);
    if (all.count >= all.bucket_count)
        grow();
    struct quota **bucket = &all.buckets[hash & (all.bucket_count - 1)], *quota = *bucket;
    while (quota != NULL && (quota->hash != hash || strcmp(quota->workspace, workspace) != 0 ||
                             strcmp(quota->platform, platform) != 0))
        quota = quota->next;
    if (quota == NULL) {
        quota = quota_new(workspace, platform, hash, limits);
        quota->next = *bucket;
        *bucket = quota;
        all.count++;
    }
    atomic_store_explicit(&quota->limit_minute, limits.minute, memory_order_relaxed);
    atomic_store_explicit(&quota->limit_hour, limits.hour, memory_order_relaxed);
    quota_ref(quota);
    pthread_mutex_unlock(&all.mutex);
    return quota;
}

struct quota *quota_unref(struct quota *quota)
{
    if (quota == NULL)
        return NULL;
    CHECK_OBJ(quota, QUOTA_MAGIC);
    /* Under the mutex, or quota_get() could find one that is about to go. */
    pthread_mutex_lock(&all.mutex);
    bool last = atomic_fetch_sub_explicit(&quota->references, 1, memory_order_acq_rel) == 1;
    if (last) {
        struct quota **link = &all.buckets[quota->hash & (all.bucket_count - 1)];
        while (*link != quota)
            link = &(*link)->next;
        *link = quota->next;
        all.count--;
    }
    pthread_mutex_unlock(&all.mutex);
    if (last) {
        free(quota->workspace);
        free(quota->platform);
        quota->magic = 0;
        free(quota);
    }
    return NULL;
}

/* ---- taking ---- */

static bool take_above(struct quota *quota, int64_t least, int64_t *ret_left)
{
    int64_t tokens = atomic_load_explicit(&quota->tokens, memory_order_relaxed);
    while (tokens > least) {
        /* In one order with `asked`: an ask that comes too late for a look sees it done. */
        if (atomic_compare_exchange_weak(&quota->tokens, &tokens, tokens - 1)) {
            *ret_left = tokens - 1;
            return true;
        }
    }
    return false;
}

enum quota_verdict quota_take(struct quota *quota, int64_t now_us, int64_t *ret_wait_us)
{
    CHECK_OBJ(quota, QUOTA_MAGIC);
    int64_t left;
    if (take_above(quota, 0, &left)) {
        if (left <= atomic_load_explicit(&quota->low, memory_order_relaxed))
            quota_ask(quota);
        return QUOTA_TAKEN;
    }
    int64_t free_us = atomic_load_explicit(&quota->free_us, memory_order_relaxed);
    if (now_us >= free_us)
        return QUOTA_UNKNOWN;
    if (now_us >= atomic_load_explicit(&quota->recheck_us, memory_order_relaxed))
        quota_ask(quota);
    *ret_wait_us = free_us - now_us;
    return QUOTA_EXHAUSTED;
}

bool quota_overdraw(struct quota *quota)
{
    CHECK_OBJ(quota, QUOTA_MAGIC);
    int64_t left, floor = atomic_load_explicit(&quota->floor, memory_order_relaxed);
    bool taken = take_above(quota, floor, &left);
    quota_ask(quota);
    return taken;
}

void quota_ask(struct quota *quota)
{
    bool urgent = atomic_load(&quota->waiting) > 0;
    bool pushed = !atomic_load(&quota->asked) && !atomic_exchange(&quota->asked, true);
    if (pushed) {
        quota->next_asked = atomic_load(&all.asked);
        quota_ref(quota);
        while (!atomic_compare_exchange_weak(&all.asked, &quota->next_asked, quota))
            ;
    }
    void (*wake)(void *, bool) = pushed || urgent ? atomic_load(&all.wake) : NULL;
    if (wake != NULL)
        wake(atomic_load(&all.wake_context), urgent);
}

/* ---- the lease thread's side ---- */

void quotas_serve(void (*wake)(void *context, bool urgent), void *context)
{
    atomic_store(&all.wake, NULL);
    atomic_store(&all.wake_context, context);
    atomic_store(&all.wake, wake);
}

struct quota *quotas_asked(void)
{
    return atomic_exchange(&all.asked, NULL);
}

void quotas_set_instances(int64_t instances)
{
    atomic_store_explicit(&all.instances, instances < 1 ? 1 : instances, memory_order_relaxed);
}

int64_t quotas_instances(void)
{
    return atomic_load_explicit(&all.instances, memory_order_relaxed);
}

void quotas_listen(struct quota_listener *listener)
{
    pthread_mutex_lock(&all.mutex);
    list_init(&listener->node);
    list_append(&all.listeners, &listener->node);
    pthread_mutex_unlock(&all.mutex);
}

void quotas_unlisten(struct quota_listener *listener)
{
    pthread_mutex_lock(&all.mutex);
    list_remove(&listener->node);
    pthread_mutex_unlock(&all.mutex);
}

void quotas_answered(void)
{
    pthread_mutex_lock(&all.mutex);
    list_each(node, &all.listeners)
    {
        struct quota_listener *listener = container_of(node, struct quota_listener, node);
        listener->on_answer(listener);
    }
    pthread_mutex_unlock(&all.mutex);
}
