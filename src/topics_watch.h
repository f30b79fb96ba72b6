/* TOPICS WATCH: a thread that sees to it that the topics are there and keep what they acknowledge
 * (topics_ensure.h): once a second until they do, then once a minute. A Kafka that does not answer
 * changes nothing of what was found before. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "obj.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct setup;
struct topics_watch;

struct topics_watch_options {
    struct setup *setup; /* whose platforms' topics are watched; a reference is taken */
    /* For each topic after each answer of Kafka's: how many partitions it has, 0 = it must not be
     * used as it is. On the watch's thread. */
    void (*on_checked)(const char *name, int32_t partitions, void *context);
    /* Then: all have been told. */
    void (*on_all_checked)(void *context);
    void *context;
};

MUST_CHECK struct topics_watch *topics_watch_start(const struct topics_watch_options *options);
void topics_watch_stop(struct topics_watch *watch);
/* This setup's topics count from now on, and are checked at once; nothing happens when they do
 * already. Takes a reference. Thread: any. */
void topics_watch_take(struct topics_watch *watch, struct setup *setup);

/* Looks at once: somebody misses a topic. Thread: any. */
void topics_watch_wake(struct topics_watch *watch);

enum topics_state {
    TOPICS_UNASKED, /* the first question is still open */
    TOPICS_UNKNOWN, /* Kafka has not answered yet: what comes in can be parked */
    TOPICS_GOOD,
    TOPICS_REFUSED, /* the log tells which topic, why, and what mends it */
};
/* Thread: any. */
enum topics_state topics_watch_state(const struct topics_watch *watch);
