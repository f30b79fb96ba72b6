/* What was asked of `hookgate send`. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "forge.h"

struct send_options {
    const char *platform, *url, *secret_file, *acked, *platforms, *ca;
    struct forge_options forge; /* target, authority and origin are left out: the URL tells */
    uint64_t count;             /* 0 = `seconds` counts */
    uint64_t concurrency, size;
    double seconds, rate, timeout; /* 0 = not limited */
    double duplicate_rate, bad_rate;
    bool json, has_seed;
};

/* Reads the arguments; defaults are set. -1 = go on, else the exit status, and all was said. */
MUST_CHECK int send_options_parse(int argc, char **argv, struct send_options *options);
