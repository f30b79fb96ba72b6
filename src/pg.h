/* A Postgres connection in pipeline mode on a loop: connects, prepares its statements, reconnects
 * with backoff, and hands results over in order. It knows connections, not SQL; `store.c`,
 * `outbox.c`, `unhold_sql.c`, `lease_store.c` and `witness.c` are its users. Thread: the loop's. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "conninfo.h"
#include "loop.h"

#include <libpq-fe.h>

struct pg;

/* A statement that is prepared on every new connection, before it counts as ready. */
struct pg_statement {
    const char *name;
    const char *sql;
};

struct pg_handler {
    void (*on_ready)(void *context);
    /* One per statement, in order; the handler clears the result. PGRES_PIPELINE_ABORTED comes for
     * what follows an error. */
    void (*on_result)(void *context, PGresult *result);
    void (*on_sync)(void *context);                     /* a pg_sync() was answered */
    void (*on_lost)(void *context, const char *reason); /* nothing more comes for what was sent */
    /* Either may be NULL. An attempt failed, and another follows; the server sent a WARNING. */
    void (*on_unreachable)(void *context, const char *reason);
    void (*on_warning)(void *context);
};

/* `statements` (name NULL ends them) live as long as the connection; a reference to `conninfo` is
 * taken. Starts to connect at once. */
MUST_CHECK struct pg *pg_new(struct loop *loop, struct conninfo *conninfo,
                             const struct pg_statement *statements,
                             const struct pg_handler *handler, void *context);
void pg_free(struct pg *pg); /* without on_lost */

struct pg_param {
    const char *value; /* binary; NULL = SQL null */
    int len;
};
/* Queues a prepared statement with binary parameters and a binary result. Nothing goes out before
 * pg_sync(). Failure to queue is told by on_lost at the end of the turn. */
void pg_send(struct pg *pg, const char *statement, int count, const struct pg_param *params);
void pg_sync(struct pg *pg);

/* This server does what it should: after the next loss the first attempt comes at once. Until then
 * attempts come slower and slower, be it that connecting works. */
void pg_prove(struct pg *pg);
/* Gives the connection up: on_lost comes at the end of the turn, then it is made anew. */
void pg_drop(struct pg *pg, const char *reason);
