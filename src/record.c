/* The envelope of record.h. Headers by CloudEvents' Kafka binding 1.0.2, section 3.2; `traceparent`
 * stands as a plain header, as OpenTelemetry's propagators read it. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "record.h"

#include "directory.h"

#include <endian.h>
#include <stdio.h>

void record_add(struct publish_record *record, const char *name, struct slice value)
{
    assert(record->header_count < PUBLISH_HEADERS_MAX);
    record->headers[record->header_count++] = (struct publish_header){name, value};
}

void record_of(const struct delivery *d, struct publish_record *ret, struct record_buffer *buffer)
{
    /* Workspace and external id: all events of one meeting share a partition. */
    int key_len =
        snprintf(buffer->key, sizeof buffer->key, "%.*s:%.*s", (int)d->workspace.len,
                 d->workspace.ptr, (int)d->event.external_id.len, d->event.external_id.ptr);
    assert(key_len > 0 && (size_t)key_len < sizeof buffer->key);
    event_id_format(d->id, buffer->id);
    snprintf(buffer->source, sizeof buffer->source, "/webhooks/%s", d->platform->name);
    rfc3339_format(d->event.time_wall_us ? d->event.time_wall_us : d->received_wall_us, 6,
                   buffer->time);
    rfc3339_format(d->received_wall_us, 6, buffer->received);

    ret->key = (struct slice){buffer->key, (size_t)key_len};
    ret->value = d->body;
    ret->wall_us = d->received_wall_us;
    ret->header_count = 0;
    record_add(ret, "ce_specversion", SLICE_LITERAL("1.0"));
    record_add(ret, "ce_id", slice_of(buffer->id));
    record_add(ret, "ce_source", slice_of(buffer->source));
    record_add(ret, "ce_type", d->event.type);
    record_add(ret, "ce_subject", d->event.subject.len ? d->event.subject : d->event.external_id);
    record_add(ret, "ce_time", slice_of(buffer->time));
    record_add(ret, "content-type", d->content_type);
    if (d->traceparent.len > 0)
        record_add(ret, "traceparent", d->traceparent);
    record_add(ret, "hookgate-workspace", d->workspace);
    record_add(ret, "hookgate-integration", slice_of(d->integration->id));
    record_add(ret, "hookgate-platform", slice_of(d->platform->name));
    record_add(ret, "hookgate-external-id", d->event.external_id);
    record_add(ret, "hookgate-received-at", slice_of(buffer->received));
    /* Which credential proved it; an endpoint's token alone has no secret beside it. */
    record_add(ret, "hookgate-secret",
               d->verification.secret ? slice_of(secret_label(d->verification.secret))
                                      : SLICE_LITERAL("endpoint-token"));
}

#define NAME_LEN sizeof(uint16_t)
#define VALUE_LEN sizeof(uint32_t)

static char *append(char *to, const void *bytes, size_t len)
{
    if (len > 0)
        memcpy(to, bytes, len);
    return to + len;
}

size_t record_header_size(const char *name, struct slice value)
{
    return NAME_LEN + strlen(name) + VALUE_LEN + value.len;
}

char *record_put_header(char *to, const char *name, struct slice value)
{
    size_t name_len = strlen(name);
    assert(name_len <= UINT16_MAX && value.len <= UINT32_MAX);
    uint16_t name_wire = htobe16((uint16_t)name_len);
    uint32_t value_wire = htobe32((uint32_t)value.len);
    to = append(to, &name_wire, NAME_LEN);
    to = append(to, name, name_len);
    to = append(to, &value_wire, VALUE_LEN);
    return append(to, value.ptr, value.len);
}

char *record_pack(const struct publish_record *record, size_t *ret_len)
{
    const struct publish_header *headers = record->headers;
    size_t len = 0;
    for (size_t i = 0; i < record->header_count; i++)
        len += record_header_size(headers[i].name, headers[i].value);
    char *packed = xmalloc(len), *p = packed;
    for (size_t i = 0; i < record->header_count; i++)
        p = record_put_header(p, headers[i].name, headers[i].value);
    *ret_len = len;
    return packed;
}

static bool take(struct slice *from, size_t len, struct slice *ret)
{
    if (from->len < len)
        return false;
    *ret = (struct slice){from->ptr, len};
    *from = slice_from(*from, len);
    return true;
}

/* One header off the front; its name is copied to *names, which moves on. */
static bool unpack_header(struct slice *packed, struct publish_header *ret, char **names)
{
    struct slice len, name;
    uint16_t name_wire;
    uint32_t value_wire;
    if (!take(packed, NAME_LEN, &len))
        return false;
    memcpy(&name_wire, len.ptr, NAME_LEN);
    if (!take(packed, be16toh(name_wire), &name) || !take(packed, VALUE_LEN, &len))
        return false;
    memcpy(&value_wire, len.ptr, VALUE_LEN);
    if (!take(packed, be32toh(value_wire), &ret->value))
        return false;
    ret->name = *names;
    *names = append(*names, name.ptr, name.len);
    *(*names)++ = '\0'; /* the length before it was longer than this */
    return true;
}

bool record_unpack(struct slice packed, struct publish_record *ret, char **ret_names)
{
    char *names = xmalloc(packed.len), *p = names;
    ret->header_count = 0;
    bool good = true;
    while (good && packed.len > 0) {
        good = ret->header_count < PUBLISH_HEADERS_MAX &&
               unpack_header(&packed, &ret->headers[ret->header_count], &p);
        ret->header_count += good;
    }
    *ret_names = good ? names : NULL;
    if (!good)
        free(names);
    return good;
}
