/* ROUTE: the first step of a delivery. Finds the platform and the endpoint token in the path and
 * refuses what needs no hashing to be refused. Called by delivery.c on the event loop; memory
 * only. It never decodes a path: what isn't spelt exactly is not ours. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "route.h"

#define ENDPOINT_MIN 16
#define ENDPOINT_MAX 128

static bool is_endpoint_token(struct slice word)
{
    if (word.len < ENDPOINT_MIN || word.len > ENDPOINT_MAX)
        return false;
    for (size_t i = 0; i < word.len; i++) {
        char c = word.ptr[i];
        bool allowed = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                       c == '_' || c == '-';
        if (!allowed)
            return false;
    }
    return true;
}

static bool is_alias(const struct platform *platform, struct slice word)
{
    for (size_t i = 0; i < platform->alias_count; i++)
        if (slice_is(word, platform->aliases[i]))
            return true;
    return false;
}

/* Only a platform whose handshake comes by GET takes one. */
static bool takes_method(const struct platform *platform, struct slice method)
{
    if (slice_is(method, "POST"))
        return true;
    if (!slice_is(method, "GET"))
        return false;
    for (size_t i = 0; i < platform->challenge_count; i++)
        if (platform->challenges[i].kind == CHALLENGE_GET_QUERY)
            return true;
    return false;
}

enum outcome route_find(const struct platforms *platforms, const struct inbound *in,
                        struct route *ret)
{
    static const struct slice root = {"/webhooks/", sizeof "/webhooks/" - 1};
    *ret = (struct route){0};
    if (!slice_starts(in->path, root))
        return OUTCOME_UNKNOWN_ROUTE;
    struct slice name = slice_from(in->path, root.len), rest = {0};
    const char *slash = name.len > 0 ? memchr(name.ptr, '/', name.len) : NULL;
    if (slash != NULL) {
        rest = slice_from(name, (size_t)(slash - name.ptr) + 1);
        name.len = (size_t)(slash - name.ptr);
    }
    if (name.len == 0)
        return OUTCOME_UNKNOWN_ROUTE;

    ret->platform = platforms_find(platforms, name);
    if (ret->platform == NULL)
        return OUTCOME_UNKNOWN_PLATFORM;
    if (slash != NULL && !is_alias(ret->platform, rest)) {
        if (!is_endpoint_token(rest))
            return OUTCOME_UNKNOWN_ROUTE;
        ret->endpoint = rest;
    }
    return takes_method(ret->platform, in->method) ? OUTCOME_NONE : OUTCOME_METHOD_NOT_ALLOWED;
}

/* Parameters such as charset don't matter: the bytes are judged as they are. */
static bool takes_content_type(const struct platform *platform, struct slice value)
{
    const char *semicolon = value.len > 0 ? memchr(value.ptr, ';', value.len) : NULL;
    if (semicolon != NULL)
        value.len = (size_t)(semicolon - value.ptr);
    value = slice_trim(value);
    if (platform->content_type_count == 0)
        return slice_is_nocase(value, "application/json");
    for (size_t i = 0; i < platform->content_type_count; i++)
        if (slice_is_nocase(value, platform->content_types[i]))
            return true;
    return false;
}

enum outcome route_check_headers(const struct platform *platform, const struct inbound *in)
{
    for (size_t i = 0; i < in->header_count; i++)
        if (in->headers[i].name.len == 0) /* a folded line, as libh2o hands it on */
            return OUTCOME_BAD_REQUEST;
    for (size_t i = 0; i < in->header_count; i++) {
        const struct inbound_header *header = &in->headers[i];
        if (slice_is(header->name, "content-encoding") &&
            !slice_is_nocase(header->value, "identity"))
            return OUTCOME_COMPRESSED;
    }
    /* Some senders name no type; two that differ must both be fine. */
    for (size_t i = 0; i < in->header_count; i++) {
        const struct inbound_header *header = &in->headers[i];
        if (slice_is(header->name, "content-type") && !takes_content_type(platform, header->value))
            return OUTCOME_CONTENT_TYPE;
    }
    return OUTCOME_NONE;
}
