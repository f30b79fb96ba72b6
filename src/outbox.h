/* OUTBOX: what waits in mcp.webhook_outbox, in SQL, on one Postgres connection of the drainer's
 * thread. Each call waits for its answer by turning the thread's own loop, in bounded time, and is
 * one transaction. Rows are never held by an open transaction while Kafka is asked: outbox_take()
 * marks them as undecided before anything is sent, so that a crash in between costs a look into
 * Kafka and not a doubled record. Thread: the owner's. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "event.h"
#include "loop.h"

#include <stddef.h>

struct config;
struct outbox;

MUST_CHECK struct outbox *outbox_new(struct loop *loop, const struct config *config);
void outbox_free(struct outbox *outbox);
bool outbox_is_ready(const struct outbox *outbox);
/* Why the last call failed: valid until the next. */
const char *outbox_reason(const struct outbox *outbox);

/* How much waits for one topic. */
struct outbox_topic {
    char name[256];
    int64_t ready, undecided;
    int64_t bytes, largest; /* of bodies */
    int64_t oldest_us;      /* age */
};
#define OUTBOX_TOPICS_MAX 64
struct outbox_look {
    size_t count;
    struct outbox_topic topics[OUTBOX_TOPICS_MAX];
    int64_t stuck;
};
MUST_CHECK bool outbox_look(struct outbox *outbox, struct outbox_look *ret);

struct outbox_row {
    struct event_id id;
    int64_t undecided_since; /* Unix microseconds: this taking, by Postgres' clock */
    int64_t undecided_us;    /* its age; of outbox_take_undecided() alone */
    int64_t record_wall_us;  /* the time of the record that was or will be sent */
    int32_t key_partition;   /* -1 = not known */
    int32_t sent_partition;  /* -1 = not known */
    struct slice key, headers, body;
};
/* Rows, with the memory that they point into. */
struct outbox_rows {
    void *result; /* libpq's */
    size_t count;
    struct outbox_row *rows;
};
void outbox_rows_release(struct outbox_rows *rows);

struct outbox_wanted {
    const char *topic;
    const int32_t *skipped; /* partitions to leave out */
    size_t skipped_count;
    int32_t partition; /* this one alone; -1 = any */
    size_t count;
};
/* The oldest that nobody else takes, marked as undecided: they will be sent with `record_wall_us`.
 */
MUST_CHECK bool outbox_take(struct outbox *outbox, const struct outbox_wanted *wanted,
                            int64_t record_wall_us, struct outbox_rows *ret);
/* Those of the topic that were marked more than `age_us` ago. Without key, headers and body. */
MUST_CHECK bool outbox_take_undecided(struct outbox *outbox, const char *topic, int64_t age_us,
                                      size_t max, struct outbox_rows *ret);
/* May this instance look for undecided records of the topic? One does at a time; the right ends
 * with outbox_unlock() or the connection, which Postgres ends when nothing is asked for 20 s. */
MUST_CHECK bool outbox_lock(struct outbox *outbox, const char *topic);
void outbox_unlock(struct outbox *outbox, const char *topic);

enum outbox_end {
    OUTBOX_STAYS,     /* undecided; `partition` is where it was sent, -1 = not known */
    OUTBOX_PUBLISHED, /* receipt and row are settled */
    OUTBOX_RELEASED,  /* surely not in Kafka: ready to be taken again */
    OUTBOX_STUCK,     /* refused for good */
};
struct outbox_verdict {
    enum outbox_end end;
    int32_t partition;
    int64_t offset;
    const char *reason; /* of OUTBOX_STUCK; the first one's counts for all of a call */
};
/* One verdict per row. *ret_gone = rows that were published but had been settled by somebody else:
 * a record may be doubled. */
MUST_CHECK bool outbox_settle(struct outbox *outbox, const struct outbox_rows *rows,
                              const struct outbox_verdict *verdicts, size_t *ret_gone);
