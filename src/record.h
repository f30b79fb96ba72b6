/* RECORD: a verified delivery as a Kafka record: CloudEvents 1.0 in binary mode. The value is the
 * body as received; key and headers say what it is, so that a consumer need not parse it to route
 * it. Pure. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "delivery.h"
#include "publisher.h"
#include "rfc3339.h"

struct record_buffer {
    char key[EVENT_EXTERNAL_ID_MAX + 128];
    char id[EVENT_ID_TEXT];
    char source[128];
    char time[RFC3339_TEXT];
    char received[RFC3339_TEXT];
};

/* Fills *ret, which points into the delivery and the buffer. */
void record_of(const struct delivery *d, struct publish_record *ret, struct record_buffer *buffer);

/* One more header; the record points to name and value. */
void record_add(struct publish_record *record, const char *name, struct slice value);

/* The headers as the outbox keeps them: per header the length of the name (2 bytes, big-endian),
 * the name, the length of the value (4 bytes), the value. Returns the bytes, owned by the caller.
 */
MUST_CHECK char *record_pack(const struct publish_record *record, size_t *ret_len);
/* One of them: its length, and the place behind it. */
size_t record_header_size(const char *name, struct slice value);
char *record_put_header(char *to, const char *name, struct slice value);
/* Back again: names and values point into `packed` and *ret_names, which is owned by the caller
 * (NULL and false when the bytes are not what record_pack() makes). */
MUST_CHECK bool record_unpack(struct slice packed, struct publish_record *ret, char **ret_names);
