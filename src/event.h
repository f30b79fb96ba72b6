/* What a verified delivery says: the facts that dedup, routing and the Kafka record need. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "obj.h"
#include "slice.h"

#include <stdint.h>

#define EVENT_TYPE_MAX 128
#define EVENT_EXTERNAL_ID_MAX 512
#define EVENT_ACCOUNT_MAX 320 /* an e-mail address has at most 254 bytes */

/* 16 bytes, as RFC 9562 orders them. */
struct event_id {
    unsigned char bytes[16];
};

struct event {
    struct slice type;     /* as the platform's file spells it */
    struct slice key_type; /* `type` in the dedup key, or empty: see extract.h */
    struct slice
        external_id;      /* the platform's id of the thing, or the body's digest; never empty */
    struct slice account; /* account id as the payload says, empty when absent */
    struct slice email;   /* likewise, lower case */
    int64_t time_wall_us; /* the event's own time; 0 = not told */
    struct slice subject; /* ce_subject: external_id unless the file says otherwise */
    int series;           /* index of (platform, event type) in metrics */
};

/* UUIDv8 (RFC 9562 5.8) of SHA-256 over the dedup key's four parts, each prefixed by its length as
 * 4 bytes big-endian: every instance and every retry derives the same. */
struct event_id event_id_of(struct slice workspace, struct slice platform, struct slice type,
                            struct slice external_id);

#define EVENT_DIGEST_SIZE 32
/* SHA-256 of a body, for receipts and as the last resort of external ids. */
void event_digest(struct slice body, unsigned char ret[EVENT_DIGEST_SIZE]);

#define EVENT_ID_TEXT 37
/* 8-4-4-4-12 lower-case hex and a NUL. */
void event_id_format(struct event_id id, char text[EVENT_ID_TEXT]);
/* The other way; false when it is not exactly such a text. */
MUST_CHECK bool event_id_parse(struct slice text, struct event_id *ret);
