/* Checks at start that every topic exists, or makes it (kafka.create_topics). */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "problem.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct config;

enum topics_result {
    TOPICS_READY,
    TOPICS_UNREACHABLE, /* no broker answered: try again */
    TOPICS_WRONG, /* a topic is missing or can't be made: problems tell; trying again may help once
                     it is mended */
};

/* Blocks up to about `timeout_ms`. `names` may repeat. Thread: any but an event loop's. */
enum topics_result topics_ensure(const struct config *config, const char *const *names,
                                 size_t count, int timeout_ms, struct problems *problems);
