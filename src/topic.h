/* TOPIC: a Kafka topic as one publisher sees it: its partitions, and whether a record may be sent
 * to it now. It has a breaker, and each of its partitions too:
 *
 *   a missed deadline opens the topic's, or the partition's alone if the topic has acknowledged
 *   something since: one partition without a leader does not stop the others;
 *   an acknowledgement closes both, be it of this publisher or one that the drainer had
 *   (topic_heard()): events do not have to probe, because what is parked does.
 *
 * publisher_topic() makes topics; they live as long as their publisher. Thread: its loop's. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "slice.h"

#include <stdbool.h>
#include <stdint.h>

struct topic;

const char *topic_name(const struct topic *topic);
/* The topic was found to be as it must (topics_ensure.h) and has so many partitions; 0 = it must
 * not be used. Before the first check nothing is sent to it. */
void topic_checked(struct topic *topic, int32_t partitions);

/* May a record with this key be sent now? While a breaker is open: no, but as a trial after a long
 * time, for which this call is taken. */
bool topic_admits(struct topic *topic, struct slice key);
/* Is the topic as it must be, and its own breaker closed? Single partitions' may be open. */
bool topic_flows(const struct topic *topic);
/* Where the key leads; -1 = not known. */
int32_t topic_partition(const struct topic *topic, struct slice key);
/* Somebody else's record was acknowledged by this partition: its breaker and the topic's close, as
 * soon as the present producer can send. -1 = nothing is parked for the topic any more: so all that
 * was has been acknowledged, and all its breakers close, unless one was opened just now. */
void topic_heard(struct topic *topic, int32_t partition);

/* A record that was sent at `sent_us` (monotonic) to this partition (-1 = not known) missed its
 * deadline: opens a breaker. */
void topic_missed(struct topic *topic, int32_t partition, int64_t sent_us);
