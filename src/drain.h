/* DRAIN: a thread that brings what is parked to its topic: from the outbox of all instances, at a
 * bounded rate, with a producer and a connection of its own, so that live traffic has neither to
 * wait for it nor to probe a Kafka that was away.
 *
 *   take (rows are marked as undecided, committed) ► publish ► settle (receipt, row) ► …
 *   undecided for long enough ► search in Kafka ► found: settle, absent: take again
 *
 * Each topic has a breaker here, and each partition: open, single records probe. What Kafka
 * acknowledges is told to the workers, whose breakers close by it. Refused for good: the stuck
 * list. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "obj.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct config;
struct drain;
struct parking;

struct drain_options {
    const struct config *config;
    struct parking *parking;
    /* Kafka acknowledged a record of this partition; -1 = nothing is parked for the topic any more.
     * On the drainer's thread; `topic` lives during the call. */
    void (*on_heard)(const char *topic, int32_t partition, void *context);
    void *context;
};

MUST_CHECK struct drain *drain_start(const struct drain_options *options);
/* The topic is as it must be; 0 partitions = it must not be used. Nothing is sent to a topic
 * before. Thread: any. */
void drain_topic_checked(struct drain *drain, const char *topic, int32_t partitions);
/* Every topic of the configuration has been told since the last call: what waits for others is left
 * of an earlier configuration, and is sent as well. Thread: any. */
void drain_topics_named(struct drain *drain);
/* Ends the thread when what it has sent is settled, a few seconds at most. */
void drain_stop(struct drain *drain);
