/* An open-addressing table that doubles; event ids are digests, so their own bytes are the hash.
 * Called by audit.c. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "tally.h"

struct tally {
    struct tally_entry *entries;
    size_t size; /* a power of two, at most half of it in use */
    size_t count;
};

struct tally *tally_new(void)
{
    struct tally *tally = xcalloc(1, sizeof *tally);
    tally->size = 1024;
    tally->entries = xcalloc(tally->size, sizeof *tally->entries);
    return tally;
}

void tally_free(struct tally *tally)
{
    if (tally == NULL)
        return;
    free(tally->entries);
    free(tally);
}

/* Where the id is, or would be. */
static struct tally_entry *slot_of(const struct tally *tally, struct event_id id)
{
    uint64_t hash;
    memcpy(&hash, id.bytes, sizeof hash); /* the second half begins with bits that are all alike */
    size_t mask = tally->size - 1, i = (size_t)hash & mask;
    while (tally->entries[i].in_use && memcmp(tally->entries[i].id.bytes, id.bytes, 16) != 0)
        i = (i + 1) & mask;
    return &tally->entries[i];
}

static void grow(struct tally *tally)
{
    struct tally old = *tally;
    tally->size *= 2;
    tally->entries = xcalloc(tally->size, sizeof *tally->entries);
    for (size_t i = 0; i < old.size; i++) {
        if (old.entries[i].in_use)
            *slot_of(tally, old.entries[i].id) = old.entries[i];
    }
    free(old.entries);
}

struct tally_entry *tally_at(struct tally *tally, struct event_id id)
{
    struct tally_entry *entry = slot_of(tally, id);
    if (entry->in_use)
        return entry;
    if (++tally->count * 2 > tally->size) {
        grow(tally);
        entry = slot_of(tally, id);
    }
    *entry = (struct tally_entry){.id = id, .offset = -1, .partition = -1, .in_use = true};
    return entry;
}

struct tally_entry *tally_next(struct tally *tally, size_t *at)
{
    while (*at < tally->size) {
        struct tally_entry *entry = &tally->entries[(*at)++];
        if (entry->in_use)
            return entry;
    }
    return NULL;
}
