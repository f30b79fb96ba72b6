/* What a delivery owns, from the request to the last who holds it. Called by delivery.c, and by the
 * pipeline while Kafka reads the body. Thread: the loop's. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "delivery_memory.h"

#include "address.h"
#include "clock.h"
#include "delivery.h"
#include "directory.h"

struct delivery *delivery_new(struct delivery_env *env, const struct inbound *in)
{
    struct delivery *d = xmalloc(sizeof *d);
    memset(d, 0, offsetof(struct delivery, buffer)); /* the two big buffers need no zeroes */
    memset(&d->checks, 0, sizeof *d - offsetof(struct delivery, checks));
    d->buffer.len = 0;
    d->challenge.len = 0;
    d->magic = DELIVERY_MAGIC;
    d->env = env;
    d->in = in;
    d->holds = 1;
    d->directory = env->directory ? directory_ref(env->directory) : NULL;
    static const struct networks none;
    address_find_source(env->proxies ? env->proxies : &none, in, d->source);
    d->received_wall_us = in->received_wall_us;
    d->started_us = clock_mono_us() - in->age_us;
    d->deadline_us = d->started_us + env->answer_us;
    d->receipt = (struct delivery_receipt){.partition = -1, .offset = -1};
    list_init(&d->node);
    list_init(&d->followers);
    return d;
}

/* W3C Trace Context 1: 2-32-16-2 hex digits; anything else is left out rather than passed on. */
static struct slice traceparent_of(const struct inbound *in)
{
    static const char shape[] = "hh-hhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhh-hhhhhhhhhhhhhhhh-hh";
    struct slice value = {0};
    if (inbound_header_find(in, "traceparent", &value) != 1 || value.len != sizeof shape - 1)
        return (struct slice){0};
    for (size_t i = 0; i < value.len; i++) {
        bool hex = (value.ptr[i] >= '0' && value.ptr[i] <= '9') ||
                   (value.ptr[i] >= 'a' && value.ptr[i] <= 'f');
        if (shape[i] == 'h' ? !hex : value.ptr[i] != '-')
            return (struct slice){0};
    }
    return value;
}

static struct slice content_type_of(const struct delivery *d)
{
    const struct slice otherwise = d->platform->opaque ? SLICE_LITERAL("application/octet-stream")
                                                       : SLICE_LITERAL("application/json");
    struct slice value = otherwise;
    (void)inbound_header_find(d->in, "content-type", &value);
    return value.len <= 256 ? value : otherwise;
}

static struct slice copy(char **cursor, struct slice from)
{
    struct slice to = {*cursor, from.len};
    if (from.len > 0)
        memcpy(*cursor, from.ptr, from.len);
    *cursor += from.len;
    return to;
}

/* From here on nothing may point into the request or the JSON document: one block takes what is
 * kept. */
static void keep_memory(struct delivery *d)
{
    struct slice traceparent = traceparent_of(d->in);
    struct slice content_type = content_type_of(d);
    d->memory = xmalloc(d->in->body.len + traceparent.len + content_type.len + d->event.type.len +
                        d->event.external_id.len + d->event.subject.len);
    char *cursor = d->memory;
    d->body = copy(&cursor, d->in->body);
    d->env->held_bytes += d->body.len;
    d->traceparent = copy(&cursor, traceparent);
    d->content_type = copy(&cursor, content_type);
    d->event.type = copy(&cursor, d->event.type);
    d->event.key_type.ptr = d->event.type.ptr; /* it or nothing */
    d->event.external_id = copy(&cursor, d->event.external_id);
    d->event.subject = copy(&cursor, d->event.subject);
    d->event.account = d->event.email = (struct slice){0};
    d->verification.timestamp = (struct slice){0};
}

void delivery_keep(struct delivery *d)
{
    d->id = event_id_of(d->workspace, slice_of(d->platform->name), d->event.key_type,
                        d->event.external_id);
    d->id_known = true;
    keep_memory(d);
    event_digest(d->body, d->body_sha256);
    d->in = NULL;
    d->json = NULL;
}

void delivery_hold(struct delivery *d)
{
    CHECK_OBJ(d, DELIVERY_MAGIC);
    d->holds++;
}

void delivery_release(struct delivery *d)
{
    CHECK_OBJ(d, DELIVERY_MAGIC);
    assert(d->holds > 0);
    if (--d->holds > 0)
        return;
    if (d->directory)
        directory_unref(d->directory);
    d->env->held_bytes -= d->body.len;
    free(d->memory);
    d->magic = 0;
    free(d);
}
