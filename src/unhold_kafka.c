/* What Kafka says of the holding topics, behind unhold_parts.h: whether it answers at all, and what
 * is missing, is told to the loops and to topics_watch.c. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "clock.h"
#include "gate.h"
#include "log.h"
#include "unhold_parts.h"

#define SECOND INT64_C(1000000)
#define KAFKA_US SECOND
#define TELL_EVERY_US (2 * SECOND)
#define MISS_EVERY_US SECOND
/* A broker that has just come up, or a topic that has just been made, may be unknown for a moment.
 */
#define MISSING_US (2 * SECOND)
#define LONG_AGO (INT64_MIN / 2)

/* A loop whose holding topic's breaker is open can't hear it otherwise. */
static void tell_contact(struct unhold_kafka *kafka)
{
    if (gate_is_open(kafka->options->gate) || kafka->contact_us - kafka->told_us < TELL_EVERY_US)
        return;
    kafka->told_us = kafka->contact_us;
    kafka->options->on_kafka(kafka->options->context);
}

/* A topic or a partition is not there. */
static void miss(struct unhold_kafka *kafka)
{
    int64_t now = clock_mono_us();
    kafka->contact_us = now; /* Kafka has answered */
    kafka->looked_us = LONG_AGO;
    if (now - kafka->missed_us < MISS_EVERY_US)
        return;
    kafka->missed_us = now;
    kafka->options->on_missing(kafka->options->context);
}

bool unhold_kafka_said(struct unhold_kafka *kafka, enum reader_result result)
{
    kafka->is_silent = result == READER_LATE;
    if (result == READER_UNKNOWN)
        miss(kafka);
    if (result == READER_OK) {
        kafka->contact_us = clock_mono_us();
        kafka->told = false;
        tell_contact(kafka);
        return true;
    }
    if (!kafka->told)
        log_event(LOG_WARNING, "unhold_kafka", "what is held can't be read now: %s",
                  reader_reason(kafka->reader));
    kafka->told = true;
    return false;
}

bool unhold_kafka_bounds(struct unhold_kafka *kafka, struct place *place, int64_t *ret_low)
{
    return unhold_kafka_said(kafka,
                             reader_bounds(kafka->reader, place->topic, place->partition,
                                           clock_mono_us() + KAFKA_US, ret_low, &place->end));
}

bool unhold_kafka_partitions(struct unhold_kafka *kafka, struct held_topic *topic,
                             int32_t *ret_count)
{
    *ret_count = 0;
    enum reader_result result =
        reader_partitions(kafka->reader, topic->name, clock_mono_us() + KAFKA_US, ret_count);
    if (result != READER_UNKNOWN) {
        topic->missing_us = 0;
        return unhold_kafka_said(kafka, result);
    }
    if (topic->missing_us == 0) {
        topic->missing_us = clock_mono_us();
        log_event(LOG_WARNING, "held_missing", "topic %s does not exist", topic->name);
    }
    kafka->is_silent = false;
    miss(kafka);
    return !topic->is_markers || clock_mono_us() - topic->missing_us >= MISSING_US;
}
