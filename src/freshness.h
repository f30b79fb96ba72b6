/* FRESHNESS: is the signed timestamp within the platform's tolerance of our wall clock, both ways?
 * Pure. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "outcome.h"
#include "platform.h"

struct json;

/* `timestamp` as verification found it; for a rule FROM_JSON it is read from `json` (NULL then
 * means: not parsed yet, and only a header's or pair's timestamp is judged). OUTCOME_NONE = fresh
 * or no rule. */
MUST_CHECK enum outcome freshness_check(const struct platform *platform, struct slice timestamp,
                                        const struct json *json, int64_t now_wall_us);

/* Text in `unit` as Unix time in microseconds; false when it is not of that form or beyond year
 * 9999. */
MUST_CHECK bool freshness_parse(struct slice text, enum time_unit unit, int64_t *ret_wall_us);
