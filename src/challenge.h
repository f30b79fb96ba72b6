/* CHALLENGE: handshakes that are answered at once and never recorded. Needs neither Postgres nor
 * Kafka. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "inbound.h"
#include "outcome.h"
#include "platform.h"
#include "verify.h"

#include <stdbool.h>

struct json;

#define CHALLENGE_ANSWER_MAX 1024

struct challenge_answer_body {
    char body[CHALLENGE_ANSWER_MAX];
    size_t len;
    const char *content_type;
};

/* OUTCOME_NONE = not a challenge; CHALLENGED with *ret filled; CHALLENGE_REFUSED;
 * CHALLENGE_UNVERIFIED: its verify token is none. `secrets` are those that may verify the request.
 * `verification` proves that the signature matched; NULL asks only for challenges that the platform
 * sends unsigned, before verification. `json` may be NULL: then nothing in a body is a challenge.
 */
MUST_CHECK enum outcome challenge_check(const struct platform *platform,
                                        const struct keyring *secrets, const struct inbound *in,
                                        const struct json *json,
                                        const struct verification *verification,
                                        struct challenge_answer_body *ret);

/* A guess from what costs nothing, without reading the body as JSON: may this be a handshake, so
 * that it is worth an answer while events are refused? It decides nothing else. */
MUST_CHECK bool challenge_is_likely(const struct platform *platform, const struct inbound *in);
