/* The bytes that a signature covers, as slices in order: nothing is copied, least of all the body.
 * Used by verify.c, and by extract.c to see what is signed. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "inbound.h"
#include "outcome.h"
#include "platform.h"

#define MESSAGE_PARTS_MAX 32

struct message {
    struct slice parts[MESSAGE_PARTS_MAX];
    size_t count;
};

/* Name of the header that carries the scheme's timestamp; NULL when none does. */
const char *message_timestamp_header(const struct platform *platform,
                                     const struct signature_scheme *scheme);

/* True when the scheme's message holds the value of this header (lower case). */
bool message_covers(const struct platform *platform, const struct signature_scheme *scheme,
                    const char *header);

/* Puts the message together by the scheme's template. OUTCOME_NONE, TIMESTAMP_MISSING, or
 * SIGNATURE_MALFORMED: a signed header is absent, or ambiguous beside the literal after it. */
MUST_CHECK enum outcome message_build(const struct platform *platform,
                                      const struct signature_scheme *scheme,
                                      const struct inbound *in, const char *base_url,
                                      struct slice timestamp, struct message *ret);
