/* WORKER: one thread with everything that a webhook meets: an edge, its deliveries' environment, a
 * publisher and the lanes to Postgres. Workers share what is const and a few atomic
 * numbers; they are told of changes by messages. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "obj.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct config;
struct directory;
struct buckets;
struct gate;
struct parking;
struct setup;
struct ssl_ctx_st;
struct witness;
struct worker;

struct worker_options {
    struct buckets *buckets; /* of failed signatures, shared by the workers */
    struct setup *setup;     /* of the start: its configuration must live as long as the process */
    struct gate *gate;
    struct witness *witness; /* gets a book of the worker's */
    struct parking *parking;
    struct ssl_ctx_st *tls;
    int https_fd, plain_fd; /* -1 = none; duplicated */
    size_t threads;         /* of the process, for shares of its bounds */
};

/* Starts the thread; NULL with *ret_reason (owned by the caller) when Kafka's settings are refused.
 */
MUST_CHECK struct worker *worker_start(const struct worker_options *options, char **ret_reason);
/* From the next delivery on `setup` counts, with `directory` (NULL = none was loaded yet; else it
 * was built for `setup`). Takes a reference to both. Thread: any; calls take effect in their order.
 */
void worker_take(struct worker *worker, struct setup *setup, struct directory *directory);
/* Has the loop done all that it was handed by worker_take() and worker_take_tls()? Thread: any. */
bool worker_has_taken(const struct worker *worker);
/* From the next connection on `tls` counts. Takes a reference to it. Thread: any. */
void worker_take_tls(struct worker *worker, struct ssl_ctx_st *tls);
/* The topic is as it must be and has so many partitions; 0 = it must not be used. Thread: any. */
void worker_topic_checked(struct worker *worker, const char *topic, int32_t partitions);
/* Kafka acknowledged a record of this partition to somebody else; -1 = nothing is parked for the
 * topic any more. Thread: any. */
void worker_topic_heard(struct worker *worker, const char *topic, int32_t partition);
/* Begins to accept: before, who connects waits in the kernel's queue. Thread: any, once. */
void worker_open(struct worker *worker);
/* No new connections; the thread ends when all that is under way is answered, or after `limit_us`.
 * Thread: any, once. */
void worker_drain(struct worker *worker, int64_t limit_us);
/* Has the thread ended? Thread: any. */
bool worker_has_ended(const struct worker *worker);
/* Waits for the end and closes what it held. True when everything was answered. */
bool worker_join(struct worker *worker);

/* A sample at most a tenth of a second old. Thread: any. */
struct worker_health {
    bool directory_loaded;
    bool store_ready;
    bool broker_up;
    int64_t turned_us; /* monotonic: when the loop last turned */
};
struct worker_health worker_health(const struct worker *worker);
