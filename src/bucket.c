/* The table behind bucket.h: sets of eight entries, picked by a seeded hash, so that nobody can
 * choose whom his addresses push out. An entry counts by the minute; what is left of the minute
 * before is taken by its share of the window, as if its failures had been spread evenly. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "bucket.h"

#include <pthread.h>
#include <sys/random.h>

#define MINUTE_US INT64_C(60000000)
#define SETS_BITS 10
#define SETS (1 << SETS_BITS)
#define WAYS 8

struct entry {
    struct address source;
    int64_t minute; /* of `count` */
    int64_t count, before;
    int64_t told_us; /* when it was last over its limit for the first time; 0 = never */
};

struct buckets {
    pthread_mutex_t mutex;
    uint64_t seed;
    struct entry entries[SETS][WAYS];
};

struct buckets *buckets_new(void)
{
    struct buckets *buckets = xcalloc(1, sizeof *buckets);
    pthread_mutex_init(&buckets->mutex, NULL);
    /* Without entropy the seed stays 0: it can be guessed, and is still right. */
    if (getrandom(&buckets->seed, sizeof buckets->seed, GRND_NONBLOCK) < 0)
        buckets->seed = 0;
    return buckets;
}

void buckets_free(struct buckets *buckets)
{
    if (buckets == NULL)
        return;
    pthread_mutex_destroy(&buckets->mutex);
    free(buckets);
}

static struct entry *set_of(struct buckets *buckets, const struct address *source)
{
    uint64_t half[2], hash = buckets->seed;
    memcpy(half, source->bytes, sizeof half);
    for (int i = 0; i < 2; i++) {
        hash = (hash ^ half[i]) * 0x9e3779b97f4a7c15U;
        hash = (hash ^ (hash >> 32)) * 0xd6e8feb86659fd93U;
    }
    return buckets->entries[hash >> (64 - SETS_BITS)]; /* the bits that all others reach */
}

/* What the entry holds of the minute that ends at `now_us`. */
static int64_t level(const struct entry *entry, int64_t now_us)
{
    int64_t minute = now_us / MINUTE_US, left = MINUTE_US - now_us % MINUTE_US;
    int64_t count = entry->minute == minute ? entry->count : 0;
    int64_t before = entry->minute == minute       ? entry->before
                     : entry->minute == minute - 1 ? entry->count
                                                   : 0;
    return count + (before * left + MINUTE_US - 1) / MINUTE_US;
}

/* The source's own entry, or the one of its set that is missed least. */
static struct entry *entry_for(struct buckets *buckets, const struct address *source,
                               int64_t now_us)
{
    struct entry *set = set_of(buckets, source), *least = set;
    for (struct entry *entry = set; entry < set + WAYS; entry++) {
        if (memcmp(&entry->source, source, sizeof *source) == 0)
            return entry;
        if (level(entry, now_us) < level(least, now_us))
            least = entry;
    }
    *least = (struct entry){.source = *source};
    return least;
}

enum bucket_verdict buckets_add(struct buckets *buckets, const struct address *source,
                                int64_t limit, int64_t now_us)
{
    struct address sender = address_of_sender(source);
    enum bucket_verdict verdict = BUCKET_HOLDS;
    pthread_mutex_lock(&buckets->mutex);
    struct entry *entry = entry_for(buckets, &sender, now_us);
    int64_t minute = now_us / MINUTE_US;
    if (entry->minute != minute) {
        entry->before = entry->minute == minute - 1 ? entry->count : 0;
        entry->count = 0;
        entry->minute = minute;
    }
    entry->count++;
    if (level(entry, now_us) > limit) {
        bool told = entry->told_us != 0 && now_us - entry->told_us < MINUTE_US;
        verdict = told ? BUCKET_SPILLS : BUCKET_SPILLS_NOW;
        if (!told)
            entry->told_us = now_us;
    }
    pthread_mutex_unlock(&buckets->mutex);
    return verdict;
}
