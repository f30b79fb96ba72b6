/* The outcomes of outcome.def as values. Nothing else in the program knows a status code of a
 * webhook's answer. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>

enum outcome {
    OUTCOME_NONE, /* not decided yet: the next step runs */
#define OUTCOME(name, ...) OUTCOME_##name,
#include "outcome.def"
#undef OUTCOME
    OUTCOME_COUNT
};

struct outcome_info {
    const char *name; /* as outcome.def spells it; samples expect it without regard to case */
    int http_status;  /* 0 = the platform's `later` status */
    const char *status_label; /* webhook_requests_total{status} */
    const char *error_type;   /* webhook_failures_total{error_type}; NULL = no failure */
    const char *code;         /* public */
    const char *message;      /* public */
    const char *sentence;     /* for the log */
};

/* `outcome` is decided, that is not OUTCOME_NONE. Thread: any. */
const struct outcome_info *outcome_info(enum outcome outcome);

/* The HTTP status; `later_status` (429 or 503) is the platform's answer to a limited sender. */
int outcome_http_status(enum outcome outcome, int later_status);

/* True for the 2xx that promise durability: accepted and duplicate. */
static inline bool outcome_is_durable(enum outcome outcome)
{
    return outcome == OUTCOME_ACCEPTED || outcome == OUTCOME_DUPLICATE;
}
