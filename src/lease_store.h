/* The statements of the lease thread on a Postgres connection of its own: leases for many quotas at
 * once, and the sign of life by which instances count one another. One statement of leases is under
 * way at a time. Thread: the loop's. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "loop.h"

struct lease_store;

#define LEASE_ASKS_MAX 256 /* quotas in one statement: some 10 ms of the server's time */

struct lease_ask {
    const char *workspace, *platform;
    int32_t limit_minute, limit_hour; /* 0 = none */
    int64_t spent_minute, spent_hour; /* without a lease; negative = leased and given back */
    int32_t want;
};

struct lease_answer {
    int32_t granted;
    bool plenty;     /* at least half of every window is free */
    int64_t wait_us; /* until something is free; 0 = it is */
};

struct lease_store_handler {
    void (*on_ready)(void *context);
    /* One answer per ask, in order; NULL: the server refused the statement. */
    void (*on_leased)(void *context, const struct lease_answer *answers);
    /* How many are alive; 0: the server refused the statement. */
    void (*on_alive)(void *context, int64_t instances);
    void (*on_left)(void *context);
    /* Nothing comes any more for what was sent; the connection is made anew. */
    void (*on_lost)(void *context, const char *reason);
};

struct lease_store_options {
    const char *conninfo;
    const char *password_file; /* NULL = none */
};

MUST_CHECK struct lease_store *lease_store_new(struct loop *loop,
                                               const struct lease_store_options *options,
                                               const struct lease_store_handler *handler,
                                               void *context);
void lease_store_free(struct lease_store *store);

/* 1 to LEASE_ASKS_MAX asks; `instances` share what is left near the limit. */
void lease_store_ask(struct lease_store *store, const struct lease_ask *asks, size_t count,
                     int64_t instances);
void lease_store_alive(struct lease_store *store);
/* This instance counts no longer. */
void lease_store_leave(struct lease_store *store);
/* Gives the connection up: on_lost comes at the end of the turn. */
void lease_store_drop(struct lease_store *store, const char *reason);
