/* Applies sql/NNN_name.sql in order, each in a transaction of its own, under one session advisory
 * lock. What was applied is remembered with its SHA-256, so an edited, missing or skipped file is
 * refused and not guessed about. Called by `hookgate migrate`. Thread: the caller's, blocking. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate.h"

#include "conninfo.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libpq-fe.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define FILES_MAX 999
#define FILE_BYTES_MAX (1024 * 1024)
#define LOCK_TRIES 600 /* of 100 ms */

struct migration {
    char *name; /* "001_core.sql" */
    char *text;
    char checksum[65]; /* SHA-256, hex */
    int version;
    bool applied;
};

struct migrate {
    const struct migrate_options *options;
    FILE *out, *err;
    PGconn *conn;
    struct migration files[FILES_MAX];
    size_t count;
};

/* NNN_name.sql; 0 = it isn't. */
static int version_of(const char *name)
{
    size_t len = strlen(name);
    if (len < 9 || strcmp(name + len - 4, ".sql") != 0 || name[3] != '_')
        return 0;
    int version = 0;
    for (size_t i = 0; i < 3; i++) {
        if (!isdigit((unsigned char)name[i]))
            return 0;
        version = version * 10 + (name[i] - '0');
    }
    for (size_t i = 4; i < len - 4; i++) {
        if (!islower((unsigned char)name[i]) && !isdigit((unsigned char)name[i]) && name[i] != '_')
            return 0;
    }
    return version;
}

static bool read_file(struct migrate *migrate, struct migration *file)
{
    const char *why = NULL;
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", migrate->options->directory, file->name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) {
        why = strerror(errno);
    } else if (!S_ISREG(st.st_mode) || st.st_size > FILE_BYTES_MAX) {
        why = "not a file of at most 1 MiB";
    } else {
        size_t size = (size_t)st.st_size, len = 0;
        file->text = xmalloc(size + 1);
        ssize_t got = 0;
        while (len < size && (got = read(fd, file->text + len, size - len)) > 0)
            len += (size_t)got;
        file->text[len] = '\0';
        if (len != size)
            why = "could not be read whole";
        else if (strlen(file->text) != len)
            why = "holds a NUL byte";
    }
    if (fd >= 0)
        close(fd);
    if (why != NULL)
        fprintf(migrate->err, "%s: %s\n", path, why);
    return why == NULL;
}

static int by_name(const void *a, const void *b)
{
    const struct migration *left = a, *right = b;
    return strcmp(left->name, right->name);
}

static bool list_files(struct migrate *migrate)
{
    const char *directory = migrate->options->directory;
    DIR *dir = opendir(directory);
    if (dir == NULL) {
        fprintf(migrate->err, "%s: %s\n", directory, strerror(errno));
        return false;
    }
    bool fine = true;
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        size_t len = strlen(entry->d_name);
        if (len < 4 || strcmp(entry->d_name + len - 4, ".sql") != 0)
            continue;
        int version = version_of(entry->d_name);
        if (version == 0 || migrate->count == FILES_MAX) {
            fprintf(migrate->err, "%s/%s: a migration is named NNN_name.sql (001_core.sql)\n",
                    directory, entry->d_name);
            fine = false;
            continue;
        }
        struct migration *file = &migrate->files[migrate->count++];
        file->name = xstrdup(entry->d_name);
        file->version = version;
    }
    closedir(dir);
    qsort(migrate->files, migrate->count, sizeof *migrate->files, by_name);
    for (size_t i = 0; fine && i < migrate->count; i++) {
        if (migrate->files[i].version != (int)i + 1) {
            fprintf(migrate->err,
                    "%s/%s: version %03zu was expected here; numbers run from 001 without gaps\n",
                    directory, migrate->files[i].name, i + 1);
            fine = false;
        } else {
            fine = read_file(migrate, &migrate->files[i]);
        }
    }
    if (fine && migrate->count < SCHEMA_VERSION) {
        fprintf(migrate->err, "%s: this program needs version %03d; these files are older\n",
                directory, SCHEMA_VERSION);
        fine = false;
    }
    return fine;
}

static bool complain(struct migrate *migrate, const char *doing)
{
    fprintf(migrate->err, "%s: %s", doing, PQerrorMessage(migrate->conn));
    return false;
}

static bool run(struct migrate *migrate, const char *sql, const char *doing)
{
    PGresult *result = PQexec(migrate->conn, sql);
    ExecStatusType status = PQresultStatus(result);
    PQclear(result);
    if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK)
        return true;
    return complain(migrate, doing);
}

static bool run_params(struct migrate *migrate, const char *sql, int count,
                       const char *const *params, PGresult **ret_result)
{
    PGresult *result = PQexecParams(migrate->conn, sql, count, NULL, params, NULL, NULL, 0);
    ExecStatusType status = PQresultStatus(result);
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) {
        PQclear(result);
        return complain(migrate, "the migration's record");
    }
    if (ret_result != NULL)
        *ret_result = result;
    else
        PQclear(result);
    return true;
}

/* Two migrates at a time would apply a file twice. The lock is the session's: it goes with it. */
static bool take_lock(struct migrate *migrate)
{
    for (int i = 0; i < LOCK_TRIES; i++) {
        PGresult *result =
            PQexec(migrate->conn, "SELECT pg_try_advisory_lock(hashtext('hookgate.migrate'), 0)");
        bool fine = PQresultStatus(result) == PGRES_TUPLES_OK;
        bool got = fine && strcmp(PQgetvalue(result, 0, 0), "t") == 0;
        PQclear(result);
        if (!fine)
            return complain(migrate, "the migration lock");
        if (got)
            return true;
        if (i == 0)
            fprintf(migrate->out, "waiting for another migrate to end\n"), fflush(migrate->out);
        nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
    }
    fprintf(migrate->err, "another migrate has held the lock for a minute; given up\n");
    return false;
}

/* The server computes the digests: one implementation less in here. */
static bool compute_checksums(struct migrate *migrate)
{
    for (size_t i = 0; i < migrate->count; i++) {
        struct migration *file = &migrate->files[i];
        const char *const params[] = {file->text};
        PGresult *result;
        if (!run_params(migrate, "SELECT encode(sha256(convert_to($1::text, 'UTF8')), 'hex')", 1,
                        params, &result))
            return false;
        snprintf(file->checksum, sizeof file->checksum, "%s", PQgetvalue(result, 0, 0));
        PQclear(result);
    }
    return true;
}

static bool compare_applied(struct migrate *migrate, const char *version_text, const char *name,
                            const char *checksum)
{
    const char *directory = migrate->options->directory;
    long version = strtol(version_text, NULL, 10);
    if (version < 1 || version > (long)migrate->count) {
        fprintf(
            migrate->err,
            "the database has version %s (%s), which %s does not hold: it was migrated by a newer "
            "hookgate; use that one's files\n",
            version_text, name, directory);
        return false;
    }
    struct migration *file = &migrate->files[version - 1];
    if (strcmp(file->name, name) != 0 || strcmp(file->checksum, checksum) != 0) {
        fprintf(migrate->err,
                "%s/%s: differs from what was applied as %s; put the old file back and write the "
                "change as a new one, %03zu_….sql\n",
                directory, file->name, name, migrate->count + 1);
        return false;
    }
    file->applied = true;
    return true;
}

static bool read_applied(struct migrate *migrate)
{
    PGresult *result;
    if (!run_params(migrate, "SELECT to_regclass('hookgate.schema_migrations') IS NOT NULL", 0,
                    NULL, &result))
        return false;
    bool exists = strcmp(PQgetvalue(result, 0, 0), "t") == 0;
    PQclear(result);
    if (!exists)
        return true;
    if (!run_params(
            migrate,
            "SELECT version, name, checksum FROM hookgate.schema_migrations ORDER BY version", 0,
            NULL, &result))
        return false;
    bool fine = true;
    for (int i = 0; i < PQntuples(result); i++) {
        if (!compare_applied(migrate, PQgetvalue(result, i, 0), PQgetvalue(result, i, 1),
                             PQgetvalue(result, i, 2)))
            fine = false;
    }
    PQclear(result);
    for (size_t i = 1; fine && i < migrate->count; i++) {
        if (migrate->files[i].applied && !migrate->files[i - 1].applied) {
            fprintf(migrate->err,
                    "version %s was applied, but %s before it was not: the database's record has a "
                    "gap\n",
                    migrate->files[i].name, migrate->files[i - 1].name);
            fine = false;
        }
    }
    return fine;
}

/* "file:line: what Postgres said". */
static void complain_about(struct migrate *migrate, const struct migration *file,
                           const PGresult *result)
{
    const char *position = PQresultErrorField(result, PG_DIAG_STATEMENT_POSITION);
    const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    const char *detail = PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL);
    long line = 0;
    if (position != NULL) {
        /* It counts characters of UTF-8, from 1. */
        long left = strtol(position, NULL, 10);
        line = 1;
        for (const char *p = file->text; *p != '\0' && left > 1; p++) {
            left -= ((unsigned char)p[1] & 0xc0) != 0x80;
            line += *p == '\n';
        }
    }
    fprintf(migrate->err, "%s/%s:", migrate->options->directory, file->name);
    if (line > 0)
        fprintf(migrate->err, "%ld:", line);
    fprintf(migrate->err, " %s%s%s\n", message ? message : PQerrorMessage(migrate->conn),
            detail ? "; " : "", detail ? detail : "");
}

static bool apply(struct migrate *migrate, const struct migration *file)
{
    if (!run(migrate, "BEGIN; SET LOCAL lock_timeout = '2s'", "the migration's transaction"))
        return false;
    PGresult *result = PQexec(migrate->conn, file->text);
    ExecStatusType status = PQresultStatus(result);
    bool fine =
        status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK || status == PGRES_EMPTY_QUERY;
    if (!fine) {
        complain_about(migrate, file, result);
    } else if (PQtransactionStatus(migrate->conn) != PQTRANS_INTRANS) {
        fprintf(migrate->err, "%s/%s: a migration must not begin or end transactions itself\n",
                migrate->options->directory, file->name);
        fine = false;
    }
    PQclear(result);
    char version[16];
    snprintf(version, sizeof version, "%d", file->version);
    const char *const params[] = {version, file->name, file->checksum};
    fine = fine &&
           run_params(migrate,
                      "INSERT INTO hookgate.schema_migrations (version, name, checksum) VALUES "
                      "($1::int, $2, $3)",
                      3, params, NULL) &&
           run(migrate, "COMMIT", file->name);
    if (fine)
        fprintf(migrate->out, "applied %s\n", file->name), fflush(migrate->out);
    return fine;
}

static bool prepare(struct migrate *migrate)
{
    if (migrate->options->dry_run)
        return true;
    return run(migrate,
               "BEGIN; CREATE SCHEMA IF NOT EXISTS hookgate;"
               "COMMENT ON SCHEMA hookgate IS 'The gateway''s own book-keeping.';"
               "CREATE TABLE IF NOT EXISTS hookgate.schema_migrations ("
               " version int PRIMARY KEY, name text NOT NULL, checksum text NOT NULL,"
               " applied_at timestamptz NOT NULL DEFAULT now());"
               "COMMENT ON TABLE hookgate.schema_migrations IS"
               " 'Which files of sql/ were applied, with the SHA-256 each had. Written by "
               "`hookgate migrate`.';"
               "COMMIT",
               "hookgate.schema_migrations");
}

static bool apply_pending(struct migrate *migrate)
{
    size_t pending = 0;
    for (size_t i = 0; i < migrate->count; i++) {
        const struct migration *file = &migrate->files[i];
        if (file->applied)
            continue;
        pending++;
        if (migrate->options->dry_run)
            fprintf(migrate->out, "would apply %s\n", file->name);
        else if (!apply(migrate, file))
            return false;
    }
    if (pending == 0)
        fprintf(migrate->out, "up to date\n");
    if (migrate->options->dry_run)
        return true;
    return run(migrate, "SET lock_timeout = '2s'; SELECT mcp.ensure_event_partitions(7)",
               "the receipts' partitions");
}

static bool connect_postgres(struct migrate *migrate)
{
    char *reason = NULL;
    migrate->conn = conninfo_connect(migrate->options->conninfo, migrate->options->password_file,
                                     "-c client_min_messages=warning", &reason);
    if (migrate->conn == NULL)
        fprintf(migrate->err, "Postgres: %s\n", reason);
    free(reason);
    return migrate->conn != NULL;
}

bool migrate_run(const struct migrate_options *options, FILE *out, FILE *err)
{
    struct migrate *migrate = xcalloc(1, sizeof *migrate);
    *migrate = (struct migrate){.options = options, .out = out, .err = err};
    bool fine = list_files(migrate) && connect_postgres(migrate) && take_lock(migrate) &&
                compute_checksums(migrate) && prepare(migrate) && read_applied(migrate) &&
                apply_pending(migrate);
    PQfinish(migrate->conn);
    for (size_t i = 0; i < migrate->count; i++) {
        free(migrate->files[i].name);
        free(migrate->files[i].text);
    }
    free(migrate);
    return fine;
}
