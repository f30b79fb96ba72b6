/* Builds libpq's connection parameters, and asks whether the server took them. Defaults stand
 * before the operator's conninfo and what must hold stands after it, because libpq lets the last
 * value of a keyword win. Called by pg.c's owner, the loader and `hookgate migrate`. Thread: any.
 */
/* SPDX-License-Identifier: Apache-2.0 */
#include "conninfo.h"

#include "secret_file.h"

#include <libpq-fe.h>
#include <openssl/crypto.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>

#define PARAMETERS_MAX 12

struct conninfo {
    atomic_uint references;
    const char *keywords[PARAMETERS_MAX + 1];
    const char *values[PARAMETERS_MAX + 1];
    size_t count;
    char *text;
    char *ours; /* the options that a session must have */
    char *options;
    char *password; /* NULL = none */
    char problem[256];
};

static void add(struct conninfo *conninfo, const char *keyword, const char *value)
{
    assert(conninfo->count < PARAMETERS_MAX);
    conninfo->keywords[conninfo->count] = keyword;
    conninfo->values[conninfo->count] = value;
    conninfo->count++;
}

static void read_password(struct conninfo *conninfo, const char *path)
{
    char *reason = NULL;
    conninfo->password = secret_file_password(path, &reason);
    if (conninfo->password == NULL)
        snprintf(conninfo->problem, sizeof conninfo->problem, "the Postgres password: %s", reason);
    free(reason);
}

/* Else it is a database's name. */
static bool expands(const char *text)
{
    return strchr(text, '=') != NULL || strstr(text, "://") != NULL;
}

const char *conninfo_text_problem(const char *text)
{
    if (!expands(text))
        return NULL;
    PQconninfoOption *parsed = PQconninfoParse(text, NULL);
    if (parsed == NULL)
        /* libpq's own words may quote the string, and somebody may have put a password there. */
        return "not valid; pairs of libpq's keywords with values, or a URI, would be right";
    PQconninfoFree(parsed);
    return NULL;
}

/* So that the server notices within half a minute that our host is gone, and lets go of locks and
 * claims. Its Unix sockets know no such thing, and ignore them. */
static const char keepalives[] =
    "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
    " -c tcp_user_timeout=25000";

/* The operator's own "options" stay in force where they don't contradict ours. */
static void join_options(struct conninfo *conninfo, const char *ours)
{
    char *theirs = NULL;
    const char *why = conninfo_text_problem(conninfo->text);
    if (why != NULL)
        snprintf(conninfo->problem, sizeof conninfo->problem, "the Postgres conninfo: %s", why);
    PQconninfoOption *parsed =
        expands(conninfo->text) ? PQconninfoParse(conninfo->text, NULL) : NULL;
    for (PQconninfoOption *o = parsed; o != NULL && o->keyword != NULL; o++) {
        if (strcmp(o->keyword, "options") == 0 && o->val != NULL && o->val[0] != '\0')
            theirs = o->val;
    }
    conninfo->ours = xstrdup(ours ? ours : "");
    size_t size = sizeof keepalives + (theirs ? strlen(theirs) : 0) + strlen(conninfo->ours) + 2;
    conninfo->options = xmalloc(size);
    snprintf(conninfo->options, size, "%s %s %s", keepalives, theirs ? theirs : "", conninfo->ours);
    PQconninfoFree(parsed);
}

struct conninfo *conninfo_new(const char *text, const char *password_file, const char *options)
{
    struct conninfo *conninfo = xcalloc(1, sizeof *conninfo);
    atomic_init(&conninfo->references, 1);
    conninfo->text = xstrdup(text ? text : "");
    join_options(conninfo, options);
    if (password_file != NULL)
        read_password(conninfo, password_file);

    /* Defaults that a conninfo may change. */
    add(conninfo, "fallback_application_name", "hookgate");
    add(conninfo, "connect_timeout", "2"); /* s, of each address: then the next one's turn comes */
    add(conninfo, "tcp_user_timeout", "5000");
    add(conninfo, "keepalives_idle", "30");
    add(conninfo, "keepalives_interval", "5");
    add(conninfo, "keepalives_count", "3");
    add(conninfo, "target_session_attrs", "read-write");
    add(conninfo, "dbname", conninfo->text);
    /* What it may not. */
    if (conninfo->password)
        add(conninfo, "password", conninfo->password);
    add(conninfo, "options", conninfo->options);
    add(conninfo, "client_encoding", "UTF8");
    return conninfo;
}

struct conninfo *conninfo_ref(struct conninfo *conninfo)
{
    atomic_fetch_add(&conninfo->references, 1);
    return conninfo;
}

void conninfo_unref(struct conninfo *conninfo)
{
    if (conninfo == NULL || atomic_fetch_sub(&conninfo->references, 1) > 1)
        return;
    if (conninfo->password)
        OPENSSL_cleanse(conninfo->password, strlen(conninfo->password));
    free(conninfo->password);
    free(conninfo->options);
    free(conninfo->ours);
    free(conninfo->text);
    free(conninfo);
}

const char *conninfo_problem(const struct conninfo *conninfo)
{
    return conninfo->problem[0] != '\0' ? conninfo->problem : NULL;
}

const char *const *conninfo_keywords(const struct conninfo *conninfo)
{
    return conninfo->keywords;
}

const char *const *conninfo_values(const struct conninfo *conninfo)
{
    return conninfo->values;
}

const char conninfo_missing_sql[] =
    "SELECT coalesce(string_agg(o[1] || ' is ' || current_setting(o[1]), ', '), '')"
    " FROM regexp_matches($1::text, '-c (\\w+)=(\\S+)', 'g') AS o"
    " WHERE CASE WHEN o[1] LIKE '%\\_timeout'"
    " THEN current_setting(o[1])::interval <> o[2]::interval"
    " ELSE current_setting(o[1]) <> o[2] END";

const char *conninfo_session_options(const struct conninfo *conninfo)
{
    return conninfo->ours;
}

bool conninfo_took(const PGresult *result, char *ret_reason, size_t size)
{
    const char *missing = PQgetvalue(result, 0, 0);
    if (missing[0] == '\0')
        return true;
    snprintf(ret_reason, size,
             "the server, or a pooler before it, did not take our session's settings: connect to"
             " Postgres directly, or through what hands on \"options\" (%s)",
             missing);
    return false;
}

PGconn *conninfo_connect(const char *text, const char *password_file, const char *options,
                         char **ret_reason)
{
    struct conninfo *conninfo = conninfo_new(text, password_file, options);
    const char *problem = conninfo_problem(conninfo);
    PGconn *conn = NULL;
    if (problem == NULL) {
        conn = PQconnectdbParams(conninfo->keywords, conninfo->values, /* expand_dbname= */ 1);
        problem = PQstatus(conn) == CONNECTION_OK ? NULL : PQerrorMessage(conn);
    }
    if (problem != NULL) {
        char *reason = *ret_reason = xstrdup(problem);
        for (size_t len = strlen(reason); len > 0 && reason[len - 1] == '\n';)
            reason[--len] = '\0';
        PQfinish(conn);
        conn = NULL;
    }
    conninfo_unref(conninfo);
    return conn;
}
