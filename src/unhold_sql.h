/* Unholding in SQL, on one connection: every call waits for its answer, with a deadline. Thread:
 * one that may block. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "held.h"

struct config;
struct unhold_sql;

MUST_CHECK struct unhold_sql *unhold_sql_new(const struct config *config);
/* Ends the connection; the object stays with its loop until the process ends, because a thread that
 * looks up a name may still post to it. */
void unhold_sql_close(struct unhold_sql *sql);

/* Waits up to `timeout_ms` for something to happen to the connection. */
void unhold_sql_wait(struct unhold_sql *sql, int timeout_ms);
/* Ends a wait, from any thread. */
void unhold_sql_wake(struct unhold_sql *sql);
bool unhold_sql_is_ready(const struct unhold_sql *sql);
/* Changes with each new connection: what was done on an older one may be undone. */
unsigned unhold_sql_generation(const struct unhold_sql *sql);

/* All return false when the statement failed or the connection was lost; it was told. */

/* Does Postgres take what a batch writes? */
MUST_CHECK bool unhold_sql_probe(struct unhold_sql *sql);
/* Makes the partition's row if there is none. */
MUST_CHECK bool unhold_sql_know(struct unhold_sql *sql, const char *topic, int32_t partition);
/* Deletes the rows of partitions that the topic, with this number of them, does not have. */
MUST_CHECK bool unhold_sql_forget(struct unhold_sql *sql, const char *topic, int32_t partitions);
/* How far the partition is taken over, by anyone; -1 = it has no row. */
MUST_CHECK bool unhold_sql_next(struct unhold_sql *sql, const char *topic, int32_t partition,
                                int64_t *ret_next);
/* Begins a transaction and locks the partition's row; *ret_next is -1 when another instance has it,
 * or there is none, and then no transaction is open. Else one of the next two ends it. */
MUST_CHECK bool unhold_sql_lock(struct unhold_sql *sql, const char *topic, int32_t partition,
                                int64_t *ret_next);
struct unhold_batch {
    const char *topic;
    int32_t partition;
    bool are_markers;
    const struct held *held;
    size_t count;   /* perhaps 0 */
    int64_t next;   /* the row moves to this offset */
    bool caught_up; /* there was nothing more at the transaction's begin */
    /* One by one: what Postgres refuses is set aside (mcp.webhook_refused) with its claim. */
    bool each;
};
struct unhold_taken {
    int fresh;   /* payloads that were not claimed before */
    int doubled; /* markers whose event was claimed by a copy: that is a second record */
    int refused; /* are set aside */
};
/* Takes the batch over, moves the row and commits. */
MUST_CHECK bool unhold_sql_take(struct unhold_sql *sql, const struct unhold_batch *batch,
                                struct unhold_taken *ret);
/* Did the last unhold_sql_take() fail by what stands in the batch, as far as its SQLSTATE tells? */
bool unhold_sql_was_refused(const struct unhold_sql *sql);
/* Why the last call failed. */
const char *unhold_sql_reason(const struct unhold_sql *sql);
void unhold_sql_rollback(struct unhold_sql *sql);
/* Events that are parked, counted up to `max`. */
MUST_CHECK bool unhold_sql_parked(struct unhold_sql *sql, int max, int *ret_count);
