/* SESSION: a Postgres connection for a thread that may wait, but neither past a deadline nor past a
 * stop. libpq's blocking calls are avoided because a frozen server would hold them for ever; that
 * which connects has a thread of its own. The connection is given up whenever the server does not
 * answer as it should; the owner sees that it is closed, and opens it again. Thread: the owner's,
 * session_stop() excepted. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "obj.h"

#include <libpq-fe.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct conninfo;
struct session;

/* Closed at first. Takes a reference to `conninfo`, whose options should bound each statement by 10
 * seconds: the session gives up after 12. `on_notice` gets the server's warnings. */
MUST_CHECK struct session *session_new(struct conninfo *conninfo, PQnoticeProcessor on_notice);
void session_free(struct session *session);

/* False: session_reason() tells. Waits 30 s at most: silent servers of a list take 2 s each. */
MUST_CHECK bool session_open(struct session *session);
bool session_is_open(const struct session *session);
/* Gives the connection up; "" = it was not answered in time. */
void session_close(struct session *session, const char *reason);
/* Why it was closed last, in one line. */
const char *session_reason(const struct session *session);

/* Runs one statement, with text parameters and a binary result, which the caller clears and which
 * may be an error's. NULL = the connection was given up. The session must be open. */
MUST_CHECK PGresult *session_query(struct session *session, const char *sql, int count,
                                   const char *const *params);
/* A statement without parameters that must succeed: an error of the server gives the connection up
 * too. */
MUST_CHECK PGresult *session_must_query(struct session *session, const char *sql);
MUST_CHECK bool session_must_run(struct session *session, const char *sql);

/* Has a notification come that nobody has taken? Looks at what was read, be it with the result of a
 * statement: the socket won't tell of that again. */
MUST_CHECK bool session_is_notified(struct session *session);
/* The same, and takes all. */
MUST_CHECK bool session_take_notified(struct session *session);
/* Waits for a notification, or anything else that the server says by itself, until the deadline
 * (monotonic) or a stop. May find the connection lost. */
void session_listen(struct session *session, int64_t deadline_us);
/* Until the deadline or a stop, whatever the server says. */
void session_pause(struct session *session, int64_t deadline_us);

/* Ends all waits, now and from now on. Thread: any. */
void session_stop(struct session *session);
/* Lives as long as the session. Thread: any. */
const atomic_bool *session_stopping(const struct session *session);
