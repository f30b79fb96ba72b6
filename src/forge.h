/* Makes fresh, unique, signed requests out of a platform's samples, for `hookgate send` and tests:
 * every value that a rule of the external id reads is new, times are now. Works for any platform
 * folder. Thread: one. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "inbound.h"
#include "platform.h"

struct forge;

struct forge_options {
    const char *event;   /* only samples of this type, else the type is written; NULL = all */
    const char *account; /* NULL = as the samples have it; likewise: */
    const char *email;
    size_t size;           /* bodies are padded to this many bytes; 0 or less than they are: not */
    uint64_t seed;         /* the same seed gives the same ids */
    const char *target;    /* path and query */
    const char *authority; /* for the host header */
    const char *origin;    /* "https://host", for messages that sign the URL */
};

/* `secret` NULL = unsigned (the target's token is the credential). What the options point to must
 * live as long as the forge. NULL and problems when no sample is fit or none can be signed; else
 * problems tell which samples were left out. */
MUST_CHECK struct forge *forge_new(const struct platform *platform, const struct secret *secret,
                                   const struct forge_options *options, struct problems *problems);
void forge_free(struct forge *forge);

enum {
    FORGE_REPEAT = 1,       /* one of the last 1,000 events again, with a new signature */
    FORGE_BAD_SIGNATURE = 2 /* one bit of the signature is wrong; never repeated */
};

struct forged {
    const struct inbound *in; /* with the body: what the gateway will see */
    struct slice head;        /* request line to empty line */
    bool repeated;            /* FORGE_REPEAT was asked for and there was one to repeat */
};

/* The result points into the forge and is valid until the next call. */
void forge_make(struct forge *forge, int64_t now_wall_us, unsigned how, struct forged *ret);
