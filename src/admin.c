/* Answers of the private listener; see admin.h for the paths. Called by the edge on the loop that
 * serves the private listener, except admin_note_challenge(), which deliveries call on theirs. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "admin.h"

#include "clock.h"
#include "json.h"
#include "metrics.h"
#include "obj.h"
#include "rfc3339.h"

#include <stdatomic.h>
#include <stdio.h>

#define JSON_TYPE "application/json"
#define METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"
#define MAX_NOTES METRICS_MAX_PLATFORMS

/* Slots are taken once, by name, and never given back: platforms come from the configuration. */
static struct note {
    _Atomic(char *) platform; /* NULL = free */
    _Atomic int64_t wall_us;
} notes[MAX_NOTES];

/* NULL when there is none and, with `make`, no free one. */
static struct note *note_of(const char *platform, bool make)
{
    for (size_t i = 0; i < MAX_NOTES; i++) {
        char *name = atomic_load(&notes[i].platform);
        if (name == NULL && make) {
            char *mine = xstrdup(platform);
            if (atomic_compare_exchange_strong(&notes[i].platform, &name, mine))
                return &notes[i];
            free(mine); /* another thread took the slot; `name` is its platform now */
        }
        if (name == NULL)
            return NULL;
        if (strcmp(name, platform) == 0)
            return &notes[i];
    }
    return NULL;
}

void admin_note_challenge(const struct platform *platform)
{
    struct note *note = note_of(platform->name, true);
    if (note != NULL)
        atomic_store(&note->wall_us, clock_wall_us());
}

/* Adds the text as a JSON string. Texts are a configuration's: far shorter than the buffer. */
static void put_text(FILE *out, const char *text)
{
    char quoted[8192];
    size_t len = 0;
    if (!json_quote(quoted, sizeof(quoted), &len, slice_of(text)))
        fputs("null", out);
    else
        fwrite(quoted, 1, len, out);
}

static void put_url(FILE *out, const struct admin *admin, const struct platform *platform,
                    const char *word)
{
    char url[4096];
    int len =
        snprintf(url, sizeof(url), "%s/webhooks/%s%s%s", admin->public_url ? admin->public_url : "",
                 platform->name, word ? "/" : "", word ? word : "");
    if (len < 0 || (size_t)len >= sizeof(url))
        fputs("null", out);
    else
        put_text(out, url);
}

static void put_time(FILE *out, int64_t wall_us)
{
    char text[RFC3339_TEXT];
    rfc3339_format(wall_us, 0, text);
    fprintf(out, "\"%s\"", text);
}

struct reply {
    const char *allow; /* with a 405 */
    FILE *out;
    char *text;
    size_t len;
};

static void reply_open(struct reply *reply)
{
    reply->out = open_memstream(&reply->text, &reply->len);
    if (reply->out == NULL)
        abort();
}

static void reply_send(struct reply *reply, struct exchange *x, int status, const char *type)
{
    const struct exchange_header headers[] = {{"cache-control", "no-store"},
                                              {"allow", reply->allow}};
    if (fclose(reply->out) != 0)
        abort(); /* no memory */
    struct exchange_answer answer = {.status = status,
                                     .content_type = type,
                                     .body = {reply->text, reply->len},
                                     .headers = headers,
                                     .header_count = status == 405 ? 2 : 1};
    exchange_answer(x, &answer);
    free(reply->text);
}

static void answer_error(struct exchange *x, int status, const char *code, const char *message)
{
    struct reply reply = {0};
    reply_open(&reply);
    fprintf(reply.out, "{\"error\":{\"code\":\"%s\",\"message\":\"%s\"}}\n", code, message);
    reply_send(&reply, x, status, JSON_TYPE);
}

static void answer_method(struct exchange *x, const char *allow, const char *message)
{
    struct reply reply = {.allow = allow};
    reply_open(&reply);
    fprintf(reply.out, "{\"error\":{\"code\":\"method_not_allowed\",\"message\":\"%s\"}}\n",
            message);
    reply_send(&reply, x, 405, JSON_TYPE);
}

static void answer_metrics(struct exchange *x)
{
    struct reply reply = {0};
    reply_open(&reply);
    metrics_render(reply.out);
    reply_send(&reply, x, 200, METRICS_TYPE);
}

static void answer_live(struct exchange *x)
{
    struct reply reply = {0};
    reply_open(&reply);
    fputs("{\"live\":true}\n", reply.out);
    reply_send(&reply, x, 200, JSON_TYPE);
}

static void answer_ready(struct exchange *x, const struct admin *admin)
{
    const char *reasons[ADMIN_MAX_REASONS];
    size_t count =
        admin->not_ready ? admin->not_ready(admin->context, reasons, ADMIN_MAX_REASONS) : 0;
    struct reply reply = {0};
    reply_open(&reply);
    if (count == 0) {
        fputs("{\"ready\":true}\n", reply.out);
    } else {
        fputs("{\"ready\":false,\"reasons\":[", reply.out);
        for (size_t i = 0; i < count && i < ADMIN_MAX_REASONS; i++) {
            fputs(i > 0 ? "," : "", reply.out);
            put_text(reply.out, reasons[i]);
        }
        fputs("]}\n", reply.out);
    }
    reply_send(&reply, x, count == 0 ? 200 : 503, JSON_TYPE);
}

/* `validated` is null where the platform has no challenge, so that nothing could be seen. */
static void put_validation(FILE *out, const struct platform *platform)
{
    const struct note *note = note_of(platform->name, false);
    int64_t wall_us = note ? atomic_load(&note->wall_us) : 0;
    const char *validated = platform->challenge_count == 0 ? "null" : wall_us ? "true" : "false";
    fprintf(out, ",\"validated\":%s,\"last_validated_at\":", validated);
    if (wall_us)
        put_time(out, wall_us);
    else
        fputs("null", out);
    fputs(",\"validation_scope\":\"process\"", out);
}

static void answer_endpoint(struct exchange *x, const struct admin *admin,
                            const struct platform *platform)
{
    struct reply reply = {0};
    reply_open(&reply);
    FILE *out = reply.out;
    fputs("{\"platform\":", out);
    put_text(out, platform->name);
    fputs(",\"url\":", out);
    put_url(out, admin, platform, NULL);
    fputs(",\"endpoint_url\":", out);
    put_url(out, admin, platform, "{endpoint}");
    fputs(",\"aliases\":[", out);
    for (size_t i = 0; i < platform->alias_count; i++) {
        fputs(i > 0 ? "," : "", out);
        put_url(out, admin, platform, platform->aliases[i]);
    }
    fputs("],\"events\":[", out);
    for (size_t i = 0; i < platform->event_count; i++) {
        fputs(i > 0 ? "," : "", out);
        put_text(out, platform->events[i].type);
    }
    fputs("]", out);
    put_validation(out, platform);
    fputs("}\n", out);
    reply_send(&reply, x, 200, JSON_TYPE);
}

/* {platform} of /webhooks/{platform}/endpoint-url; empty when the path is another. */
static struct slice endpoint_platform(struct slice path)
{
    static const struct slice before = {"/webhooks/", sizeof("/webhooks/") - 1};
    static const char after[] = "/endpoint-url";
    if (!slice_starts(path, before))
        return (struct slice){0};
    struct slice name = slice_from(path, before.len);
    const char *slash = name.len > 0 ? memchr(name.ptr, '/', name.len) : NULL;
    if (slash == NULL || !slice_is(slice_from(name, (size_t)(slash - name.ptr)), after))
        return (struct slice){0};
    name.len = (size_t)(slash - name.ptr);
    return name;
}

void admin_handle(struct exchange *x, const struct inbound *in, void *context)
{
    const struct admin *admin = context;
    struct slice name = endpoint_platform(in->path);
    bool metrics = slice_is(in->path, "/metrics"), live = slice_is(in->path, "/livez"),
         ready = slice_is(in->path, "/readyz"), reload = slice_is(in->path, "/reload");
    const struct platform *platform = name.len > 0 ? platforms_find(admin->platforms, name) : NULL;
    if (!metrics && !live && !ready && !reload && platform == NULL)
        answer_error(x, 404, "not_found", "There is no such page.");
    else if (reload && !slice_is(in->method, "POST"))
        answer_method(x, "POST", "A reload is asked for with POST.");
    else if (reload)
        admin->reload(admin->context, x);
    else if (!slice_is(in->method, "GET") && !slice_is(in->method, "HEAD"))
        answer_method(x, "GET, HEAD", "This page is read with GET.");
    else if (metrics)
        answer_metrics(x);
    else if (live)
        answer_live(x);
    else if (ready)
        answer_ready(x, admin);
    else
        answer_endpoint(x, admin, platform);
}
