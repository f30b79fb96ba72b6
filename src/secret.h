/* A signing secret and the set of them that may verify a request. Bytes are cleansed on release,
 * never logged. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "problem.h"
#include "slice.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct platform;

#define SECRETS_MAX 8 /* live secrets of one platform or of one integration */
#define SECRET_BYTES_MAX 1024

/* Of an integration's secrets; in the order in which they are tried. */
enum secret_state { SECRET_CURRENT, SECRET_NEXT, SECRET_RETIRING, SECRET_STATE_COUNT };

struct secret; /* immutable after secret_new(); shared by threads */

/* `label` names it in the record's header and in metrics, e.g. "zoom-secret" (a file's base name)
 * or a row's id; copied, as are the bytes. Keys are prepared for every signature scheme of the
 * platform (decoding base64 etc.): a secret that can't be decoded as a scheme demands gives NULL
 * and *ret_reason (static text). `not_after_wall_us` 0 = no end. */
MUST_CHECK struct secret *secret_new(const struct platform *platform, const char *label,
                                     struct slice bytes, int64_t not_after_wall_us,
                                     const char **ret_reason);
void secret_free(struct secret *secret);

const char *secret_label(const struct secret *secret);

/* The index of metrics_signature() that its use is counted under; 0 until it is set. Set before the
 * secret is shared. */
void secret_set_series(struct secret *secret, int series);
int secret_series(const struct secret *secret);

/* False once its not-after lies before `now_wall_us`. */
bool secret_is_live(const struct secret *secret, int64_t now_wall_us);

/* Compares the bytes as they were given, in constant time for texts of their length. */
bool secret_equals(const struct secret *secret, struct slice text);

/* For verify.c: what was prepared for the platform's scheme of this index. All NULL when the secret
 * is of another kind (no whpk_ for ed25519, whpk_ for an HMAC, a challenge's verify token): such a
 * pair is left out. */
struct secret_key {
    struct evp_mac_ctx_st *mac;     /* keyed; duplicated for each use */
    struct evp_pkey_st *public_key; /* ed25519 */
    struct slice bytes;             /* static equality */
};
const struct secret_key *secret_key_for(const struct secret *secret, size_t scheme);

struct keyring {
    struct secret *secrets[SECRETS_MAX]; /* owned, newest first */
    size_t count;
};

struct yaml_node;

/* Adds the secrets of a file: each line is one (a CR before the newline is part of the newline); an
 * empty file, an empty line and control characters are refused, blanks are kept. The label is the
 * file's base name, with "-2", "-3" and so on for further lines. Problems name the file; false when
 * one was added. */
struct keyring_file {
    const char *path;
    const struct yaml_node *where; /* that names it, to point at; NULL = a command line did */
    bool strict;                   /* secret_file.h */
    int64_t not_after_wall_us;     /* of all its secrets; 0 = no end */
};
bool keyring_add_file(struct keyring *keyring, const struct platform *platform,
                      const struct keyring_file *file, struct problems *problems);
void keyring_release(struct keyring *keyring);
