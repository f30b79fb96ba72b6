/* Tables of sightings behind sighting.h: entries in a dense array, found by an index of hashes. A
 * forger chooses sources, so the hash may be driven into collisions; the table is small enough for
 * that to cost microseconds. Called by delivery.c on the loops and by witness.c, which reads. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "sighting.h"

#include "address.h"
#include "hash.h"
#include "metrics.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>

#define HOUR_US INT64_C(3600000000)
#define EMPTY UINT16_MAX

_Static_assert(sizeof(struct sighting_key) == 8 + 8 + 16 + 16 + SIGHTING_PLATFORM_MAX,
               "keys are compared byte by byte: no padding");

struct sightings {
    size_t max, count;
    size_t sources; /* entries that are no sums: at most three quarters */
    size_t slots;   /* a power of two, at least twice `max` */
    uint16_t *index;
    struct metrics *metrics;
    struct sighting entries[];
};

/* ---- what is a sighting ---- */

const char *sighting_kind(enum outcome outcome)
{
    switch (outcome) {
    case OUTCOME_SIGNATURE_MISSING:
    case OUTCOME_SIGNATURE_REPEATED:
    case OUTCOME_SIGNATURE_MALFORMED:
    case OUTCOME_SIGNATURE_MISMATCH:
    case OUTCOME_NO_SECRET:
    case OUTCOME_SOURCE_LIMITED:
    case OUTCOME_WORKSPACE_MISMATCH:
        return "signature";
    case OUTCOME_TIMESTAMP_MISSING:
    case OUTCOME_TIMESTAMP_MALFORMED:
    case OUTCOME_TIMESTAMP_STALE:
    case OUTCOME_TIMESTAMP_FUTURE:
        return "timestamp";
    case OUTCOME_DUPLICATE:
        return "replay";
    case OUTCOME_CHALLENGED:
    case OUTCOME_CHALLENGE_REFUSED:
    case OUTCOME_CHALLENGE_UNVERIFIED:
        return "challenge";
    case OUTCOME_UNKNOWN_ENDPOINT:
        return "endpoint";
    default:
        return NULL;
    }
}

const char *sighting_word(enum outcome outcome)
{
    const struct outcome_info *info = outcome_info(outcome);
    return info->error_type ? info->error_type : info->status_label;
}

static void read_source(struct sighting_key *key, const char *text)
{
    struct address address;
    if (!address_parse(slice_of(text), &address))
        return;
    address = address_of_sender(&address);
    key->has_source = 1;
    memcpy(key->source, address.bytes, sizeof key->source);
}

void sighting_key_of(struct sighting_key *ret, enum outcome outcome, const char *platform,
                     const unsigned char *integration, const char *source, int64_t wall_us)
{
    memset(ret, 0, sizeof *ret);
    ret->hour = wall_us / HOUR_US;
    ret->outcome = (int32_t)outcome;
    snprintf(ret->platform, sizeof ret->platform, "%s", platform);
    if (integration != NULL && outcome != OUTCOME_DUPLICATE) {
        ret->has_integration = 1;
        memcpy(ret->integration, integration, sizeof ret->integration);
    }
    read_source(ret, source);
}

bool sighting_source_text(const struct sighting_key *key, char ret[SIGHTING_SOURCE_TEXT])
{
    if (!key->has_source)
        return false;
    struct address address;
    memcpy(address.bytes, key->source, sizeof address.bytes);
    address_format(&address, ret);
    if (strchr(ret, ':') != NULL)
        memcpy(ret + strlen(ret), "/64", sizeof "/64");
    return true;
}

/* ---- the table ---- */

struct sightings *sightings_new(size_t max, struct metrics *metrics)
{
    assert(max >= 16 && max <= 32768);
    struct sightings *table = xcalloc(1, sizeof *table + max * sizeof table->entries[0]);
    table->max = max;
    table->metrics = metrics;
    for (table->slots = 1; table->slots < 2 * max;)
        table->slots *= 2;
    table->index = xmalloc(table->slots * sizeof *table->index);
    sightings_clear(table);
    return table;
}

void sightings_free(struct sightings *table)
{
    if (table == NULL)
        return;
    free(table->index);
    free(table);
}

static uint64_t hash_of(const struct sighting_key *key)
{
    uint64_t hash = hash_bytes(HASH_BASIS, key, sizeof *key);
    return hash ^ (hash >> 32);
}

/* The slot of the key: its own, or the empty one where it would go. */
static size_t find(const struct sightings *table, const struct sighting_key *key)
{
    size_t slot = (size_t)hash_of(key) & (table->slots - 1);
    while (table->index[slot] != EMPTY &&
           memcmp(&table->entries[table->index[slot]].key, key, sizeof *key) != 0)
        slot = (slot + 1) & (table->slots - 1);
    return slot;
}

/* NULL: there is no place for it. */
static struct sighting *find_or_make(struct sightings *table, const struct sighting_key *key)
{
    size_t slot = find(table, key);
    if (table->index[slot] != EMPTY)
        return &table->entries[table->index[slot]];
    if (key->is_other ? table->count == table->max : table->sources == table->max / 4 * 3)
        return NULL;
    table->sources += !key->is_other;
    table->index[slot] = (uint16_t)table->count;
    struct sighting *entry = &table->entries[table->count++];
    memset(entry, 0, sizeof *entry);
    memcpy(&entry->key, key, sizeof *key);
    return entry;
}

/* Which sources it were is lost, but not how many deliveries and of which platform. */
static struct sighting *find_other(struct sightings *table, const struct sighting_key *key)
{
    struct sighting_key other;
    memset(&other, 0, sizeof other);
    other.hour = key->hour;
    other.outcome = key->outcome;
    other.is_other = 1;
    memcpy(other.platform, key->platform, sizeof other.platform);
    return find_or_make(table, &other);
}

void sightings_add(struct sightings *table, const struct sighting_key *key, uint64_t count,
                   int64_t first_us, int64_t last_us)
{
    struct sighting *entry = find_or_make(table, key);
    if (entry == NULL && !key->is_other) {
        entry = find_other(table, key);
        if (entry != NULL)
            metrics_add(table->metrics, METRIC_SIGHTINGS_MERGED, (int64_t)count);
    }
    if (entry == NULL) {
        metrics_add(table->metrics, METRIC_SIGHTINGS_DROPPED, (int64_t)count);
        return;
    }
    if (entry->count == 0 || first_us < entry->first_us)
        entry->first_us = first_us;
    if (entry->count == 0 || last_us > entry->last_us)
        entry->last_us = last_us;
    entry->count += count;
}

static void sightings_merge(struct sightings *table, const struct sightings *from)
{
    for (size_t i = 0; i < from->count; i++) {
        const struct sighting *entry = &from->entries[i];
        sightings_add(table, &entry->key, entry->count, entry->first_us, entry->last_us);
    }
}

size_t sightings_count(const struct sightings *table)
{
    return table->count;
}

struct sighting *sightings_at(struct sightings *table, size_t index)
{
    assert(index < table->count);
    return &table->entries[index];
}

void sightings_settle(struct sightings *table, bool arrived)
{
    for (size_t i = 0; i < table->count; i++) {
        struct sighting *entry = &table->entries[i];
        if (arrived)
            entry->count -= entry->told;
        entry->told = 0;
    }
}

void sightings_forget(struct sightings *table)
{
    size_t kept = 0, before = table->count;
    table->count = table->sources = 0;
    memset(table->index, 0xff, table->slots * sizeof *table->index);
    for (size_t i = 0; i < before; i++) {
        if (table->entries[i].count == 0)
            continue;
        struct sighting entry;
        memcpy(&entry, &table->entries[i], sizeof entry);
        table->index[find(table, &entry.key)] = (uint16_t)kept;
        memcpy(&table->entries[kept++], &entry, sizeof entry);
        table->count = kept;
        table->sources += !entry.key.is_other;
    }
}

void sightings_clear(struct sightings *table)
{
    table->count = table->sources = 0;
    memset(table->index, 0xff, table->slots * sizeof *table->index);
}

/* ---- from a loop to the reader ---- */

struct sighting_book {
    struct sightings *open;             /* the loop's */
    _Atomic(struct sightings *) handed; /* full, on its way to the reader */
    _Atomic(struct sightings *) spare;  /* empty, on its way back */
};

struct sighting_book *sighting_book_new(size_t max, struct metrics *metrics)
{
    struct sighting_book *book = xcalloc(1, sizeof *book);
    book->open = sightings_new(max, metrics);
    atomic_init(&book->handed, NULL);
    atomic_init(&book->spare, sightings_new(max, metrics));
    return book;
}

void sighting_book_free(struct sighting_book *book)
{
    if (book == NULL)
        return;
    sightings_free(book->open);
    sightings_free(atomic_load(&book->handed));
    sightings_free(atomic_load(&book->spare));
    free(book);
}

void sighting_book_add(struct sighting_book *book, const struct sighting_key *key, int64_t wall_us)
{
    sightings_add(book->open, key, 1, wall_us, wall_us);
}

void sighting_book_turn(struct sighting_book *book)
{
    if (sightings_count(book->open) == 0)
        return;
    struct sightings *spare = atomic_exchange_explicit(&book->spare, NULL, memory_order_acquire);
    if (spare == NULL) /* the reader is slower than we: the open one goes on summing */
        return;
    atomic_store_explicit(&book->handed, book->open, memory_order_release);
    book->open = spare;
}

void sighting_book_read(struct sighting_book *book, struct sightings *into)
{
    struct sightings *table = atomic_exchange_explicit(&book->handed, NULL, memory_order_acquire);
    if (table == NULL)
        return;
    sightings_merge(into, table);
    sightings_clear(table);
    atomic_store_explicit(&book->spare, table, memory_order_release);
}
