/* The connection behind pg.h. Connecting, which looks up names and may try several servers, runs on
 * a thread of its own: libpq blocks in it for as long as DNS does. The finished connection comes
 * back by message, and from there everything is asynchronous in pipeline mode. The states are
 * connecting, preparing, ready and waiting to connect again; `set_state` is their only mover. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "pg.h"

#include "clock.h"
#include "thread.h"

#include <stdio.h>

/* libpq leaves a silent server of its list by itself (conninfo.c). This is for what nothing else
 * bounds: looking up names. */
#define CONNECT_US 30000000
#define PREPARE_US 3000000
#define BACKOFF_MIN_US 100000
#define BACKOFF_MAX_US 1600000

enum pg_state { PG_WAITING, PG_CONNECTING, PG_PREPARING, PG_READY };

/* A connection that is being made on its thread. Whoever gives up meanwhile takes `pg` away. */
struct opening {
    struct loop_task task;
    struct loop *loop;
    struct pg *pg;
    struct conninfo *conninfo;
    PGconn *conn;
};

struct pg {
    struct loop *loop;
    struct conninfo *conninfo;
    const struct pg_statement *statements;
    const struct pg_handler *handler;
    void *context;

    enum pg_state state;
    struct opening *opening; /* while connecting */
    PGconn *conn;            /* NULL while waiting or connecting */
    struct loop_watch watch;
    struct loop_timer timer; /* of connecting, of preparing, or backoff */
    struct loop_task lost;   /* tells on_lost at the end of the turn */
    size_t outstanding;      /* statements and syncs not answered yet */
    int64_t backoff_us;
    char error[400];
};

static void connect_start(struct pg *pg);

static void set_state(struct pg *pg, enum pg_state state)
{
    static const unsigned allowed[] = {
        [PG_WAITING] = 1u << PG_CONNECTING | 1u << PG_WAITING,
        [PG_CONNECTING] = 1u << PG_PREPARING | 1u << PG_WAITING,
        [PG_PREPARING] = 1u << PG_READY | 1u << PG_WAITING,
        [PG_READY] = 1u << PG_WAITING,
    };
    assert(allowed[pg->state] & 1u << state);
    pg->state = state;
}

/* The first line is enough for a log, and libpq never puts the password into it. */
static void keep_error(struct pg *pg, const char *text)
{
    size_t len = strcspn(text, "\n");
    snprintf(pg->error, sizeof pg->error, "%.*s", (int)len, text);
}

static void disconnect(struct pg *pg)
{
    if (pg->opening)
        pg->opening->pg = NULL;
    pg->opening = NULL;
    loop_unwatch(pg->loop, &pg->watch);
    PQfinish(pg->conn);
    pg->conn = NULL;
    pg->outstanding = 0;
}

/* Half of the backoff is random, so that instances that lost one server don't come back in step. */
static void schedule_reconnect(struct pg *pg)
{
    int64_t wait = pg->backoff_us / 2 + random() % (pg->backoff_us / 2 + 1);
    pg->backoff_us = pg->backoff_us < BACKOFF_MIN_US       ? BACKOFF_MIN_US
                     : pg->backoff_us * 2 > BACKOFF_MAX_US ? BACKOFF_MAX_US
                                                           : pg->backoff_us * 2;
    loop_timer_set(pg->loop, &pg->timer, clock_mono_us() + wait);
}

static void on_lost_task(struct loop_task *task)
{
    struct pg *pg = container_of(task, struct pg, lost);
    pg->handler->on_lost(pg->context, pg->error);
}

void pg_drop(struct pg *pg, const char *reason)
{
    bool was_ready = pg->state == PG_READY;
    if (pg->state == PG_WAITING)
        return;
    keep_error(pg, reason);
    if (!was_ready && pg->handler->on_unreachable)
        pg->handler->on_unreachable(pg->context, pg->error);
    disconnect(pg);
    set_state(pg, PG_WAITING);
    schedule_reconnect(pg);
    if (was_ready)
        loop_defer(pg->loop, &pg->lost);
}

void pg_prove(struct pg *pg)
{
    pg->backoff_us = 0;
}

/* libpq tells in pipeline mode by PQflush whether it still has something to write. */
static void flush(struct pg *pg)
{
    int rc = PQflush(pg->conn);
    if (rc < 0) {
        pg_drop(pg, PQerrorMessage(pg->conn));
        return;
    }
    loop_watch(pg->loop, &pg->watch, PQsocket(pg->conn), LOOP_READ | (rc ? LOOP_WRITE : 0));
}

static void prepare_statements(struct pg *pg)
{
    set_state(pg, PG_PREPARING);
    loop_timer_set(pg->loop, &pg->timer, clock_mono_us() + PREPARE_US);
    bool ok = PQsetnonblocking(pg->conn, 1) == 0 && PQenterPipelineMode(pg->conn);
    const char *options = conninfo_session_options(pg->conninfo);
    ok = ok && PQsendQueryParams(pg->conn, conninfo_missing_sql, 1, NULL, &options, NULL, NULL, 0);
    pg->outstanding++;
    for (const struct pg_statement *s = pg->statements; ok && s->name; s++, pg->outstanding++)
        ok = PQsendPrepare(pg->conn, s->name, s->sql, 0, NULL);
    ok = ok && PQpipelineSync(pg->conn);
    pg->outstanding++;
    if (!ok) {
        pg_drop(pg, PQerrorMessage(pg->conn));
        return;
    }
    flush(pg);
}

static void take_prepared(struct pg *pg, const PGresult *result)
{
    ExecStatusType status = PQresultStatus(result);
    char reason[sizeof pg->error];
    if (status == PGRES_PIPELINE_SYNC) {
        loop_timer_clear(pg->loop, &pg->timer);
        pg->error[0] = '\0';
        set_state(pg, PG_READY);
        pg->handler->on_ready(pg->context);
    } else if (status == PGRES_TUPLES_OK) {
        if (!conninfo_took(result, reason, sizeof reason))
            pg_drop(pg, reason);
    } else if (status != PGRES_COMMAND_OK) {
        pg_drop(pg, PQresultErrorMessage(result));
    }
}

static void take_result(struct pg *pg, PGresult *result)
{
    bool is_sync = PQresultStatus(result) == PGRES_PIPELINE_SYNC;
    pg->outstanding--;
    if (pg->state == PG_PREPARING) {
        take_prepared(pg, result);
        PQclear(result);
    } else if (is_sync) {
        PQclear(result);
        pg->handler->on_sync(pg->context);
    } else {
        pg->handler->on_result(pg->context, result);
    }
}

static void read_results(struct pg *pg)
{
    if (!PQconsumeInput(pg->conn)) {
        pg_drop(pg, PQerrorMessage(pg->conn));
        return;
    }
    while (pg->outstanding > 0 && !PQisBusy(pg->conn)) {
        PGresult *result = PQgetResult(pg->conn);
        if (result == NULL) /* the end of one statement's results */
            continue;
        take_result(pg, result);
        if (pg->conn == NULL) /* a handler gave the connection up */
            return;
    }
    if (PQstatus(pg->conn) == CONNECTION_BAD)
        pg_drop(pg, PQerrorMessage(pg->conn));
    else
        flush(pg);
}

static void on_socket(struct loop_watch *watch, unsigned events)
{
    struct pg *pg = container_of(watch, struct pg, watch);
    if (events & LOOP_READ)
        read_results(pg);
    else
        flush(pg);
}

static void on_timer(struct loop_timer *timer)
{
    struct pg *pg = container_of(timer, struct pg, timer);
    if (pg->state == PG_WAITING)
        connect_start(pg);
    else
        pg_drop(pg, "no answer while connecting");
}

static void on_notice(void *context, const PGresult *result)
{
    struct pg *pg = context;
    const char *severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);
    if (severity && strcmp(severity, "WARNING") == 0 && pg->handler->on_warning)
        pg->handler->on_warning(pg->context);
}

static void on_opened(struct loop_task *task)
{
    struct opening *opening = container_of(task, struct opening, task);
    struct pg *pg = opening->pg;
    PGconn *conn = opening->conn;
    conninfo_unref(opening->conninfo);
    free(opening);
    if (pg == NULL) {
        PQfinish(conn);
        return;
    }
    pg->opening = NULL;
    pg->conn = conn;
    if (PQstatus(conn) == CONNECTION_BAD) {
        pg_drop(pg, PQerrorMessage(conn));
        return;
    }
    PQsetNoticeReceiver(conn, on_notice, pg);
    prepare_statements(pg);
}

static void *open_connection(void *argument)
{
    struct opening *opening = argument;
    opening->conn =
        PQconnectdbParams(conninfo_keywords(opening->conninfo), conninfo_values(opening->conninfo),
                          /* expand_dbname= */ 1);
    if (opening->conn == NULL)
        abort();
    loop_post(opening->loop, &opening->task);
    return NULL;
}

static void connect_start(struct pg *pg)
{
    set_state(pg, PG_CONNECTING);
    loop_timer_set(pg->loop, &pg->timer, clock_mono_us() + CONNECT_US);
    struct opening *opening = xcalloc(1, sizeof *opening);
    opening->task.run = on_opened;
    opening->loop = pg->loop;
    opening->pg = pg;
    opening->conninfo = conninfo_ref(pg->conninfo);
    pg->opening = opening;

    pthread_t thread;
    if (thread_start(&thread, open_connection, opening) == 0) {
        pthread_detach(thread);
        return;
    }
    conninfo_unref(opening->conninfo);
    free(opening);
    pg->opening = NULL;
    pg_drop(pg, "no thread to connect on");
}

struct pg *pg_new(struct loop *loop, struct conninfo *conninfo,
                  const struct pg_statement *statements, const struct pg_handler *handler,
                  void *context)
{
    struct pg *pg = xcalloc(1, sizeof *pg);
    pg->loop = loop;
    pg->conninfo = conninfo_ref(conninfo);
    pg->statements = statements;
    pg->handler = handler;
    pg->context = context;
    pg->backoff_us = BACKOFF_MIN_US;
    pg->watch.on_ready = on_socket;
    pg->timer.on_due = on_timer;
    pg->lost.run = on_lost_task;
    connect_start(pg);
    return pg;
}

void pg_free(struct pg *pg)
{
    if (pg == NULL)
        return;
    loop_timer_clear(pg->loop, &pg->timer);
    loop_cancel(&pg->lost);
    disconnect(pg);
    conninfo_unref(pg->conninfo);
    free(pg);
}

#define PARAMS_MAX 16

void pg_send(struct pg *pg, const char *statement, int count, const struct pg_param *params)
{
    const char *values[PARAMS_MAX];
    int lengths[PARAMS_MAX], formats[PARAMS_MAX];
    assert(count <= PARAMS_MAX);
    if (pg->state != PG_READY) /* given up earlier in this turn: on_lost is on its way */
        return;
    for (int i = 0; i < count; i++) {
        values[i] = params[i].value;
        lengths[i] = params[i].len;
        formats[i] = 1;
    }
    pg->outstanding++;
    if (!PQsendQueryPrepared(pg->conn, statement, count, values, lengths, formats, 1))
        pg_drop(pg, PQerrorMessage(pg->conn));
}

void pg_sync(struct pg *pg)
{
    if (pg->state != PG_READY)
        return;
    pg->outstanding++;
    if (!PQpipelineSync(pg->conn))
        pg_drop(pg, PQerrorMessage(pg->conn));
    else
        flush(pg);
}
