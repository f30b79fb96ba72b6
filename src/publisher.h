/* PUBLISHER: records into Kafka topics with acks=all, and one report for each. It knows bytes,
 * topics and headers, not webhooks.
 *
 * Each event loop has a publisher with a producer of its own, so reports come on the loop that
 * sent, without locks. Whether a topic takes records at present is topic.h's.
 *
 * Only this module, topic.c, topics*.c and reader.c know librdkafka. Thread: the loop's. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "loop.h"
#include "slice.h"

#include <stdint.h>

struct config;
struct metrics;
struct publisher;
struct topic;

enum publish_result {
    PUBLISHED,         /* every in-sync replica has it */
    PUBLISH_TOO_LARGE, /* refused for its size, or for that of the request it travelled in */
    PUBLISH_REFUSED,   /* this record is refused for good: invalid */
    PUBLISH_NO_TOPIC, /* unknown topic or not authorised: nothing is taken until that is mended, and
                         this record was not */
    PUBLISH_NOT_TRIED, /* the caller's own word: it never sent the record */
    PUBLISH_UNSENT,    /* never left */
    PUBLISH_UNDECIDED, /* may have been in flight when it was given up: Kafka may have written it or
                          write it yet */
};

/* One record's journey; embedded in its owner, which lives until on_report. */
struct publish_op {
    void (*on_report)(struct publish_op *op, enum publish_result result, int32_t partition,
                      int64_t offset);
    struct topic *topic;
    unsigned long requests; /* the publisher's own */
};

struct publish_header {
    const char *name;
    struct slice value;
};

#define PUBLISH_HEADERS_MAX 20

struct publish_record {
    struct slice key;                                   /* copied */
    struct slice value;                                 /* not copied: lives until on_report */
    struct publish_header headers[PUBLISH_HEADERS_MAX]; /* copied */
    size_t header_count;
    int64_t wall_us; /* the record's time, Unix: what was in flight is looked for by it */
};

/* NULL with *ret_reason (owned by the caller) when librdkafka refuses the settings. Signals are
 * blocked in its threads. */
MUST_CHECK struct publisher *publisher_new(struct loop *loop, const struct config *config,
                                           struct metrics *metrics, char **ret_reason);
/* Whoever sent has no interest any more in reports that are still outstanding. */
void publisher_free(struct publisher *publisher);

/* Has the broker answered the present producer? */
bool publisher_is_up(const struct publisher *publisher);

/* The topic of this name, made known on first use; lives as long as the publisher. */
struct topic *publisher_topic(struct publisher *publisher, const char *name);

/* Sends; on_report comes later, never before this returns, also for a record that is refused at
 * once. */
void publisher_send(struct publisher *publisher, struct topic *topic,
                    const struct publish_record *record, struct publish_op *op);

/* Gives up all that is outstanding, on every topic: the reports come by the end of the next turns.
 * The producer is made anew. */
void publisher_purge(struct publisher *publisher);
