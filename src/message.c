/* Builds the signed message of a request from a scheme's template, token by token. Called by
 * verify.c, for checking and for signing alike, so that both always agree. Thread: any. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "message.h"

const char *message_timestamp_header(const struct platform *platform,
                                     const struct signature_scheme *scheme)
{
    if (scheme->timestamp_header != NULL)
        return scheme->timestamp_header;
    return platform->timestamp.from.source == FROM_HEADER ? platform->timestamp.from.name : NULL;
}

bool message_covers(const struct platform *platform, const struct signature_scheme *scheme,
                    const char *header)
{
    const char *timestamp = message_timestamp_header(platform, scheme);
    for (size_t i = 0; i < scheme->message_count; i++) {
        const struct message_token *token = &scheme->message[i];
        if (token->kind == TOKEN_HEADER && slice_is(token->text, header))
            return true;
        if (token->kind == TOKEN_TIMESTAMP && timestamp != NULL && strcmp(timestamp, header) == 0)
            return true;
    }
    return false;
}

/* False when the template is longer than any that makes sense: refused, never cut. */
static bool add(struct message *message, struct slice part)
{
    if (message->count == MESSAGE_PARTS_MAX)
        return false;
    if (part.len > 0)
        message->parts[message->count++] = part;
    return true;
}

static bool contains(struct slice haystack, struct slice needle)
{
    return needle.len > 0 && haystack.len >= needle.len &&
           memmem(haystack.ptr, haystack.len, needle.ptr, needle.len) != NULL;
}

static bool add_url(struct message *message, const struct inbound *in, const char *base_url)
{
    return add(message, slice_of(base_url)) && add(message, in->path) &&
           (in->query.len == 0 || (add(message, SLICE_LITERAL("?")) && add(message, in->query)));
}

static bool add_header(struct message *message, const struct signature_scheme *scheme, size_t index,
                       const struct inbound *in)
{
    struct slice name = scheme->message[index].text, value = {0};
    for (size_t i = 0; i < in->header_count && value.len == 0; i++)
        if (slice_equal(in->headers[i].name, name))
            value = in->headers[i].value;
    if (value.len == 0)
        return false;
    bool separated =
        index + 1 < scheme->message_count && scheme->message[index + 1].kind == TOKEN_LITERAL;
    if (separated && contains(value, scheme->message[index + 1].text))
        return false;
    return add(message, value);
}

enum outcome message_build(const struct platform *platform, const struct signature_scheme *scheme,
                           const struct inbound *in, const char *base_url, struct slice timestamp,
                           struct message *ret)
{
    const char *timestamp_header = message_timestamp_header(platform, scheme);
    ret->count = 0;
    for (size_t i = 0; i < scheme->message_count; i++) {
        const struct message_token *token = &scheme->message[i];
        enum token_kind kind = token->kind;
        if (kind == TOKEN_HEADER && timestamp_header != NULL &&
            slice_is(token->text, timestamp_header))
            kind = TOKEN_TIMESTAMP;
        if (kind == TOKEN_TIMESTAMP && timestamp.len == 0)
            return OUTCOME_TIMESTAMP_MISSING;
        bool fine = false;
        switch (kind) {
        case TOKEN_LITERAL:
            fine = add(ret, token->text);
            break;
        case TOKEN_BODY:
            fine = add(ret, in->body);
            break;
        case TOKEN_TIMESTAMP:
            fine = add(ret, timestamp);
            break;
        case TOKEN_METHOD:
            fine = add(ret, in->method);
            break;
        case TOKEN_URL:
            fine = add_url(ret, in, base_url);
            break;
        case TOKEN_HEADER:
            fine = add_header(ret, scheme, i, in);
            break;
        }
        if (!fine)
            return OUTCOME_SIGNATURE_MALFORMED;
    }
    return OUTCOME_NONE;
}
