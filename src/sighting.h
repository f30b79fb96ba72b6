/* SIGHTING: a delivery that a security officer should hear of: a signature or timestamp that was
 * refused, a copy of what is recorded already, a challenge, an unknown endpoint token. Sightings of
 * one kind are summed, never listed: a table holds one entry per outcome, platform, integration,
 * source and hour, and has a bound. Never a path, token, body or signature. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "obj.h"
#include "outcome.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIGHTING_PLATFORM_MAX 72
#define SIGHTING_SOURCE_TEXT 56 /* of "2001:db8::/64" and a NUL */

struct metrics;

/* Compared byte by byte: made by sighting_key_of() alone, which zeroes it first. */
struct sighting_key {
    int64_t hour; /* Unix time / 3600 */
    int32_t outcome;
    uint8_t has_source;
    uint8_t has_integration;
    uint8_t is_other; /* the sum of what found no place */
    uint8_t unused;
    unsigned char source[16]; /* address.h; of IPv6 the /64 */
    unsigned char integration[16];
    char platform[SIGHTING_PLATFORM_MAX];
};

struct sighting {
    struct sighting_key key;
    uint64_t count;            /* not told yet */
    uint64_t told;             /* of them on their way: see sightings_settle() */
    int64_t first_us, last_us; /* Unix time */
};

/* What kind of sighting an outcome is: "signature", "timestamp", "replay", "challenge", "endpoint";
 * NULL = none at all. */
const char *sighting_kind(enum outcome outcome);
/* The word of the log and of the metrics for it. */
const char *sighting_word(enum outcome outcome);

/* `integration` is a UUID's 16 bytes, NULL = not known; of replays it is left out, because every
 * integration has some and they would crowd out the rest. `source` is a numeric address: IPv4 is
 * kept whole, of IPv6 the /64, and what is neither is unknown. */
void sighting_key_of(struct sighting_key *ret, enum outcome outcome, const char *platform,
                     const unsigned char *integration, const char *source, int64_t wall_us);
/* "192.0.2.1", "2001:db8::/64"; false = unknown. */
MUST_CHECK bool sighting_source_text(const struct sighting_key *key,
                                     char ret[SIGHTING_SOURCE_TEXT]);

/* A table. Thread: its owner's. */
struct sightings;

/* Holds up to `max` entries (16 to 32768), a quarter of them kept free for sums of what found no
 * place. Those are counted in `metrics` as merged, and what finds no place even there as dropped.
 */
MUST_CHECK struct sightings *sightings_new(size_t max, struct metrics *metrics);
void sightings_free(struct sightings *table);

void sightings_add(struct sightings *table, const struct sighting_key *key, uint64_t count,
                   int64_t first_us, int64_t last_us);
size_t sightings_count(const struct sightings *table);
struct sighting *sightings_at(struct sightings *table, size_t index);
/* What was told has arrived (or not: then it is told again). */
void sightings_settle(struct sightings *table, bool arrived);
/* Drops the entries that have nothing left to tell. */
void sightings_forget(struct sightings *table);
void sightings_clear(struct sightings *table);

/* A loop's own table and the way to a reader on another thread: two tables that change hands, so
 * that neither side locks or waits. */
struct sighting_book;

MUST_CHECK struct sighting_book *sighting_book_new(size_t max, struct metrics *metrics);
void sighting_book_free(struct sighting_book *book);
/* Thread: the loop's. */
void sighting_book_add(struct sighting_book *book, const struct sighting_key *key, int64_t wall_us);
/* Now and then: hands over what there is, when the reader has returned the last. Thread: the
 * loop's. */
void sighting_book_turn(struct sighting_book *book);
/* Adds to `into` what was handed over, and returns the table. Thread: the reader's. */
void sighting_book_read(struct sighting_book *book, struct sightings *into);
