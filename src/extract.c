/* EXTRACT: what a verified body says, by the platform's rules: type, external id, account, e-mail,
 * time. Called by delivery.c once per delivery, on the event loop; memory only, nothing allocated.
 *
 * An id never becomes empty and never holds a control character (Postgres takes no NUL); a part
 * that is missing, or whose characters are not all known, makes its rule fall to the next, and the
 * body's digest is the last resort. The document is NULL where the platform's body is opaque: then
 * no rule has a pointer. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "extract.h"

#include "codec.h"
#include "freshness.h"
#include "json.h"
#include "message.h"

#include <stdio.h>

#define EMAIL_MAX 254

struct extraction {
    const struct platform *platform;
    const struct inbound *in;
    const struct json *json;
    const struct signature_scheme *matched;
    struct extract_buffer *buffer;
    struct event *event;
    bool type_is_free; /* whoever replays the request may change it */
    const char *detail;
};

static bool is_clean(struct slice text)
{
    for (size_t i = 0; i < text.len; i++) {
        if ((unsigned char)text.ptr[i] < 0x20 || text.ptr[i] == 0x7f)
            return false;
    }
    return true;
}

/* Headers promise no encoding, so only visible ASCII may go into an id. */
static bool is_visible_ascii(struct slice text)
{
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < 0x20 || text.ptr[i] > 0x7e)
            return false;
    }
    return text.len > 0;
}

static bool append(struct extract_buffer *buffer, struct slice text)
{
    if (text.len > sizeof buffer->text - buffer->len)
        return false;
    memcpy(buffer->text + buffer->len, text.ptr, text.len);
    buffer->len += text.len;
    return true;
}

/* Signed by the sender under another of its schemes, so not by the one that proved this request. */
static bool is_added(const struct extraction *x, const char *header)
{
    if (x->matched == NULL || message_covers(x->platform, x->matched, header))
        return false;
    for (size_t i = 0; i < x->platform->scheme_count; i++) {
        if (message_covers(x->platform, &x->platform->schemes[i], header))
            return true;
    }
    return false;
}

/* Signed, or sent by somebody who showed the secret itself (a token, a static header). */
static bool is_vouched_for(const struct extraction *x, const char *header)
{
    return x->matched == NULL || x->matched->message_count == 0 ||
           message_covers(x->platform, x->matched, header);
}

/* OUTCOME_NONE with *ret empty when nothing usable is there. */
static enum outcome find_value(struct extraction *x, const struct value_rule *rule,
                               struct slice *ret)
{
    struct slice text = {"", 0};
    *ret = text;
    if (rule->source == FROM_TEXT)
        *ret = slice_of(rule->name);
    if (rule->source == FROM_HEADER) {
        if (!is_added(x, rule->name) && inbound_header_find(x->in, rule->name, &text) == 1 &&
            is_visible_ascii(text))
            *ret = text;
        return OUTCOME_NONE;
    }
    if (rule->source != FROM_JSON)
        return OUTCOME_NONE;
    if (rule->means != NULL) {
        if (json_exists(x->json, rule->name))
            *ret = slice_of(rule->means);
        return OUTCOME_NONE;
    }
    enum json_found found = json_text_at(x->json, rule->name, &text);
    if (found != JSON_REPEATED && (found != JSON_FOUND || is_clean(text))) {
        if (found == JSON_FOUND)
            *ret = text;
        return OUTCOME_NONE;
    }
    x->detail = rule->name;
    return found == JSON_REPEATED ? OUTCOME_JSON_REPEATED_KEY : OUTCOME_FIELD_MISSING;
}

/* The first of the values that is there. */
static enum outcome find_first(struct extraction *x, const struct value_rule *rules, size_t count,
                               size_t max, struct slice *ret)
{
    *ret = (struct slice){"", 0};
    for (size_t i = 0; i < count; i++) {
        enum outcome outcome = find_value(x, &rules[i], ret);
        if (outcome != OUTCOME_NONE)
            return outcome;
        if (ret->len > max) {
            x->detail = rules[i].name;
            return OUTCOME_FIELD_TOO_LONG;
        }
        if (ret->len > 0)
            break;
    }
    return OUTCOME_NONE;
}

/* What follows `meeting.`, or all of it under `*`, in a type that no file spells out. */
static bool is_type_rest(struct slice text)
{
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        bool allowed = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '.' || c == '_' || c == ':' || c == '-' || c == '/';
        if (!allowed)
            return false;
    }
    return text.len > 0;
}

static const struct event_rule *find_event(const struct platform *platform, struct slice type)
{
    for (size_t i = 0; i < platform->event_count; i++) {
        const struct event_rule *rule = &platform->events[i];
        for (size_t k = 0; k < rule->spelling_count; k++) {
            if (slice_equal(rule->spellings[k], type))
                return rule;
        }
        if (rule->spelling_count == 0 && slice_starts(type, rule->beginning) &&
            is_type_rest(slice_from(type, rule->beginning.len)))
            return rule;
    }
    return NULL;
}

struct hold_check {
    const struct hold_rule *rule;
    bool held;
};

static bool is_among(struct slice text, const char *const *words, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (slice_is_nocase(text, words[i]))
            return true;
    }
    return false;
}

static void on_hold_value(struct slice text, void *context)
{
    struct hold_check *check = context;
    const struct hold_rule *rule = check->rule;
    if (rule->is_count > 0 ? is_among(text, rule->is, rule->is_count)
                           : !is_among(text, rule->is_not, rule->is_not_count))
        check->held = true;
}

static enum outcome check_holds(struct extraction *x, const struct event_rule *event)
{
    for (size_t i = 0; i < event->hold_count; i++) {
        struct hold_check check = {.rule = &event->holds[i]};
        enum json_found found =
            json_each_text_at(x->json, check.rule->pointer, on_hold_value, &check);
        if (found != JSON_REPEATED && !check.held)
            continue;
        x->detail = check.rule->pointer;
        return found == JSON_REPEATED ? OUTCOME_JSON_REPEATED_KEY : OUTCOME_IGNORED_INCOMPLETE;
    }
    return OUTCOME_NONE;
}

static enum outcome check_required(struct extraction *x, const struct event_rule *event)
{
    for (size_t i = 0; i < event->required_count; i++) {
        const struct required_rule *required = &event->required[i];
        struct slice text = {"", 0};
        for (size_t k = 0; k < required->any_count && text.len == 0; k++) {
            struct value_rule rule = {.source = FROM_JSON, .name = required->any[k]};
            enum outcome outcome = find_value(x, &rule, &text);
            if (outcome != OUTCOME_NONE)
                return outcome;
        }
        if (text.len == 0) {
            x->detail = required->any[0];
            return OUTCOME_FIELD_MISSING;
        }
    }
    return OUTCOME_NONE;
}

/* Parts are joined with ':'; a ':' or '%' inside one is escaped, so that (a:b, c) and (a, b:c)
 * differ. */
static bool append_part(struct extract_buffer *buffer, struct slice part)
{
    for (size_t i = 0; i < part.len; i++) {
        struct slice piece = part.ptr[i] == ':'   ? SLICE_LITERAL("%3A")
                             : part.ptr[i] == '%' ? SLICE_LITERAL("%25")
                                                  : (struct slice){part.ptr + i, 1};
        if (!append(buffer, piece))
            return false;
    }
    return true;
}

static bool has_digest(const struct id_rule *rule)
{
    for (size_t i = 0; i < rule->part_count; i++) {
        if (rule->parts[i].source == FROM_BODY_DIGEST)
            return true;
    }
    return false;
}

#define SCRATCH 80 /* a digest in hex, or a number */

static struct slice hex_of(const unsigned char digest[EVENT_DIGEST_SIZE], char scratch[SCRATCH])
{
    size_t len;
    bool fits = codec_encode_hex(digest, EVENT_DIGEST_SIZE, scratch, SCRATCH, &len);
    assert(fits);
    (void)fits;
    return (struct slice){scratch, len};
}

/* All values that a pointer with `*` leads to, for what carries several events at once: named by
 * the first alone, it would hide another batch that begins with it. */
struct value_set {
    const struct json *json;
    struct slice first;
    size_t count;
    bool clean, whole;
    unsigned char digests[2][EVENT_DIGEST_SIZE]; /* of those before, of this one */
};

static void on_set_value(struct slice text, void *context)
{
    struct value_set *set = context;
    if (set->count++ == 0)
        set->first = text;
    set->clean &= is_clean(text);
    set->whole &= json_is_whole(set->json, text);
    if (set->count > PLATFORM_MAX_VALUES)
        return;
    event_digest(text, set->digests[1]);
    event_digest((struct slice){(const char *)set->digests, sizeof set->digests}, set->digests[0]);
}

static enum outcome find_all(struct extraction *x, const struct value_rule *part,
                             char scratch[SCRATCH], struct slice *ret)
{
    struct value_set set = {.json = x->json, .clean = true, .whole = true};
    enum json_found found = json_every_text_at(x->json, part->name, on_set_value, &set);
    if (found == JSON_ABSENT || found == JSON_WRONG_TYPE)
        return OUTCOME_NONE;
    x->detail = part->name;
    if (found == JSON_REPEATED)
        return OUTCOME_JSON_REPEATED_KEY;
    if (set.count > PLATFORM_MAX_VALUES)
        return OUTCOME_FIELD_TOO_LONG;
    if (!set.clean)
        return OUTCOME_FIELD_MISSING;
    x->detail = NULL;
    if (set.whole)
        *ret = set.count == 1 ? set.first : hex_of(set.digests[0], scratch);
    return OUTCOME_NONE;
}

/* Like find_value(), for what stands in ids only as well; what is computed goes to `scratch`. */
static enum outcome find_part(struct extraction *x, const struct value_rule *part,
                              char scratch[SCRATCH], struct slice *ret)
{
    unsigned char digest[EVENT_DIGEST_SIZE];
    *ret = (struct slice){"", 0};
    if (part->source == FROM_JSON_ALL)
        return find_all(x, part, scratch, ret);
    if (part->source == FROM_ARRIVAL) {
        int len = snprintf(scratch, SCRATCH, "%lld", (long long)x->in->received_wall_us);
        *ret = (struct slice){scratch, (size_t)len};
        return OUTCOME_NONE;
    }
    if (part->source != FROM_BODY_DIGEST) {
        enum outcome outcome = find_value(x, part, ret);
        if (part->source == FROM_JSON && !json_is_whole(x->json, *ret))
            *ret = (struct slice){"", 0};
        return outcome;
    }
    if (x->in->body.len > 0) { /* all empty bodies look the same */
        event_digest(x->in->body, digest);
        *ret = hex_of(digest, scratch);
    }
    return OUTCOME_NONE;
}

/* OUTCOME_NONE with an empty id when a part is missing. */
static enum outcome compose_id(struct extraction *x, const struct id_rule *rule)
{
    size_t start = x->buffer->len;
    for (size_t i = 0; i < rule->part_count; i++) {
        const struct value_rule *part = &rule->parts[i];
        char scratch[SCRATCH];
        struct slice text;
        enum outcome outcome = find_part(x, part, scratch, &text);
        if (outcome != OUTCOME_NONE || text.len == 0) {
            x->buffer->len = start;
            return outcome;
        }
        if (rule->part_count == 1 && text.ptr != scratch) { /* as it stands in the document */
            x->event->external_id = text;
        } else if ((i > 0 && !append(x->buffer, SLICE_LITERAL(":"))) ||
                   !append_part(x->buffer, text)) {
            x->detail = part->name;
            return OUTCOME_FIELD_TOO_LONG;
        }
    }
    if (x->event->external_id.len == 0)
        x->event->external_id = (struct slice){x->buffer->text + start, x->buffer->len - start};
    if (x->event->external_id.len <= EVENT_EXTERNAL_ID_MAX)
        return OUTCOME_NONE;
    x->event->external_id = (struct slice){"", 0};
    x->detail = rule->parts[0].name;
    return OUTCOME_FIELD_TOO_LONG;
}

static enum outcome find_id(struct extraction *x, const struct event_rule *event)
{
    static const struct value_rule digest = {.source = FROM_BODY_DIGEST};
    static const struct id_rule last_resort[] = {{.parts = &digest, .part_count = 1}};
    const struct {
        const struct id_rule *rules;
        size_t count;
    } lists[] = {
        {event->ids, event->id_count}, {x->platform->ids, x->platform->id_count}, {last_resort, 1}};

    for (size_t list = 0; list < sizeof lists / sizeof *lists; list++) {
        for (size_t i = 0; i < lists[list].count && x->event->external_id.len == 0; i++) {
            enum outcome outcome = compose_id(x, &lists[list].rules[i]);
            if (outcome != OUTCOME_NONE)
                return outcome;
            /* All that is signed is in the id; the type would let a replay pass for news. */
            if (x->event->external_id.len > 0 && x->type_is_free &&
                has_digest(&lists[list].rules[i]))
                x->event->key_type = (struct slice){"", 0};
        }
    }
    if (x->event->external_id.len == 0) {
        x->detail = "id: none of its rules has all parts, and the body is empty";
        return OUTCOME_FIELD_MISSING;
    }
    x->event->subject = x->event->external_id;
    return OUTCOME_NONE;
}

static enum outcome find_email(struct extraction *x)
{
    struct slice text;
    for (size_t i = 0; i < x->platform->email_count; i++) {
        enum outcome outcome = find_first(x, &x->platform->emails[i], 1, EMAIL_MAX, &text);
        if (outcome != OUTCOME_NONE)
            return outcome;
        const char *at = text.len > 0 ? memchr(text.ptr, '@', text.len) : NULL;
        if (at == NULL || at == text.ptr || at == text.ptr + text.len - 1)
            continue;
        char *to = x->buffer->text + x->buffer->len;
        if (!append(x->buffer, text))
            return OUTCOME_FIELD_TOO_LONG;
        for (size_t k = 0; k < text.len; k++) {
            if (to[k] >= 'A' && to[k] <= 'Z')
                to[k] = (char)(to[k] - 'A' + 'a');
        }
        x->event->email = (struct slice){to, text.len};
        return OUTCOME_NONE;
    }
    return OUTCOME_NONE;
}

/* A time that can't be read is no time: nothing depends on it but ce_time. */
static void find_time(struct extraction *x)
{
    const struct timestamp_rule *rule = &x->platform->time;
    struct slice text;
    int64_t at;
    if (rule->from.source == FROM_JSON &&
        json_text_at(x->json, rule->from.name, &text) == JSON_FOUND &&
        freshness_parse(text, rule->unit, &at))
        x->event->time_wall_us = at;
}

static enum outcome find_type(struct extraction *x, const struct event_rule **ret_rule)
{
    const struct platform *platform = x->platform;
    struct slice type = {"", 0};
    for (size_t i = 0; i < platform->event_type_count && type.len == 0; i++) {
        const struct value_rule *from = &platform->event_types[i];
        enum outcome outcome = find_first(x, from, 1, EVENT_TYPE_MAX, &type);
        if (outcome != OUTCOME_NONE)
            return outcome;
        x->type_is_free = from->source == FROM_HEADER && !is_vouched_for(x, from->name);
    }
    if (type.len == 0) {
        x->detail = platform->event_types[0].name;
        return OUTCOME_FIELD_MISSING;
    }
    x->event->type = type;
    const struct event_rule *rule = find_event(platform, type);
    if (rule == NULL)
        return OUTCOME_IGNORED_EVENT_TYPE;
    if (rule->spelling_count > 0)
        x->event->type = slice_of(rule->type);
    x->event->key_type = x->event->type;
    x->event->series = rule->series;
    *ret_rule = rule;
    return OUTCOME_NONE;
}

enum outcome extract_event(const struct platform *platform, const struct inbound *in,
                           const struct json *json, const struct signature_scheme *matched,
                           struct extract_buffer *buffer, struct event *ret,
                           const char **ret_detail)
{
    buffer->len = 0;
    *ret = (struct event){.series = platform->other_series};
    ret->type = ret->key_type = ret->external_id = (struct slice){"", 0};
    ret->account = ret->email = ret->subject = (struct slice){"", 0};
    struct extraction x = {.platform = platform,
                           .in = in,
                           .json = json,
                           .matched = matched,
                           .buffer = buffer,
                           .event = ret};

    const struct event_rule *rule = NULL;
    enum outcome outcome = find_type(&x, &rule);
    if (outcome == OUTCOME_NONE)
        outcome = check_holds(&x, rule);
    if (outcome == OUTCOME_NONE)
        outcome = check_required(&x, rule);
    if (outcome == OUTCOME_NONE)
        outcome = find_id(&x, rule);
    if (outcome == OUTCOME_NONE)
        outcome = find_first(&x, platform->accounts, platform->account_count, EVENT_ACCOUNT_MAX,
                             &ret->account);
    if (outcome == OUTCOME_NONE)
        outcome = find_email(&x);
    if (outcome == OUTCOME_NONE)
        find_time(&x);
    *ret_detail = x.detail;
    return outcome;
}
