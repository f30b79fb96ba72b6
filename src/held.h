/* HELD: the two kinds of record that are written while Postgres is away, and back. A held payload
 * is the event's own record plus where it belongs; a marker has the same headers and no value, and
 * says where in its topic the event is. Pure. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "reader.h"
#include "record.h"

struct held_buffer {
    struct record_buffer record;
    char received[24], partition[16], offset[24], size[24], digest[65];
};

/* Fill *ret, which points into the delivery, `topic` and the buffer. */
void held_payload(const struct delivery *d, const char *topic, struct publish_record *ret,
                  struct held_buffer *buffer);
void held_marker(const struct delivery *d, const char *topic, int32_t partition, int64_t offset,
                 struct publish_record *ret, struct held_buffer *buffer);

/* A record read back, in memory of its own. */
struct held {
    struct event_id id;
    unsigned char integration[16];
    unsigned char digest[EVENT_DIGEST_SIZE];
    int64_t size, received_wall_us;
    int32_t partition; /* of a marker */
    int64_t offset;
    struct slice workspace, platform, type, external_id, topic;
    struct slice key, headers, body; /* of a payload; `headers` as mcp.webhook_outbox keeps them */
    char *memory;
};

/* False, with nothing to release, when the record is not one that we wrote. */
MUST_CHECK bool held_read(const struct reader_record *record, bool is_marker, struct held *ret);
void held_release(struct held *held);
