/* The connection behind session.h: libpq's non-blocking calls and poll(). Only connecting blocks,
 * on a thread of its own: libpq steps over a silent server of its list in no other way. Used by the
 * loader's thread and its upkeep. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "session.h"

#include "clock.h"
#include "conninfo.h"
#include "thread.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define SECOND INT64_C(1000000)
#define CONNECT_US (30 * SECOND) /* as in pg.c */
/* The server gives up after 10 s; past this it is the server itself that hangs. */
#define QUERY_US (12 * SECOND)

struct session {
    struct conninfo *conninfo;
    PQnoticeProcessor on_notice;
    PGconn *conn; /* NULL = closed */
    bool notified;
    char reason[401];
    int stop_fd;
    atomic_bool stopping;
};

/* A connection that is being made on its thread. The session gives it up at a stop or after
 * CONNECT_US; who of the two is last frees it. */
struct opening {
    struct conninfo *conninfo;
    PGconn *conn;
    int done_fd; /* readable = libpq has ended */
    atomic_uint holders;
};

struct session *session_new(struct conninfo *conninfo, PQnoticeProcessor on_notice)
{
    struct session *session = xcalloc(1, sizeof *session);
    session->conninfo = conninfo_ref(conninfo);
    session->on_notice = on_notice;
    session->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (session->stop_fd < 0)
        abort(); /* out of descriptors before serving began */
    return session;
}

void session_free(struct session *session)
{
    PQfinish(session->conn);
    close(session->stop_fd);
    conninfo_unref(session->conninfo);
    free(session);
}

/* Waits for `fd` (-1: for none), a stop or the deadline; true when it is ready. */
static bool wait_fd(struct session *session, int fd, short events, int64_t deadline)
{
    for (;;) {
        int64_t left = deadline - clock_mono_us();
        if (atomic_load(&session->stopping) || left <= 0)
            return false;
        struct pollfd fds[] = {
            {.fd = session->stop_fd, .events = POLLIN},
            {.fd = fd, .events = events},
        };
        int ready = poll(fds, 2, (int)(left / 1000) + 1);
        if (ready < 0 && errno != EINTR)
            return false;
        if (ready > 0 && fds[0].revents != 0)
            return false;
        if (ready > 0 && fds[1].revents != 0)
            return true;
    }
}

static bool wait_socket(struct session *session, short events, int64_t deadline)
{
    return wait_fd(session, PQsocket(session->conn), events, deadline);
}

void session_pause(struct session *session, int64_t deadline_us)
{
    wait_fd(session, -1, 0, deadline_us);
}

void session_close(struct session *session, const char *reason)
{
    if (reason[0] == '\0')
        reason = "Postgres does not answer in time";
    snprintf(session->reason, sizeof session->reason, "%.*s", (int)strcspn(reason, "\n"), reason);
    PQfinish(session->conn);
    session->conn = NULL;
    session->notified = false;
}

bool session_is_open(const struct session *session)
{
    return session->conn != NULL;
}

const char *session_reason(const struct session *session)
{
    return session->reason;
}

static void opening_leave(struct opening *opening)
{
    if (atomic_fetch_sub(&opening->holders, 1) > 1)
        return;
    PQfinish(opening->conn);
    conninfo_unref(opening->conninfo);
    close(opening->done_fd);
    free(opening);
}

static void *open_connection(void *argument)
{
    struct opening *opening = argument;
    opening->conn =
        PQconnectdbParams(conninfo_keywords(opening->conninfo), conninfo_values(opening->conninfo),
                          /* expand_dbname= */ 1);
    if (opening->conn == NULL)
        abort(); /* no memory */
    uint64_t one = 1;
    ssize_t written = write(opening->done_fd, &one, sizeof one);
    assert(written == sizeof one);
    opening_leave(opening);
    return NULL;
}

static struct opening *opening_start(struct conninfo *conninfo)
{
    struct opening *opening = xcalloc(1, sizeof *opening);
    opening->conninfo = conninfo_ref(conninfo);
    opening->done_fd = eventfd(0, EFD_CLOEXEC);
    atomic_init(&opening->holders, 2);
    pthread_t thread;
    if (opening->done_fd >= 0 && thread_start(&thread, open_connection, opening) == 0) {
        pthread_detach(thread);
        return opening;
    }
    conninfo_unref(opening->conninfo);
    if (opening->done_fd >= 0)
        close(opening->done_fd);
    free(opening);
    return NULL;
}

PGresult *session_query(struct session *session, const char *sql, int count,
                        const char *const *params)
{
    int64_t deadline = clock_mono_us() + QUERY_US;
    PGconn *conn = session->conn;
    PGresult *last = NULL;
    if (!PQsendQueryParams(conn, sql, count, NULL, params, NULL, NULL, 1))
        goto lost;
    for (int left; (left = PQflush(conn)) != 0;) {
        if (left < 0 || !wait_socket(session, POLLIN | POLLOUT, deadline) || !PQconsumeInput(conn))
            goto lost;
    }
    for (;;) {
        while (PQisBusy(conn)) {
            if (!wait_socket(session, POLLIN, deadline)) {
                PQclear(last);
                session_close(session, "Postgres does not answer in time");
                return NULL;
            }
            if (!PQconsumeInput(conn))
                goto lost;
        }
        PGresult *result = PQgetResult(conn);
        if (result == NULL)
            break;
        PQclear(last);
        last = result;
    }
    if (last != NULL && PQstatus(conn) == CONNECTION_OK)
        return last;
lost:
    PQclear(last);
    session_close(session, PQerrorMessage(conn));
    return NULL;
}

static bool succeeded(const PGresult *result)
{
    ExecStatusType status = PQresultStatus(result);
    return status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK;
}

static bool took_options(struct session *session)
{
    const char *options = conninfo_session_options(session->conninfo);
    char reason[sizeof session->reason];
    PGresult *result = session_query(session, conninfo_missing_sql, 1, &options);
    if (result != NULL && !succeeded(result))
        session_close(session, PQresultErrorMessage(result));
    else if (result != NULL && !conninfo_took(result, reason, sizeof reason))
        session_close(session, reason);
    PQclear(result);
    return session->conn != NULL;
}

bool session_open(struct session *session)
{
    struct opening *opening = opening_start(session->conninfo);
    if (opening == NULL) {
        session_close(session, "no thread to connect on");
        return false;
    }
    uint64_t one;
    if (wait_fd(session, opening->done_fd, POLLIN, clock_mono_us() + CONNECT_US) &&
        read(opening->done_fd, &one, sizeof one) == sizeof one) {
        session->conn = opening->conn;
        opening->conn = NULL;
    }
    opening_leave(opening);
    if (session->conn == NULL) {
        session_close(session, "Postgres does not take the connection in time");
        return false;
    }
    if (PQstatus(session->conn) == CONNECTION_BAD) {
        session_close(session, PQerrorMessage(session->conn));
        return false;
    }
    PQsetnonblocking(session->conn, 1);
    PQsetNoticeProcessor(session->conn, session->on_notice, NULL);
    return took_options(session);
}

PGresult *session_must_query(struct session *session, const char *sql)
{
    PGresult *result = session_query(session, sql, 0, NULL);
    if (result != NULL && !succeeded(result)) {
        session_close(session, PQresultErrorMessage(result));
        PQclear(result);
        return NULL;
    }
    return result;
}

bool session_must_run(struct session *session, const char *sql)
{
    PGresult *result = session_must_query(session, sql);
    PQclear(result);
    return result != NULL;
}

bool session_is_notified(struct session *session)
{
    if (session->conn == NULL)
        return false;
    for (PGnotify *notify; (notify = PQnotifies(session->conn)) != NULL; PQfreemem(notify))
        session->notified = true;
    return session->notified;
}

bool session_take_notified(struct session *session)
{
    bool notified = session_is_notified(session);
    session->notified = false;
    return notified;
}

void session_listen(struct session *session, int64_t deadline_us)
{
    if (!session_is_notified(session) && wait_socket(session, POLLIN, deadline_us) &&
        !PQconsumeInput(session->conn))
        session_close(session, PQerrorMessage(session->conn));
}

void session_stop(struct session *session)
{
    atomic_store(&session->stopping, true);
    uint64_t one = 1;
    ssize_t written = write(session->stop_fd, &one, sizeof one);
    assert(written == sizeof one);
}

const atomic_bool *session_stopping(const struct session *session)
{
    return &session->stopping;
}
