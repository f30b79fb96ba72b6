/* Finds the signatures of a request by a scheme's form: one text, pairs, a list, several headers, a
 * key of the query. Called by verify.c and delivery.c on the event loop. Nothing is trimmed or
 * guessed, but for a blank behind the separator of pairs, which many vendors write. Thread: any. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "candidates.h"

#include "json.h"

static bool comes_twice(const struct inbound *in, struct slice name)
{
    size_t found = 0;
    for (size_t i = 0; i < in->header_count; i++)
        found += slice_equal(in->headers[i].name, name);
    return found > 1;
}

/* Two names of one scheme may both be there only with the same value. */
static bool names_disagree(const struct signature_scheme *scheme, const struct inbound *in)
{
    struct slice first = {0};
    bool any = false;
    for (size_t i = 0; i < scheme->header_count; i++) {
        struct slice value = {0};
        if (inbound_header_find(in, scheme->headers[i], &value) == 0)
            continue;
        if (any && !slice_equal(first, value))
            return true;
        first = value;
        any = true;
    }
    return false;
}

/* A header that two readers could understand differently has no single meaning to verify. */
bool candidates_are_ambiguous(const struct platform *platform, const struct inbound *in)
{
    for (size_t i = 0; i < platform->single_header_count; i++)
        if (comes_twice(in, slice_of(platform->single_headers[i])))
            return true;
    for (size_t i = 0; i < platform->scheme_count; i++) {
        const struct signature_scheme *scheme = &platform->schemes[i];
        if (!scheme->each_header && names_disagree(scheme, in))
            return true;
    }
    return false;
}

/* The name of the scheme's header that is present, or NULL. */
static const char *present_header(const struct signature_scheme *scheme, const struct inbound *in)
{
    struct slice value;
    for (size_t i = 0; i < scheme->header_count; i++)
        if (inbound_header_find(in, scheme->headers[i], &value) > 0)
            return scheme->headers[i];
    return NULL;
}

bool candidates_present(const struct signature_scheme *scheme, const struct inbound *in,
                        const struct json *json)
{
    if (scheme->json != NULL)
        return json != NULL && json_exists(json, scheme->json);
    if (scheme->query != NULL) {
        char buf[QUERY_VALUE_MAX];
        struct slice value;
        return query_find(in->query, scheme->query, buf, &value) != QUERY_ABSENT;
    }
    return present_header(scheme, in) != NULL;
}

bool candidates_any_present(const struct platform *platform, const struct inbound *in,
                            const struct json *json)
{
    for (size_t i = 0; i < platform->scheme_count; i++)
        if (candidates_present(&platform->schemes[i], in, json))
            return true;
    return false;
}

static bool is_same(const char *a, const char *b)
{
    return a != NULL && b != NULL && strcmp(a, b) == 0;
}

bool candidates_share_place(const struct signature_scheme *first,
                            const struct signature_scheme *other, const struct inbound *in)
{
    const char *header = present_header(first, in);
    for (size_t i = 0; i < other->header_count; i++)
        if (is_same(header, other->headers[i]))
            return true;
    return is_same(first->query, other->query) || is_same(first->json, other->json);
}

/* Without its prefix; a candidate that lacks a required one is left out. False: too many. */
static bool add_candidate(const struct signature_scheme *scheme, struct slice text,
                          struct candidates *found)
{
    if (found->count == PLATFORM_MAX_CANDIDATES)
        return false;
    if (slice_starts(text, scheme->prefix))
        text = slice_from(text, scheme->prefix.len);
    else if (!scheme->prefix_optional)
        text.len = 0; /* counted, but no digest is empty */
    found->texts[found->count++] = text;
    return true;
}

/* Takes the piece before the next `separator` off the front of *rest; false at the end. */
static bool next_piece(struct slice *rest, bool *more, char separator, struct slice *ret)
{
    if (!*more)
        return false;
    const char *end = rest->len > 0 ? memchr(rest->ptr, separator, rest->len) : NULL;
    *more = end != NULL;
    *ret = (struct slice){rest->ptr, end != NULL ? (size_t)(end - rest->ptr) : rest->len};
    *rest = slice_from(*rest, ret->len + 1);
    return true;
}

/* Pairs `key=value` and items `version,value` differ only in their separators. Unknown keys are
 * left out, pieces without the inner separator spoil the header. */
static bool collect_parts(const struct platform *platform, const struct signature_scheme *scheme,
                          struct slice value, struct candidates *found)
{
    bool pairs = scheme->form == FORM_PAIRS, more = true;
    char outer = pairs ? scheme->separator : ' ', inner = pairs ? '=' : ',';
    const struct value_rule *time = &platform->timestamp.from;
    struct slice piece;
    while (next_piece(&value, &more, outer, &piece)) {
        while (pairs && piece.len > 0 && piece.ptr[0] == ' ')
            piece = slice_from(piece, 1);
        const char *middle = piece.len > 0 ? memchr(piece.ptr, inner, piece.len) : NULL;
        if (middle == NULL)
            return false;
        struct slice key = {piece.ptr, (size_t)(middle - piece.ptr)};
        struct slice text = slice_from(piece, key.len + 1);
        if (slice_equal(key, scheme->version) && !add_candidate(scheme, text, found))
            return false;
        if (pairs && time->source == FROM_PAIR && slice_is(key, time->name)) {
            if (found->timestamp.ptr != NULL)
                return false; /* which of the two was signed? */
            found->timestamp = text;
        }
    }
    return found->count > 0;
}

static bool collect_text(const struct platform *platform, const struct signature_scheme *scheme,
                         struct slice value, struct candidates *found)
{
    if (scheme->form == FORM_SINGLE)
        return add_candidate(scheme, value, found);
    return collect_parts(platform, scheme, value, found);
}

bool candidates_collect(const struct platform *platform, const struct signature_scheme *scheme,
                        const struct inbound *in, struct candidates *ret)
{
    struct slice value;
    ret->count = 0;
    ret->timestamp = (struct slice){0};
    if (scheme->query != NULL)
        return query_find(in->query, scheme->query, ret->decoded, &value) == QUERY_FOUND &&
               collect_text(platform, scheme, value, ret);
    for (size_t i = 0; i < scheme->header_count; i++) {
        if (inbound_header_find(in, scheme->headers[i], &value) == 0)
            continue;
        if (!collect_text(platform, scheme, value, ret))
            return false;
        if (!scheme->each_header)
            break;
    }
    return ret->count > 0;
}
