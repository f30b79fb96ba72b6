/* The thread behind search.h. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "search.h"

#include "clock.h"
#include "config.h"
#include "log.h"
#include "reader.h"
#include "thread.h"

#include <stdatomic.h>
#include <unistd.h>

#define SECOND INT64_C(1000000)
/* For one question to the broker; short, because search_free() waits for it. */
#define ASK_US (3 * SECOND)
#define READ_US (60 * SECOND)
#define SEARCH_SETTLE_US (3 * SECOND)
#define PAUSE_US 50000
/* Times of records are in milliseconds; more costs nothing. */
#define MARGIN_US SECOND

struct search {
    const struct config *config;
    char *topic;
    size_t count;
    struct search_item *items; /* in the order given */
    struct search_item **sorted;
    pthread_t thread;
    bool runs;
    _Atomic bool done, stop;
};

/* One partition under way. */
struct partition {
    struct search *search;
    int32_t number;
    int64_t from;
    size_t wanted, found;
    int64_t newest_us;    /* the time of the newest record that was seen */
    bool answers;         /* its leader does */
    bool read;            /* to its end */
    bool single, in_sync; /* before and after the pause: one replica in all; enough of them */
};

/* A topic as the brokers tell it; no partitions when they know no such topic. */
struct shape {
    int32_t count;
    struct reader_replicas *replicas;
};

static bool concerns(const struct search_item *item, int32_t partition)
{
    return item->result != SEARCH_FOUND && (item->partition < 0 || item->partition == partition);
}

static int compare(const void *a, const void *b)
{
    const struct search_item *const *x = a, *const *y = b;
    return memcmp((*x)->id.bytes, (*y)->id.bytes, sizeof(*x)->id.bytes);
}

static bool on_record(const struct reader_record *record, void *context)
{
    struct partition *partition = context;
    struct search *search = partition->search;
    struct slice text;
    struct search_item key, *wanted = &key;
    /* A clock that was ahead has left records that were made before ours: they are no fence. */
    if (record->wall_us > partition->newest_us && record->wall_us <= clock_wall_us())
        partition->newest_us = record->wall_us;
    if (reader_header(record, "ce_id", &text) && event_id_parse(text, &key.id)) {
        struct search_item **found =
            bsearch(&wanted, search->sorted, search->count, sizeof *search->sorted, compare);
        if (found && concerns(*found, partition->number)) {
            (*found)->result = SEARCH_FOUND;
            (*found)->partition = partition->number;
            (*found)->offset = record->offset;
            partition->found++;
        }
    }
    return partition->found < partition->wanted && !atomic_load(&search->stop);
}

/* From where to read: false when the broker did not tell. The end is asked for first: what becomes
 * visible between the two answers lies behind it. */
static bool find_start(struct reader *reader, struct partition *partition)
{
    struct search *search = partition->search;
    int64_t oldest = INT64_MAX, low, end;
    for (size_t i = 0; i < search->count; i++) {
        if (!concerns(&search->items[i], partition->number))
            continue;
        partition->wanted++;
        oldest = search->items[i].wall_us < oldest ? search->items[i].wall_us : oldest;
    }
    if (partition->wanted == 0)
        return true;
    if (reader_bounds(reader, search->topic, partition->number, clock_mono_us() + ASK_US, &low,
                      &end) != READER_OK ||
        reader_offset_at(reader, search->topic, partition->number, oldest - MARGIN_US,
                         clock_mono_us() + ASK_US, &partition->from) != READER_OK)
        return false;
    partition->from = partition->from < end ? partition->from : end;
    return true;
}

static bool read_partition(struct reader *reader, struct partition *partition)
{
    struct search *search = partition->search;
    int64_t low, end;
    if (partition->wanted == 0)
        return true;
    if (reader_bounds(reader, search->topic, partition->number, clock_mono_us() + ASK_US, &low,
                      &end) != READER_OK)
        return false;
    int64_t from = partition->from > low ? partition->from : low;
    return reader_read(reader, search->topic, partition->number, from, end,
                       clock_mono_us() + READ_US, on_record, partition) == READER_OK &&
           !atomic_load(&search->stop);
}

/* Not found is said only where every partition that it could be in was read to its end. A partition
 * that no longer exists holds nothing. */
static void call_absent(struct search *search, const struct partition *partitions, int32_t count)
{
    for (size_t i = 0; i < search->count; i++) {
        struct search_item *item = &search->items[i];
        if (item->result == SEARCH_FOUND)
            continue;
        bool sure = true, likely = item->idle;
        for (int32_t p = 0; p < count; p++) {
            const struct partition *partition = &partitions[p];
            if (!concerns(item, p))
                continue;
            sure &=
                partition->read && (partition->single || partition->newest_us >= item->fence_us);
            likely &= partition->read && partition->in_sync;
        }
        if (sure || likely)
            item->result = sure ? SEARCH_ABSENT : SEARCH_LIKELY_ABSENT;
    }
}

static void settle(struct search *search)
{
    for (int64_t until = clock_mono_us() + SEARCH_SETTLE_US;
         clock_mono_us() < until && !atomic_load(&search->stop);)
        usleep(PAUSE_US);
}

static bool ask_shape(struct search *search, struct reader *reader, struct shape *ret)
{
    enum reader_result result = reader_replicas(reader, search->topic, clock_mono_us() + ASK_US,
                                                &ret->count, &ret->replicas);
    if (result == READER_OK || result == READER_UNKNOWN)
        return true;
    log_event(LOG_WARNING, "search_failed", "%s", reader_reason(reader));
    return false;
}

static bool is_single(struct reader_replicas replicas)
{
    return replicas.all == 1;
}

static bool is_in_sync(struct reader_replicas replicas)
{
    return replicas.all > 0 && replicas.in_sync >= (replicas.all < 2 ? replicas.all : 2);
}

/* Reads what both shapes have, and decides. */
static void read_all(struct search *search, struct reader *reader, struct partition *partitions,
                     const struct shape *before, const struct shape *after)
{
    bool good = true;
    for (int32_t i = 0; i < after->count; i++) {
        struct partition *partition = &partitions[i];
        struct reader_replicas was = before->replicas[i], is = after->replicas[i];
        partition->single = is_single(was) && is_single(is);
        partition->in_sync = is_in_sync(was) && is_in_sync(is);
        partition->read = partition->answers && read_partition(reader, partition);
        good &= partition->read;
    }
    if (!good && !atomic_load(&search->stop))
        log_event(LOG_WARNING, "search_failed", "%s", reader_reason(reader));
    call_absent(search, partitions, after->count);
}

/* What is said of the topic counts when it is said twice: a broker that has just come back may not
 * know it yet. */
static void look(struct search *search, struct reader *reader)
{
    struct shape before = {0}, after = {0};
    if (!ask_shape(search, reader, &before))
        return;
    struct partition *partitions = xcalloc((size_t)before.count, sizeof *partitions);
    for (int32_t i = 0; i < before.count; i++) {
        partitions[i] = (struct partition){.search = search, .number = i};
        partitions[i].answers = find_start(reader, &partitions[i]);
    }
    settle(search);
    if (ask_shape(search, reader, &after) && after.count == before.count)
        read_all(search, reader, partitions, &before, &after);
    free(partitions);
    free(before.replicas);
    free(after.replicas);
}

static void *run(void *argument)
{
    struct search *search = argument;
    char *reason = NULL;
    struct reader *reader = reader_new(search->config, &reason);
    if (reader != NULL)
        look(search, reader);
    else
        log_event(LOG_ERROR, "search_failed", "%s", reason);
    reader_free(reader);
    free(reason);
    atomic_store(&search->done, true);
    return NULL;
}

struct search *search_start(const struct config *config, const char *topic,
                            const struct search_item *items, size_t count)
{
    struct search *search = xcalloc(1, sizeof *search);
    search->config = config;
    search->topic = xstrdup(topic);
    search->count = count;
    search->items = xcalloc(count, sizeof *search->items);
    search->sorted = xcalloc(count, sizeof *search->sorted);
    for (size_t i = 0; i < count; i++) {
        search->items[i] = items[i];
        search->items[i].result = SEARCH_UNKNOWN;
        search->sorted[i] = &search->items[i];
    }
    qsort(search->sorted, count, sizeof *search->sorted, compare);
    search->runs = thread_start(&search->thread, run, search) == 0;
    if (!search->runs) /* out of threads: all stays unknown, and is looked for again */
        atomic_store(&search->done, true);
    return search;
}

bool search_is_done(const struct search *search)
{
    return atomic_load(&search->done);
}

const struct search_item *search_items(const struct search *search)
{
    return search->items;
}

void search_free(struct search *search)
{
    if (search == NULL)
        return;
    atomic_store(&search->stop, true);
    if (search->runs)
        pthread_join(search->thread, NULL);
    free(search->topic);
    free(search->items);
    free(search->sorted);
    free(search);
}
