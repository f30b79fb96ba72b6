/* STUCK: the events that Kafka refuses for good (mcp.webhook_stuck): told, and put back into the
 * outbox once the cause is mended. Called by `hookgate stuck`. Thread: any, blocking. */
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
