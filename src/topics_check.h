/* Whether a topic keeps what it acknowledges: replicas, min.insync.replicas, leader elections,
 * compaction, the size of records and whose time they carry. Asked of the broker, not assumed. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "problem.h"
#include "topics.h"

#include <stdint.h>

/* What the broker says of one topic. */
struct topics_facts {
    const char *name;
    int replicas; /* of its least replicated partition */
    int64_t min_insync_replicas, max_message_bytes;
    int64_t retention_ms, retention_bytes; /* -1 = records stay */
    const char *cleanup_policy;
    bool unclean_leader_election, log_append_time;
};

/* Judges: adds what is wrong to `problems`, or to `warnings` where kafka.allow_weak_durability lets
 * it pass; each with the command that mends it. Pure. */
void topics_judge(const struct config *config, const struct topics_facts *facts,
                  struct problems *problems, struct problems *warnings);

/* Asks for the topic's settings and judges them; false when no broker answered in time. */
MUST_CHECK bool topics_check(rd_kafka_t *handle, const struct config *config, const char *name,
                             int replicas, int timeout_ms, struct problems *problems,
                             struct problems *warnings);
