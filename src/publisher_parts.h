/* What publisher.c and topic.c share. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "breaker.h"
#include "list.h"
#include "obj.h"
#include "topics_refusal.h"

#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <stdint.h>

struct metrics;
struct publisher;

/* A refusal that lasts is told now and then; each new one at once. */
struct told {
    enum topics_refusal refusal;
    int64_t us; /* when it was told last; 0 = Kafka has acknowledged something since */
};

struct topic {
    struct publisher *publisher;
    struct metrics *metrics;
    struct list node;
    char *name;
    rd_kafka_topic_t *handle; /* of the present producer; NULL = not made yet */
    bool checked;
    struct told told; /* of this topic alone */
    struct breaker breaker;
    int64_t opened_us;          /* when it, or a partition's, was last opened */
    int64_t acked_us;           /* when it last acknowledged anything */
    bool heard;                 /* acknowledged somebody else's, but our producer was not warm */
    struct breaker *partitions; /* each one's own */
    bool *partitions_heard;
    int32_t partition_count; /* 0 = not known */
    int32_t open_partitions;
};

/* The handle is the publisher's to make and destroy. */
MUST_CHECK struct topic *topic_new(struct publisher *publisher, struct metrics *metrics,
                                   const char *name);
void topic_free(struct topic *topic);

/* Opens the breaker of the whole topic; `why` is for the log. */
void topic_open(struct topic *topic, const char *why);
/* Kafka acknowledged a record of ours. */
void topic_acknowledged(struct topic *topic, int32_t partition);
/* Our producer can send: what others heard meanwhile counts. */
void topic_take_heard(struct topic *topic);
