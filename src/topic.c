/* A topic's breakers and partitions behind topic.h. Called by the publisher and by whoever sends
 * over it. Thread: the publisher's loop. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "topic.h"

#include "clock.h"
#include "log.h"
#include "metrics.h"
#include "publisher.h"
#include "publisher_parts.h"

#include <stdio.h>

/* The drainer closes breakers within a second of Kafka's return. Where it can't (nothing is parked
 * because Postgres is away too), an event tries, but seldom: it may cost its batch a second. */
static const struct breaker_patience patience = {.first_us = 30000000, .most_us = 300000000};

/* What was parked when a breaker opened is committed after so long, so that an empty outbox says
 * something. */
#define SETTLED_US 2000000

struct topic *topic_new(struct publisher *publisher, struct metrics *metrics, const char *name)
{
    struct topic *topic = xcalloc(1, sizeof *topic);
    topic->publisher = publisher;
    topic->metrics = metrics;
    topic->name = xstrdup(name);
    list_init(&topic->node);
    return topic;
}

void topic_free(struct topic *topic)
{
    free(topic->partitions);
    free(topic->partitions_heard);
    free(topic->name);
    free(topic);
}

const char *topic_name(const struct topic *topic)
{
    return topic->name;
}

void topic_checked(struct topic *topic, int32_t partitions)
{
    topic->checked = partitions > 0;
    if (partitions <= topic->partition_count)
        return;
    size_t old = (size_t)topic->partition_count, count = (size_t)partitions;
    topic->partitions = xrealloc(topic->partitions, count * sizeof *topic->partitions);
    topic->partitions_heard = xrealloc(topic->partitions_heard, count * sizeof(bool));
    memset(topic->partitions + old, 0, (count - old) * sizeof *topic->partitions);
    memset(topic->partitions_heard + old, 0, (count - old) * sizeof(bool));
    topic->partition_count = partitions;
}

/* As librdkafka's partitioner murmur2_random does for a record that has a key; ours all have one.
 */
int32_t topic_partition(const struct topic *topic, struct slice key)
{
    if (topic->partition_count == 0 || key.len == 0)
        return -1;
    return rd_kafka_msg_partitioner_murmur2_random(NULL, key.ptr, key.len, topic->partition_count,
                                                   NULL, NULL);
}

static void count_open(struct topic *topic, int delta, const char *event, const char *text)
{
    metrics_add(topic->metrics, METRIC_BREAKERS_OPEN, delta);
    if (delta > 0)
        metrics_add(topic->metrics, METRIC_BROKER_OPENED, 1);
    log_event(delta > 0 ? LOG_WARNING : LOG_INFO, event, "topic %s: %s", topic->name, text);
}

void topic_open(struct topic *topic, const char *why)
{
    topic->heard = false;
    topic->opened_us = clock_mono_us();
    if (breaker_fail(&topic->breaker, &patience, clock_mono_us()))
        count_open(topic, 1, "broker_breaker_opened", why);
}

static void open_partition(struct topic *topic, int32_t partition)
{
    topic->partitions_heard[partition] = false;
    topic->opened_us = clock_mono_us();
    if (!breaker_fail(&topic->partitions[partition], &patience, clock_mono_us()))
        return;
    topic->open_partitions++;
    char text[128];
    snprintf(text, sizeof text,
             "partition %d alone does not acknowledge in time; its events are parked",
             (int)partition);
    count_open(topic, 1, "broker_breaker_opened", text);
}

/* Kafka acknowledged a record of this partition. */
static void close_breakers(struct topic *topic, int32_t partition)
{
    topic->heard = false;
    if (topic->breaker.open && breaker_close(&topic->breaker))
        count_open(topic, -1, "broker_breaker_closed", "Kafka acknowledges again");
    if (partition < 0 || partition >= topic->partition_count)
        return;
    topic->partitions_heard[partition] = false;
    if (topic->partitions[partition].open && breaker_close(&topic->partitions[partition])) {
        topic->open_partitions--;
        count_open(topic, -1, "broker_breaker_closed", "a partition acknowledges again");
    }
}

void topic_acknowledged(struct topic *topic, int32_t partition)
{
    topic->acked_us = clock_mono_us();
    if (topic->breaker.open || topic->open_partitions > 0)
        close_breakers(topic, partition);
}

void topic_missed(struct topic *topic, int32_t partition, int64_t sent_us)
{
    if (topic->acked_us > sent_us && partition >= 0 && partition < topic->partition_count)
        open_partition(topic, partition);
    else
        topic_open(topic, "Kafka did not acknowledge in time; events are parked until it does");
}

/* Closed, or open for so long that somebody has to try. */
static bool admits(struct topic *topic, struct breaker *breaker)
{
    int64_t now = clock_mono_us();
    if (!breaker->open)
        return true;
    if (!publisher_is_up(topic->publisher) || !breaker_probe_is_due(breaker, now))
        return false;
    (void)breaker_fail(breaker, &patience, now); /* until its acknowledgement says otherwise */
    return true;
}

bool topic_admits(struct topic *topic, struct slice key)
{
    if (!topic->checked || !admits(topic, &topic->breaker))
        return false;
    if (topic->open_partitions == 0)
        return true;
    int32_t partition = topic_partition(topic, key);
    return partition < 0 || admits(topic, &topic->partitions[partition]);
}

bool topic_flows(const struct topic *topic)
{
    return topic->checked && !topic->breaker.open;
}

void topic_take_heard(struct topic *topic)
{
    for (int32_t i = 0; i < topic->partition_count; i++) {
        if (topic->partitions_heard[i])
            close_breakers(topic, i);
    }
    if (topic->heard)
        close_breakers(topic, -1);
}

void topic_heard(struct topic *topic, int32_t partition)
{
    bool all = partition < 0;
    if (!topic->breaker.open && topic->open_partitions == 0)
        return;
    if (all && clock_mono_us() - topic->opened_us < SETTLED_US)
        return;
    topic->heard = true;
    for (int32_t i = 0; i < topic->partition_count; i++)
        topic->partitions_heard[i] |= all || i == partition;
    if (publisher_is_up(topic->publisher))
        topic_take_heard(topic);
}
