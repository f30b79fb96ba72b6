/* The table behind outcome.h, expanded from outcome.def. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "outcome.h"

#include <assert.h>
#include <stddef.h>

static const struct outcome_info table[OUTCOME_COUNT] = {
#define OUTCOME(id, status, label, error, pub_code, pub_message, text)                             \
    [OUTCOME_##id] = {.name = #id,                                                                 \
                      .http_status = (status),                                                     \
                      .status_label = (label),                                                     \
                      .error_type = (error),                                                       \
                      .code = (pub_code),                                                          \
                      .message = (pub_message),                                                    \
                      .sentence = (text)},
#include "outcome.def"
#undef OUTCOME
};

const struct outcome_info *outcome_info(enum outcome outcome)
{
    assert(outcome > OUTCOME_NONE && outcome < OUTCOME_COUNT);
    return &table[outcome];
}

int outcome_http_status(enum outcome outcome, int later_status)
{
    int status = outcome_info(outcome)->http_status;
    return status ? status : later_status;
}
