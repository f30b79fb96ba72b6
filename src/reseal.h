/* RESEAL: seals the secrets of all integrations anew with the first key of the key file, so that
 * the other keys can be taken out of it. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "obj.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct config;
struct seal_keys;

struct reseal_counts {
    uint64_t sealed;  /* anew */
    uint64_t already; /* with the first key */
    uint64_t foreign; /* open with none of the keys: left as they are, and told on `err` */
};

/* In batches, each a transaction of its own, so it may be broken off and run again. Gateways go on
 * meanwhile: all keys of their file open. False when it did not come to the end, which `err` was
 * told. Blocks on Postgres. */
MUST_CHECK bool reseal_run(const struct config *config, const struct seal_keys *keys,
                           struct reseal_counts *ret, FILE *err);
