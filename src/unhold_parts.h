/* What unhold.c, unhold_kafka.c and unhold_place.c share. Thread: unhold's own. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "held.h"
#include "reader.h"
#include "unhold.h"
#include "unhold_sql.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UNHOLD_BATCH_MAX 256

/* Kafka, as it last was. */
struct unhold_kafka {
    const struct unhold_options *options;
    struct reader *reader;
    int64_t contact_us; /* when it last answered; 0 = never */
    int64_t told_us;    /* when options.on_kafka was last called */
    int64_t missed_us;  /* when options.on_missing was last called */
    int64_t looked_us;  /* when the topics' partitions were last asked for */
    bool is_silent;     /* it did not answer the last question; else it refused */
    bool told;
};

/* A partition of the holding topic or of the markers. */
struct place {
    const char *topic;
    int32_t partition;
    bool is_markers;
    int64_t next, end; /* as last seen */
    int64_t deleted, deleted_us;
    int64_t caught_up_us;
    int64_t blocked_us;  /* when Postgres last refused to let go on; 0 = it does */
    unsigned generation; /* of the connection that knows it */
};

struct held_topic {
    const char *name;
    bool is_markers;
    struct place *places; /* by partition; librdkafka bounds how many there can be */
    int32_t place_count;
    int32_t partitions;  /* so many of the places are there now */
    unsigned generation; /* of the connection that has no rows beyond them */
    int64_t missing_us;  /* since when Kafka knows no such topic; 0 = it does */
};

/* What one partition's taking over needs. */
struct taking {
    struct unhold_kafka *kafka;
    struct unhold_sql *sql;
    struct metrics *metrics;
    struct held batch[UNHOLD_BATCH_MAX];
    size_t count, bytes, batch_max;
    int64_t taken; /* payloads; unhold.c begins anew */
    int64_t next;  /* behind the last record that was read */
    bool is_full;
};

/* ---- unhold_kafka.c ---- */

/* Takes note of an answer, or of none; true for READER_OK. */
bool unhold_kafka_said(struct unhold_kafka *kafka, enum reader_result result);
/* Asks where the partition begins and ends: place->end. */
MUST_CHECK bool unhold_kafka_bounds(struct unhold_kafka *kafka, struct place *place,
                                    int64_t *ret_low);
/* A topic that does not exist has no partitions; for markers it must have been so for a while,
 * because the gate may open without them. */
bool unhold_kafka_partitions(struct unhold_kafka *kafka, struct held_topic *topic,
                             int32_t *ret_count);

/* ---- unhold_place.c ---- */

/* Learns place->next from the partition's row, which is made if there is none, or no longer. */
MUST_CHECK bool place_learn(struct taking *taking, struct place *place);
/* The topic was deleted and made anew: it ends before what was taken over, or what was deleted is
 * there again. */
bool place_is_anew(const struct place *place, int64_t low);
/* Takes over one batch, if no other instance is at it; place->next is true afterwards. A batch that
 * Postgres refuses for what stands in it is taken one by one. */
MUST_CHECK bool place_take(struct taking *taking, struct place *place);
/* Takes also when there is nothing, now and then, to note that there was nothing. */
MUST_CHECK bool place_note_caught_up(struct taking *taking, struct place *place);
/* True when all that stands in the partition now is applied, by whomever. */
MUST_CHECK bool place_apply(struct taking *taking, struct place *place);
