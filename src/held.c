/* The records of held.h. What a receipt needs stands in the event's own headers already; the rest
 * is added under names that begin with `hookgate-held-` and left out again when the event is
 * parked. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "held.h"

#include "codec.h"
#include "directory.h"

#include <inttypes.h>
#include <stdio.h>

#define OWN_PREFIX "hookgate-held-"

void held_payload(const struct delivery *d, const char *topic, struct publish_record *ret,
                  struct held_buffer *buffer)
{
    record_of(d, ret, &buffer->record);
    snprintf(buffer->received, sizeof buffer->received, "%" PRId64, d->received_wall_us);
    record_add(ret, OWN_PREFIX "received", slice_of(buffer->received));
    record_add(ret, OWN_PREFIX "topic", slice_of(topic));
}

void held_marker(const struct delivery *d, const char *topic, int32_t partition, int64_t offset,
                 struct publish_record *ret, struct held_buffer *buffer)
{
    held_payload(d, topic, ret, buffer);
    ret->value = (struct slice){"", 0};
    snprintf(buffer->partition, sizeof buffer->partition, "%" PRId32, partition);
    snprintf(buffer->offset, sizeof buffer->offset, "%" PRId64, offset);
    snprintf(buffer->size, sizeof buffer->size, "%zu", d->body.len);
    size_t len;
    bool fits = codec_encode_hex(d->body_sha256, sizeof d->body_sha256, buffer->digest,
                                 sizeof buffer->digest, &len);
    assert(fits);
    record_add(ret, OWN_PREFIX "partition", slice_of(buffer->partition));
    record_add(ret, OWN_PREFIX "offset", slice_of(buffer->offset));
    record_add(ret, OWN_PREFIX "size", slice_of(buffer->size));
    record_add(ret, OWN_PREFIX "digest", slice_of(buffer->digest));
}

/* ---- back ---- */

static bool read_number(const struct reader_record *record, const char *name, int64_t *ret)
{
    struct slice text;
    char digits[24], *end;
    if (!reader_header(record, name, &text) || text.len == 0 || text.len >= sizeof digits)
        return false;
    memcpy(digits, text.ptr, text.len);
    digits[text.len] = '\0';
    *ret = strtoll(digits, &end, 10);
    return *end == '\0';
}

static bool read_id(const struct reader_record *record, const char *name, struct event_id *ret)
{
    struct slice text;
    return reader_header(record, name, &text) && event_id_parse(text, ret);
}

static bool read_place(const struct reader_record *record, struct held *held)
{
    int64_t partition;
    struct slice digest;
    size_t len;
    if (!read_number(record, OWN_PREFIX "partition", &partition) ||
        !read_number(record, OWN_PREFIX "offset", &held->offset) ||
        !read_number(record, OWN_PREFIX "size", &held->size) ||
        !reader_header(record, OWN_PREFIX "digest", &digest) ||
        !codec_decode_hex(digest, CODEC_LOWER_HEX, held->digest, sizeof held->digest, &len) ||
        len != sizeof held->digest || partition < 0 || partition > INT32_MAX)
        return false;
    held->partition = (int32_t)partition;
    return true;
}

/* The event's own. A name that is too long to be packed was written by somebody else. */
static bool is_kept(const char *name)
{
    return strncmp(name, OWN_PREFIX, strlen(OWN_PREFIX)) != 0 && strlen(name) <= UINT16_MAX;
}

static size_t headers_size(const struct reader_record *record)
{
    size_t size = 0;
    const char *name;
    struct slice value;
    for (size_t i = 0; reader_header_at(record, i, &name, &value); i++)
        size += is_kept(name) ? record_header_size(name, value) : 0;
    return size;
}

static struct slice put_headers(char *at, const struct reader_record *record)
{
    char *begin = at;
    const char *name;
    struct slice value;
    for (size_t i = 0; reader_header_at(record, i, &name, &value); i++) {
        if (is_kept(name))
            at = record_put_header(at, name, value);
    }
    return (struct slice){begin, (size_t)(at - begin)};
}

static struct slice copy(char **at, struct slice bytes)
{
    char *begin = *at;
    if (bytes.len > 0)
        memcpy(begin, bytes.ptr, bytes.len);
    *at += bytes.len;
    return (struct slice){begin, bytes.len};
}

bool held_read(const struct reader_record *record, bool is_marker, struct held *ret)
{
    struct held held = {.partition = -1, .offset = -1};
    struct event_id integration;
    if (!read_id(record, "ce_id", &held.id) ||
        !read_id(record, "hookgate-integration", &integration) ||
        !reader_header(record, "hookgate-workspace", &held.workspace) ||
        !reader_header(record, "hookgate-platform", &held.platform) ||
        !reader_header(record, "ce_type", &held.type) ||
        !reader_header(record, "hookgate-external-id", &held.external_id) ||
        !reader_header(record, OWN_PREFIX "topic", &held.topic) ||
        !read_number(record, OWN_PREFIX "received", &held.received_wall_us) ||
        (is_marker && !read_place(record, &held)))
        return false;
    memcpy(held.integration, integration.bytes, sizeof held.integration);
    if (!is_marker) {
        held.size = (int64_t)record->value.len;
        event_digest(record->value, held.digest);
    }
    held.memory =
        xmalloc(held.workspace.len + held.platform.len + held.type.len + held.external_id.len +
                held.topic.len + record->key.len + headers_size(record) + record->value.len);
    char *at = held.memory;
    held.workspace = copy(&at, held.workspace);
    held.platform = copy(&at, held.platform);
    held.type = copy(&at, held.type);
    held.external_id = copy(&at, held.external_id);
    held.topic = copy(&at, held.topic);
    held.key = copy(&at, record->key);
    held.headers = put_headers(at, record);
    at += held.headers.len;
    held.body = copy(&at, record->value);
    *ret = held;
    return true;
}

void held_release(struct held *held)
{
    free(held->memory);
    held->memory = NULL;
}
