/* The settings are such as librdkafka takes; every topic exists, or is made (kafka.create_topics),
 * and keeps what it acknowledges. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "problem.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct config;

/* Whether librdkafka takes kafka.settings, each alone and all together; asks no broker. All
 * together only when there is no problem yet, because it reads the files that they name. Thread:
 * any. */
void topics_check_settings(const struct config *config, struct problems *problems);

enum topics_result {
    TOPICS_READY,
    TOPICS_UNREACHABLE, /* no broker answered: try again; a problem tells if they refuse our user */
    TOPICS_WRONG, /* a topic is missing, can't be made, or must not be used as it is: problems tell;
                     trying again may help once it is mended */
};

/* Blocks up to about twice `timeout_ms`. `names` may repeat. Sets for each name how many partitions
 * it has, 0 = it must not be used as it is; `warnings` get what kafka.allow_weak_durability lets
 * pass. Thread: any but an event loop's. */
enum topics_result topics_ensure(const struct config *config, const char *const *names,
                                 size_t count, int timeout_ms, int32_t *ret_partitions,
                                 struct problems *problems, struct problems *warnings);
