/* What a request presents as its signatures, before any of it is believed. Used by verify.c and by
 * delivery.c, which asks whether there is anything to verify. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "inbound.h"
#include "platform.h"
#include "query.h"

struct json;

struct candidates {
    struct slice texts[PLATFORM_MAX_CANDIDATES]; /* without the prefix; may be empty or malformed */
    size_t count;
    struct slice timestamp;        /* of the pair that the platform's rule names */
    char decoded[QUERY_VALUE_MAX]; /* what a text from the query points to */
};

/* True when one of the platform's single_headers comes twice, or when two header names of one
 * scheme differ (unless each carries a signature of its own): two readers could understand the
 * request differently. */
bool candidates_are_ambiguous(const struct platform *platform, const struct inbound *in);

/* Does the request carry anything for the scheme? `json` is NULL when the body was not parsed. */
bool candidates_present(const struct signature_scheme *scheme, const struct inbound *in,
                        const struct json *json);
bool candidates_any_present(const struct platform *platform, const struct inbound *in,
                            const struct json *json);

/* True when `other` is looked for in the place where `first` was found. */
bool candidates_share_place(const struct signature_scheme *first,
                            const struct signature_scheme *other, const struct inbound *in);

/* The candidates in the scheme's headers or query key. False when the form is not the scheme's or
 * there are more than PLATFORM_MAX_CANDIDATES. */
bool candidates_collect(const struct platform *platform, const struct signature_scheme *scheme,
                        const struct inbound *in, struct candidates *ret);
