/* VERIFY: does the request carry a signature of one of the secrets over the bytes received? Pure:
 * memory only. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "inbound.h"
#include "outcome.h"
#include "platform.h"

struct json;

/* How many signatures are tried under how many public keys, multiplied: each try costs as much as
 * an HMAC, which is computed once per key whatever is presented. Two keys of a rotation leave room
 * for four signatures. */
#define VERIFY_PUBLIC_TRIES 8

struct verification {
    const struct secret
        *secret; /* the one that matched; NULL where the endpoint token alone was the credential */
    const struct signature_scheme *scheme;
    struct slice
        timestamp; /* as sent, when a header or a pair carried it and it was found; else empty */
};

/* OUTCOME_NONE = authentic and *ret; else *ret is untouched: SIGNATURE_*, NO_SECRET (only where a
 * signature header is present) or TIMESTAMP_MISSING (the signed message needs it). Secrets whose
 * not-after lies before `now_wall_us` don't count. `base_url` ("https://hooks.example.com", may be
 * "") stands before the path in messages with {url}.
 *
 * `json` is the parsed body for platforms that carry a secret in it, else NULL (then such a secret
 * is missing).
 *
 * - The first scheme whose header is present is judged, with those further schemes that name the
 *   same header (v1 and v1a in one list); a later header never rescues a bad earlier one.
 * - Two lines of a signature, timestamp or signed header, or two header names of one scheme that
 *   differ, are SIGNATURE_REPEATED.
 * - A digest is lower-case hex or padded base64 of exactly the algorithm's length, compared in
 *   constant time; upper-case hex is malformed. Nothing is trimmed. Of several candidates
 *   (PLATFORM_MAX_CANDIDATES at most) those that are malformed are left out; any match under any
 *   live secret wins; none well-formed is SIGNATURE_MALFORMED. Under public keys (ed25519)
 *   VERIFY_PUBLIC_TRIES pairs are tried, all candidates under the first key, then under the next.
 * - A signed header whose value holds the literal that follows it in the message is malformed: the
 *   message could be read in two ways.
 * - Where each header carries a signature of its own, all of them give candidates.
 * - In a body every value that the pointer leads to must be there and be a live secret.
 * - Static equality compares what follows the prefix with the secret; with ENCODING_BASE64 it is
 *   decoded first (Basic, with user:password as the secret). */
MUST_CHECK enum outcome verify_signature(const struct platform *platform,
                                         const struct keyring *secrets, const struct inbound *in,
                                         const struct json *json, const char *base_url,
                                         int64_t now_wall_us, struct verification *ret);

/* The other direction, for `hookgate send` and tests: the header name and value that sign `in` (its
 * timestamp header or pair included, taken from `timestamp`). False when `value` is too small or
 * the algorithm can't sign (ed25519 with a public key). */
MUST_CHECK bool verify_sign(const struct platform *platform, const struct signature_scheme *scheme,
                            const struct secret *secret, const struct inbound *in,
                            const char *base_url, struct slice timestamp, char *value,
                            size_t value_size);

/* Digest of `text` under `secret`, for challenges: encoded, NUL-terminated. */
MUST_CHECK bool verify_digest(const struct platform *platform, const struct secret *secret,
                              struct slice text, enum signature_encoding encoding, char *value,
                              size_t value_size);
