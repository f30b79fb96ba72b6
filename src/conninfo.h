/* What libpq needs to connect: the configured conninfo, the password from its file, and what we set
 * on every session, as the two arrays of PQconnectdbParams (expand_dbname = 1). Thread: any. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "obj.h"

#include <stdbool.h>

struct conninfo;
struct pg_conn;   /* libpq's PGconn */
struct pg_result; /* and PGresult */

/* Why libpq can't read such a text (a person's sentence that holds no part of it), or NULL. */
const char *conninfo_text_problem(const char *text);

/* `text` is a keyword/value string, a URI or a database's name. `password_file` NULL = none; one
 * trailing newline is trimmed. `options` ("-c name=value …", NULL = none) come after those of
 * `text`, so ours win; PGOPTIONS is not read then. Texts are copied. Never NULL: see
 * conninfo_problem(). */
MUST_CHECK struct conninfo *conninfo_new(const char *text, const char *password_file,
                                         const char *options);
/* Counted atomically: a connection that is being made on another thread holds one. */
struct conninfo *conninfo_ref(struct conninfo *conninfo);
/* The last one cleanses the password. */
void conninfo_unref(struct conninfo *conninfo);

/* Why it can't be used as it should (a person's sentence that holds no part of the conninfo), or
 * NULL. Connecting is still allowed, without the part that is missing. */
const char *conninfo_problem(const struct conninfo *conninfo);

/* For commands: connects and waits for it. NULL with *ret_reason (owned by the caller, perhaps
 * lines of it) when the conninfo can't be used as it should or no server takes us. */
MUST_CHECK struct pg_conn *conninfo_connect(const char *text, const char *password_file,
                                            const char *options, char **ret_reason);

/* Poolers drop `options` or parts of them: PgBouncer with ignore_startup_parameters. A session must
 * not do anything before this query, with conninfo_session_options() as its parameter, has told
 * that all were taken: its one row in text format goes to conninfo_took(). */
extern const char conninfo_missing_sql[];
const char *conninfo_session_options(const struct conninfo *conninfo);
MUST_CHECK bool conninfo_took(const struct pg_result *result, char *ret_reason, size_t size);

/* NULL-terminated; they live as long as the conninfo. */
const char *const *conninfo_keywords(const struct conninfo *conninfo);
const char *const *conninfo_values(const struct conninfo *conninfo);
