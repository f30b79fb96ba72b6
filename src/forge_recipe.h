/* How events of one sample are made: its body and its head, with the places that forge_text.c
 * fills. For forge.c alone. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "forge.h"
#include "forge_text.h"
#include "sample.h"

#define RECIPE_SIGNATURE_MAX 2048

struct recipe {
    char *sample_bytes; /* owned; `sample` points into it */
    struct sample sample;
    struct forge_text head; /* without the signature and the last line, but with room for them */
    struct forge_text body;
    struct inbound in;                     /* points into head and body */
    size_t header_count;                   /* of `in` without the signature */
    const struct signature_scheme *scheme; /* NULL = unsigned */
    const char *signature_header;
    int64_t time_step_us; /* not 0: only the time makes events differ, so it moves on by this */
};

/* Makes texts and `in` from the sample. `type` NULL = as the sample has it, which is `own_type`.
 * With `nonce` the body gets a member more that is new each time. NULL or what is wrong; ""
 * where half a surrogate pair stands in the sample, which nobody can write anew. */
MUST_CHECK const char *recipe_build(struct recipe *recipe, const struct platform *platform,
                                    const struct forge_options *options, const char *type,
                                    struct slice own_type, bool nonce);
void recipe_release(struct recipe *recipe);
