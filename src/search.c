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
    bool settled; /* read to its end */
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

/* From where to read: false when the broker did not tell. */
static bool find_start(struct reader *reader, struct partition *partition)
{
    struct search *search = partition->search;
    int64_t oldest = INT64_MAX;
    for (size_t i = 0; i < search->count; i++) {
        if (!concerns(&search->items[i], partition->number))
            continue;
        partition->wanted++;
        oldest = search->items[i].wall_us < oldest ? search->items[i].wall_us : oldest;
    }
    if (partition->wanted == 0)
        return true;
    return reader_offset_at(reader, search->topic, partition->number, oldest - MARGIN_US,
                            clock_mono_us() + ASK_US, &partition->from) == READER_OK;
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
    bool all = true;
    for (int32_t i = 0; i < count; i++)
        all &= partitions[i].settled;
    for (size_t i = 0; i < search->count; i++) {
        struct search_item *item = &search->items[i];
        bool sure = item->partition < 0        ? all
                    : item->partition >= count ? true
                                               : partitions[item->partition].settled;
        if (item->result == SEARCH_UNKNOWN && sure)
            item->result = SEARCH_ABSENT;
    }
}

static void settle(struct search *search)
{
    for (int64_t until = clock_mono_us() + SEARCH_SETTLE_US;
         clock_mono_us() < until && !atomic_load(&search->stop);)
        usleep(PAUSE_US);
}

static void look(struct search *search, struct reader *reader)
{
    int32_t count = 0;
    enum reader_result result =
        reader_partitions(reader, search->topic, clock_mono_us() + ASK_US, &count);
    if (result != READER_OK && result != READER_UNKNOWN) {
        log_event(LOG_WARNING, "search_failed", "%s", reader_reason(reader));
        return;
    }
    struct partition *partitions = xcalloc((size_t)count, sizeof *partitions);
    bool good = true;
    for (int32_t i = 0; i < count; i++) {
        partitions[i] = (struct partition){.search = search, .number = i};
        partitions[i].settled = find_start(reader, &partitions[i]);
        good &= partitions[i].settled;
    }
    settle(search);
    for (int32_t i = 0; i < count; i++) {
        partitions[i].settled = partitions[i].settled && read_partition(reader, &partitions[i]);
        good &= partitions[i].settled;
    }
    if (!good && !atomic_load(&search->stop))
        log_event(LOG_WARNING, "search_failed", "%s", reader_reason(reader));
    call_absent(search, partitions, count);
    free(partitions);
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
