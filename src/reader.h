/* READER: records back out of Kafka, from an offset to an end that was asked for before. For what
 * must be known and not assumed: whether a record was written (undecided events), what is held, and
 * the audit. No consumer group: who reads keeps its own place.
 *
 * Blocking, with a deadline on each call. Thread: any but an event loop's; one at a time. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "obj.h"
#include "slice.h"

#include <stdbool.h>
#include <stdint.h>

struct config;
struct reader;

enum reader_result {
    READER_OK,
    READER_LATE,    /* the deadline passed: no broker, a partition without a leader, or too much to
                       read */
    READER_UNKNOWN, /* there is no such topic or partition */
    READER_EXPIRED, /* the offset is no longer there: retention was faster */
    READER_FAILED,  /* anything else; reader_reason() tells */
};

/* NULL with *ret_reason (owned by the caller) when librdkafka refuses the settings. */
MUST_CHECK struct reader *reader_new(const struct config *config, char **ret_reason);
/* Takes NULL. May block for the time that librdkafka's threads take to end. */
void reader_free(struct reader *reader);

/* Why the last call was not READER_OK, in words; valid until the next call. */
const char *reader_reason(const struct reader *reader);

MUST_CHECK enum reader_result reader_partitions(struct reader *reader, const char *topic,
                                                int64_t deadline_us, int32_t *ret_count);
/* How a partition is replicated, as the brokers tell. */
struct reader_replicas {
    int32_t all, in_sync;
};
/* Those of each partition, by its number; *ret_replicas is the caller's to free, also NULL. */
MUST_CHECK enum reader_result reader_replicas(struct reader *reader, const char *topic,
                                              int64_t deadline_us, int32_t *ret_count,
                                              struct reader_replicas **ret_replicas);
/* The first offset that is still there and the one that comes next: asked of the broker. */
MUST_CHECK enum reader_result reader_bounds(struct reader *reader, const char *topic,
                                            int32_t partition, int64_t deadline_us,
                                            int64_t *ret_low, int64_t *ret_end);
/* The first offset whose record has this time (of its producer, Unix microseconds) or a later one;
 * the partition's end when there is none. */
MUST_CHECK enum reader_result reader_offset_at(struct reader *reader, const char *topic,
                                               int32_t partition, int64_t wall_us,
                                               int64_t deadline_us, int64_t *ret_offset);

/* Deletes all records before `offset`, for ever. */
MUST_CHECK enum reader_result reader_delete_before(struct reader *reader, const char *topic,
                                                   int32_t partition, int64_t offset,
                                                   int64_t deadline_us);

/* One record; all slices are valid during the visit only. */
struct reader_record {
    int32_t partition;
    int64_t offset;
    int64_t wall_us; /* when it was produced; 0 = not told */
    struct slice key, value;
    const struct reader_headers *headers;
};

/* The last header of this name; false when there is none. */
bool reader_header(const struct reader_record *record, const char *name, struct slice *ret_value);
/* The header at `index` in the record's order; false behind the last one. */
bool reader_header_at(const struct reader_record *record, size_t index, const char **ret_name,
                      struct slice *ret_value);

/* True to go on with the next record. */
typedef bool reader_visit_f(const struct reader_record *record, void *context);

/* Visits the records with from <= offset < end, in order; offsets may have gaps. `end` must not lie
 * beyond what reader_bounds() told. READER_OK: there are no others, or the visitor stopped it. */
MUST_CHECK enum reader_result reader_read(struct reader *reader, const char *topic,
                                          int32_t partition, int64_t from, int64_t end,
                                          int64_t deadline_us, reader_visit_f *visit,
                                          void *context);
