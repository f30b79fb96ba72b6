/* What Kafka must be like before anything is published: the producer's settings, and the topics. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "obj.h"

#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <stddef.h>

struct config;

/* What a record may be larger than its body: key and headers. */
#define TOPICS_RECORD_OVERHEAD 65536

/* The settings of every producer of ours, the operator's included; NULL with *ret_reason (owned by
 * the caller). */
MUST_CHECK rd_kafka_conf_t *topics_producer_conf(const struct config *config, char **ret_reason);
/* Likewise for readers: no group, no commits, and an offset that is gone is an error. */
MUST_CHECK rd_kafka_conf_t *topics_reader_conf(const struct config *config, char **ret_reason);

/* A client with these settings, which are taken over; NULL with *ret_reason. Thread: any. */
MUST_CHECK rd_kafka_t *topics_handle_new(rd_kafka_type_t type, rd_kafka_conf_t *conf,
                                         char **ret_reason);
