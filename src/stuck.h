/* STUCK: the events that Kafka refuses for good (mcp.webhook_stuck) and the held ones that Postgres
 * refuses (mcp.webhook_refused): told, put back on their way once the cause is mended, or given up.
 * Called by `hookgate stuck`. Thread: any, blocking. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "obj.h"

#include <stdbool.h>
#include <stdio.h>

struct config;

/* One line per event on `out`: id, when it came, platform, type, workspace, topic, size, why. */
MUST_CHECK bool stuck_list(const struct config *config, FILE *out, FILE *err);
/* All of them, or those of `ids` (`count` texts that are UUIDs); tells on `out` how many. */
MUST_CHECK bool stuck_retry(const struct config *config, char *const *ids, int count, FILE *out,
                            FILE *err);
/* Those of `ids`, for ever. */
MUST_CHECK bool stuck_drop(const struct config *config, char *const *ids, int count, FILE *out,
                           FILE *err);
