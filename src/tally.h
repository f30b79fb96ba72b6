/* TALLY: per event id, what its receipt says and how many records of it were found: the table in
 * which the audit joins Postgres with Kafka. 40 bytes an event. Thread: one at a time. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "event.h"
#include "obj.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum tally_status {
    TALLY_NONE, /* no receipt is known: only a record was found */
    TALLY_PUBLISHED,
    TALLY_PARKED,
    TALLY_STUCK,
    TALLY_MARKED, /* published by a marker, which has not become a receipt yet */
};

struct tally_entry {
    struct event_id id;
    int64_t offset;    /* the receipt's, or -1; filled in by the audit from what it found */
    int32_t partition; /* likewise */
    uint16_t topic;    /* index into the audit's topics */
    uint16_t found;    /* records with this id, at most UINT16_MAX */
    uint8_t status;    /* enum tally_status */
    bool in_use;
    bool fill; /* the receipt had no offset and the record was found */
};

struct tally;

MUST_CHECK struct tally *tally_new(void);
void tally_free(struct tally *tally);
/* The entry of this id, made when there is none (status TALLY_NONE, offset and partition -1);
 * valid until the next call. */
struct tally_entry *tally_at(struct tally *tally, struct event_id id);
/* Walks all entries: start with *at = 0; NULL at the end. */
struct tally_entry *tally_next(struct tally *tally, size_t *at);
