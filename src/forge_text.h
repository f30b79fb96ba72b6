/* A text (a body, a request's head) with places of fixed width that are filled anew for each
 * event: fresh ids, times, padding. For forge.c: what costs time is done once, a fill is a walk
 * over the places. Pure. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "obj.h"
#include "platform.h"
#include "slice.h"

#include <stdint.h>

#define FORGE_PLACES_MAX 48
#define FORGE_MARK_MAX 320 /* longest place beside padding */

enum place_kind {
    PLACE_ID,     /* random characters of the classes that the sample's value has */
    PLACE_NUMBER, /* a number of 15 to 18 digits that counts up */
    PLACE_TIME,
    PLACE_PADDING
};

struct place {
    enum place_kind kind;
    enum time_unit unit;
    bool fraction; /* RFC 3339 with milliseconds */
    size_t at, len;
    char *classes; /* PLACE_ID: per character, 0 = stays */
    char *sample;  /* PLACE_ID: what stands there at first */
};

struct forge_text {
    char *bytes; /* owned */
    size_t len;
    struct place places[FORGE_PLACES_MAX];
    size_t place_count;
};

/* What one event is filled with: the same values, the same text. */
struct forge_values {
    uint64_t random;
    uint64_t number;
    int64_t wall_us;
    struct slice padding; /* a pool, longer than any place of padding */
};

/* Adds a place like `sample` and writes the mark that must stand for it in the text that
 * forge_text_bind() gets; returns the mark's length, 0 when there are too many places or the
 * sample is too long. Marks hold no character that JSON or HTTP would escape. */
MUST_CHECK size_t forge_text_mark(struct forge_text *text, enum place_kind kind,
                                  enum time_unit unit, struct slice sample,
                                  char mark[FORGE_MARK_MAX]);
/* A place of `len` bytes at a known position of the bound text. */
void forge_text_pad(struct forge_text *text, size_t at, size_t len);
/* Takes `bytes` over (malloc'ed) and finds the marks in them; false when one is missing. */
MUST_CHECK bool forge_text_bind(struct forge_text *text, char *bytes, size_t len);
void forge_text_fill(struct forge_text *text, const struct forge_values *values);
void forge_text_release(struct forge_text *text);

/* The time as a platform writes it; returns its length. `size` ≥ 32. */
size_t forge_time_format(enum time_unit unit, bool fraction, int64_t wall_us, char *buf,
                         size_t size);

/* The next of a stream of random numbers (splitmix64). */
static inline uint64_t forge_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}
