/* Secrets at rest: sealed with AES-256-GCM under a key file, bound to what they belong to. A sealed
 * secret is: version (1 byte, 1), nonce (12), tag (16), ciphertext. The first key of the file seals
 * and all of them open, so a new key is put on top and the old ones stay until everything is sealed
 * anew. Called by the loader and `hookgate seal`. Thread: any; keys are const. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "obj.h"
#include "slice.h"

#include <stdbool.h>
#include <stddef.h>

#define SEAL_KEY_BYTES 32
#define SEAL_KEYS_MAX 16
#define SEAL_PLAIN_MAX 4000 /* what the column takes, less the overhead */
#define SEAL_OVERHEAD 29    /* bytes */
#define SEAL_DIGEST 32
#define SEAL_UUID_TEXT 37

struct seal_keys;

/* 32 raw bytes; or lines, each of 64 hex digits or 44 characters of base64, empty ones skipped.
 * NULL with *ret_reason: one static sentence that holds nothing of the file. */
MUST_CHECK struct seal_keys *seal_keys_parse(struct slice file, const char **ret_reason);
/* Reads it as a secret file (secret_file.h). NULL with *ret_reason (owned by the caller; it names
 * the file). */
MUST_CHECK struct seal_keys *seal_keys_read(const char *path, char **ret_reason);
/* The same keys in the same order; both may be NULL. */
bool seal_keys_equal(const struct seal_keys *a, const struct seal_keys *b);
/* Cleanses the keys. */
void seal_keys_free(struct seal_keys *keys);

/* `bound` is what the secret belongs to: it opens with the same only. `out` takes plain.len +
 * SEAL_OVERHEAD bytes. False when plain is empty or too long, or OpenSSL has no random bytes. */
MUST_CHECK bool seal_close(const struct seal_keys *keys, struct slice bound, struct slice plain,
                           unsigned char *out, size_t *ret_len);
/* `out` takes sealed.len - SEAL_OVERHEAD bytes, which the caller cleanses. False for anything that
 * these keys did not seal for `bound`; nothing is left in `out` then. */
MUST_CHECK bool seal_open(const struct seal_keys *keys, struct slice bound, struct slice sealed,
                          unsigned char *out, size_t *ret_len);

/* The same, and which key of the file it was; 0 = the first, which seals. */
MUST_CHECK bool seal_open_by(const struct seal_keys *keys, struct slice bound, struct slice sealed,
                             unsigned char *out, size_t *ret_len, size_t *ret_key);

/* SHA-256; for look-ups whose timing must not tell about the text. */
void seal_digest(struct slice text, unsigned char digest[SEAL_DIGEST]);

/* The canonical lower-case spelling that Postgres prints, which is what a secret is bound to.
 * False if `text` is no UUID. */
MUST_CHECK bool seal_uuid(const char *text, char canonical[SEAL_UUID_TEXT]);
