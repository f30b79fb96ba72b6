/* SHIPMENT: rows of the outbox on their way to Kafka, over a publisher on the drainer's loop: sends
 * them, waits in bounded time, and says how each one ended. Thread: the drainer's. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "outbox.h"
#include "publisher.h"

struct shipment;

struct shipment_end {
    enum publish_result result;
    int32_t partition; /* -1 = not known */
    int64_t offset;
};

/* Takes over the rows. */
MUST_CHECK struct shipment *shipment_new(struct loop *loop, struct publisher *publisher,
                                         struct topic *topic, struct outbox_rows *rows);
/* Returns when all are reported, or given up `wait_us` after the last was sent: then the publisher
 * is purged. Records that were too large together go again one by one. What is not sent by
 * `latest_us` (monotonic) is not tried: others may look for it in Kafka by then. */
void shipment_send(struct shipment *shipment, int64_t latest_us, int64_t wait_us);
const struct outbox_rows *shipment_rows(const struct shipment *shipment);
/* One for each row. */
const struct shipment_end *shipment_ends(const struct shipment *shipment);
/* Did any miss its deadline? */
bool shipment_is_late(const struct shipment *shipment);
/* It goes when librdkafka has let go of the last body. */
void shipment_free(struct shipment *shipment);
