/* The loader's thread: one connection, LISTEN, and queries that never wait without a deadline or
 * past a stop. libpq's blocking calls are avoided because a frozen server would hold them for ever.
 * Called by serve. Thread: its own; only the callback leads out of it. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "loader.h"

#include "clock.h"
#include "config.h"
#include "conninfo.h"
#include "directory.h"
#include "directory_rows.h"
#include "log.h"
#include "metrics.h"
#include "migrate.h"
#include "pg_column.h"
#include "seal.h"
#include "setup.h"
#include "thread.h"

#include <errno.h>
#include <libpq-fe.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define SECOND INT64_C(1000000)
#define BACKOFF_MIN_US (SECOND / 10)
#define BACKOFF_MAX_US (2 * SECOND)
#define CONNECT_US (5 * SECOND)
/* The server gives up after 10 s; past this it is the server itself that hangs. */
#define QUERY_US (12 * SECOND)
#define RELOAD_GAP_US (SECOND / 20)
#define UPKEEP_US (60 * SECOND)
/* Deliveries that hold an old directory end within seconds. */
#define FREE_EVERY_US SECOND
#define PURGE_ROWS 5000
#define PURGE_PAUSE_US (SECOND / 50)
/* Receipts outlive claims: audits look back over a month. Not configurable yet. */
#define RECEIPTS_KEPT "30 days"

static const char session_options[] =
    "-c statement_timeout=10s -c lock_timeout=2s -c idle_in_transaction_session_timeout=10s"
    " -c client_min_messages=warning -c jit=off";

struct loader {
    loader_on_loaded *on_loaded;
    void *context;
    pthread_t thread;
    int stop_fd;
    atomic_bool stopping;

    /* What a directory is built from, and those that were; under the lock, because loader_take()
     * builds one on its caller's thread. */
    pthread_mutex_t lock;
    struct setup *setup;
    struct directory_rows rows;
    struct seal_keys *keys;
    struct directory **published; /* one reference each; oldest first */
    size_t published_count;
    size_t last_count;
    uint64_t skipped_told; /* the same complaints are told once */

    /* The thread's own. */
    struct conninfo *conninfo;
    struct metrics *metrics;
    PGconn *conn;
    int64_t next_load, next_upkeep;
    int64_t soonest_load; /* a burst of changes must not keep the thread loading without end */
    bool unused_left;     /* directories that are to be freed */
    bool lost_told;       /* one line per outage, not per attempt */
    char durability_told[512];
};

/* Waits for the socket, a stop or the deadline; true when the socket is ready. */
static bool wait_socket(struct loader *loader, short events, int64_t deadline)
{
    for (;;) {
        int64_t left = deadline - clock_mono_us();
        if (atomic_load(&loader->stopping) || left <= 0)
            return false;
        struct pollfd fds[] = {
            {.fd = loader->stop_fd, .events = POLLIN},
            {.fd = loader->conn ? PQsocket(loader->conn) : -1, .events = events},
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

static void pause_until(struct loader *loader, int64_t deadline)
{
    PGconn *conn = loader->conn;
    loader->conn = NULL;
    wait_socket(loader, 0, deadline);
    loader->conn = conn;
}

static void give_up(struct loader *loader, const char *reason)
{
    if (!atomic_load(&loader->stopping) && !loader->lost_told) {
        if (reason[0] == '\0')
            reason = "Postgres does not answer in time";
        size_t len = strcspn(reason, "\n");
        log_event(LOG_WARNING, "directory_lost", "%.*s", (int)(len > 400 ? 400 : len), reason);
        loader->lost_told = true;
    }
    PQfinish(loader->conn);
    loader->conn = NULL;
    metrics_add(loader->metrics, METRIC_DIRECTORY_FAILED, 1);
}

/* Runs one statement; NULL when the connection was given up. The result may be an error's. */
static PGresult *query(struct loader *loader, const char *sql, int count, const char *const *params)
{
    int64_t deadline = clock_mono_us() + QUERY_US;
    PGconn *conn = loader->conn;
    PGresult *last = NULL;
    if (!PQsendQueryParams(conn, sql, count, NULL, params, NULL, NULL, 1))
        goto lost;
    for (int left; (left = PQflush(conn)) != 0;) {
        if (left < 0 || !wait_socket(loader, POLLIN | POLLOUT, deadline) || !PQconsumeInput(conn))
            goto lost;
    }
    for (;;) {
        while (PQisBusy(conn)) {
            if (!wait_socket(loader, POLLIN, deadline)) {
                PQclear(last);
                give_up(loader, "Postgres does not answer in time");
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
    give_up(loader, PQerrorMessage(conn));
    return NULL;
}

static bool succeeded(const PGresult *result)
{
    ExecStatusType status = PQresultStatus(result);
    return status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK;
}

/* A statement that must succeed: an error of the server gives the connection up. */
static PGresult *must_query(struct loader *loader, const char *sql, int count,
                            const char *const *params)
{
    PGresult *result = query(loader, sql, count, params);
    if (result != NULL && !succeeded(result)) {
        give_up(loader, PQresultErrorMessage(result));
        PQclear(result);
        return NULL;
    }
    return result;
}

static bool must_run(struct loader *loader, const char *sql)
{
    PGresult *result = must_query(loader, sql, 0, NULL);
    PQclear(result);
    return result != NULL;
}

static void tell_skipped(struct loader *loader, const struct skipped_rows *skipped)
{
    if (skipped->hash == loader->skipped_told)
        return;
    loader->skipped_told = skipped->hash;
    size_t shown = skipped->count < SKIPPED_ROWS_MAX ? skipped->count : SKIPPED_ROWS_MAX;
    for (size_t i = 0; i < shown; i++)
        log_event(LOG_WARNING, "directory_row_skipped", "%s: %s", skipped->rows[i].id,
                  skipped->rows[i].reason);
    if (skipped->count > shown)
        log_event(LOG_WARNING, "directory_row_skipped", "and %zu more rows",
                  skipped->count - shown);
}

/* ---- from here to the next line like this: with the lock ---- */

/* Frees the directories that no loop and no delivery has any more; the newest stays. */
static void free_unused(struct loader *loader)
{
    size_t kept = 0;
    for (size_t i = 0; i < loader->published_count; i++) {
        struct directory *directory = loader->published[i];
        if (i + 1 == loader->published_count || directory_is_shared(directory))
            loader->published[kept++] = directory;
        else
            directory_unref(directory);
    }
    loader->published_count = kept;
}

static void keep(struct loader *loader, struct directory *directory)
{
    free_unused(loader);
    loader->published =
        xrealloc(loader->published, (loader->published_count + 1) * sizeof(struct directory *));
    loader->published[loader->published_count++] = directory;
}

/* From the rows that were read last; `news` makes it worth a line. */
static void publish(struct loader *loader, int64_t began, bool news)
{
    struct skipped_rows skipped;
    struct directory *directory = directory_rows_build(&loader->rows, loader->setup, loader->keys,
                                                       &loader->stopping, &skipped);
    if (atomic_load(&loader->stopping)) {
        directory_unref(directory);
        return;
    }
    tell_skipped(loader, &skipped);
    size_t count = directory_count(directory);
    news |= loader->published_count == 0 || count != loader->last_count;
    log_event(news ? LOG_INFO : LOG_DEBUG, "directory_loaded", "%zu integrations in %lld ms", count,
              (long long)((clock_mono_us() - began) / 1000));
    metrics_set(loader->metrics, METRIC_DIRECTORY_SIZE, (int64_t)count);
    loader->last_count = count;
    keep(loader, directory);
    loader->on_loaded(loader->setup, directory, loader->context);
}

/* Takes over rows and keys. What comes out as it went in is not built again: preparing ten thousand
 * secrets costs far more than comparing them. */
static void take_rows(struct loader *loader, struct directory_rows *rows, struct seal_keys *keys,
                      int64_t began)
{
    bool same = loader->rows.integrations != NULL && directory_rows_equal(&loader->rows, rows) &&
                seal_keys_equal(loader->keys, keys);
    directory_rows_release(&loader->rows);
    seal_keys_free(loader->keys);
    loader->rows = *rows;
    loader->keys = keys;
    if (!same)
        publish(loader, began, loader->lost_told);
    else if (loader->lost_told)
        log_event(LOG_INFO, "directory_loaded", "%zu integrations, unchanged", loader->last_count);
    loader->lost_told = false;
    metrics_set(loader->metrics, METRIC_DIRECTORY_LOADED, clock_wall_us() / SECOND);
}

/* ---- without the lock ---- */

static struct setup *present_setup(struct loader *loader)
{
    pthread_mutex_lock(&loader->lock);
    struct setup *setup = setup_ref(loader->setup);
    pthread_mutex_unlock(&loader->lock);
    return setup;
}

/* The three tables as of one moment. */
static bool read_rows(struct loader *loader, struct directory_rows *ret)
{
    bool fine = must_run(loader, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") &&
                (ret->integrations =
                     must_query(loader, directory_rows_integrations_sql, 0, NULL)) != NULL &&
                (ret->secrets = must_query(loader, directory_rows_secrets_sql, 0, NULL)) != NULL &&
                must_run(loader, "COMMIT");
    if (!fine)
        directory_rows_release(ret);
    return fine;
}

/* Read anew each time, so that a key is rotated without a restart. *ret NULL = none is named. */
static bool read_keys(const struct setup *setup, struct seal_keys **ret, char **ret_reason)
{
    const char *path = setup->config->postgres.key_file;
    *ret = path != NULL ? seal_keys_read(path, ret_reason) : NULL;
    return path == NULL || *ret != NULL;
}

/* False: the last directory stays. */
static bool load_for(struct loader *loader, const struct setup *setup, int64_t began)
{
    char *reason = NULL;
    struct seal_keys *keys;
    struct directory_rows rows = {0};
    if (!read_keys(setup, &keys, &reason)) {
        if (!loader->lost_told)
            log_event(LOG_ERROR, "directory_lost", "postgres.key_file: %s", reason);
        free(reason);
        loader->lost_told = true;
        metrics_add(loader->metrics, METRIC_DIRECTORY_FAILED, 1);
        return false;
    }
    if (!read_rows(loader, &rows)) {
        seal_keys_free(keys);
        return false;
    }
    pthread_mutex_lock(&loader->lock);
    bool current = loader->setup == setup; /* else the keys may be of another file: once more */
    if (current)
        take_rows(loader, &rows, keys, began);
    pthread_mutex_unlock(&loader->lock);
    if (!current) {
        directory_rows_release(&rows);
        seal_keys_free(keys);
    }
    return current;
}

static bool load(struct loader *loader)
{
    int64_t began = clock_mono_us();
    struct setup *setup = present_setup(loader);
    bool fine = load_for(loader, setup, began);
    int64_t now = clock_mono_us(), took = now - began;
    loader->next_load = now + (fine ? setup->config->postgres.refresh_us : BACKOFF_MAX_US);
    loader->soonest_load = now + (took > RELOAD_GAP_US ? took : RELOAD_GAP_US);
    setup_unref(setup);
    return fine;
}

bool loader_take(struct loader *loader, struct setup *setup, char **ret_reason)
{
    struct seal_keys *keys;
    if (!read_keys(setup, &keys, ret_reason))
        return false;
    pthread_mutex_lock(&loader->lock);
    setup_unref(loader->setup);
    loader->setup = setup_ref(setup);
    seal_keys_free(loader->keys);
    loader->keys = keys;
    if (loader->rows.integrations != NULL)
        publish(loader, clock_mono_us(), true);
    else
        loader->on_loaded(setup, NULL, loader->context);
    pthread_mutex_unlock(&loader->lock);
    return true;
}

/* ---- upkeep ---- */

/* One number from a function of ours; -1 when it failed, which is told and not fatal: the upkeep
 * comes again within a minute. */
static int32_t call(struct loader *loader, const char *sql, int count, const char *const *params)
{
    PGresult *result = query(loader, sql, count, params);
    int32_t value = -1;
    if (result != NULL && PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1)
        value = column_int32_at(result, 0, 0, -1);
    else if (result != NULL)
        log_event(LOG_WARNING, "upkeep_failed", "%s",
                  PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY));
    PQclear(result);
    return value;
}

static void put_seconds(char *text, size_t size, int64_t us)
{
    snprintf(text, size, "%lld seconds", (long long)(us / SECOND));
}

/* Returns true when old claims may be left: what the directory needs comes before them. */
static bool purge(struct loader *loader)
{
    char window[48], rows[16];
    struct setup *setup = present_setup(loader);
    put_seconds(window, sizeof window, setup->config->postgres.dedup_window_us);
    setup_unref(setup);
    snprintf(rows, sizeof rows, "%d", PURGE_ROWS);
    const char *const params[] = {window, rows};
    for (;;) {
        int32_t purged = call(loader, "SELECT mcp.purge_claims($1::interval, $2::int)", 2, params);
        if (purged < PURGE_ROWS || loader->conn == NULL)
            return false;
        pause_until(loader, clock_mono_us() + PURGE_PAUSE_US);
        if (atomic_load(&loader->stopping) || clock_mono_us() >= loader->next_load)
            return true;
        PGnotify *notify = PQconsumeInput(loader->conn) ? PQnotifies(loader->conn) : NULL;
        if (notify != NULL) {
            PQfreemem(notify);
            loader->next_load = clock_mono_us();
            return true;
        }
    }
}

static void purge_security_events(struct loader *loader)
{
    char kept[48], rows[16];
    struct setup *setup = present_setup(loader);
    put_seconds(kept, sizeof kept, setup->config->postgres.security_events_us);
    setup_unref(setup);
    snprintf(rows, sizeof rows, "%d", PURGE_ROWS);
    const char *const params[] = {kept, rows};
    call(loader, "SELECT mcp.purge_security_events($1::interval, $2::int)", 2, params);
}

/* A server whose commits are less durable than they look: told when it changes, and once a minute
 * to Prometheus. */
static void check_durability(struct loader *loader)
{
    PGresult *result = query(loader, "SELECT mcp.durability_problems()", 0, NULL);
    if (result == NULL)
        return;
    if (PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1) {
        const char *problems = PQgetvalue(result, 0, 0);
        metrics_set(loader->metrics, METRIC_STORE_WEAK, problems[0] != '\0');
        if (strncmp(problems, loader->durability_told, sizeof loader->durability_told - 1) != 0)
            log_event(problems[0] != '\0' ? LOG_WARNING : LOG_INFO, "store_durability", "%s",
                      problems[0] != '\0' ? problems : "Postgres is as durable as it should be");
        snprintf(loader->durability_told, sizeof loader->durability_told, "%s", problems);
    }
    PQclear(result);
}

/* One instance looks, all tell what is found. */
static void check_accounts(struct loader *loader, bool look)
{
    if (look)
        call(loader, "SELECT mcp.find_unaccounted()", 0, NULL);
    if (loader->conn == NULL)
        return;
    int32_t count = call(loader, "SELECT count(*)::int FROM mcp.webhook_unaccounted", 0, NULL);
    if (count >= 0)
        metrics_set(loader->metrics, METRIC_UNACCOUNTED, count);
}

static void upkeep(struct loader *loader)
{
    loader->next_upkeep = clock_mono_us() + UPKEEP_US;
    call(loader, "SELECT mcp.ensure_event_partitions(7)", 0, NULL);
    if (loader->conn != NULL)
        check_durability(loader);
    /* One instance at a time; the lock goes with the session, if need be. */
    bool locked = loader->conn != NULL &&
                  call(loader, "SELECT pg_try_advisory_lock(hashtext('hookgate.upkeep'), 0)::int",
                       0, NULL) == 1;
    if (loader->conn != NULL)
        check_accounts(loader, locked);
    if (loader->conn == NULL || !locked)
        return;
    if (purge(loader))
        loader->next_upkeep = clock_mono_us();
    else if (loader->conn != NULL)
        call(loader, "SELECT mcp.drop_event_partitions('" RECEIPTS_KEPT "')", 0, NULL);
    if (loader->conn != NULL)
        purge_security_events(loader);
    if (loader->conn != NULL)
        call(loader, "SELECT mcp.purge_quotas()", 0, NULL);
    if (loader->conn != NULL)
        call(loader, "SELECT pg_advisory_unlock(hashtext('hookgate.upkeep'), 0)::int", 0, NULL);
}

static bool schema_is_current(struct loader *loader)
{
    PGresult *result = query(
        loader, "SELECT coalesce(max(version), 0)::int FROM hookgate.schema_migrations", 0, NULL);
    if (result == NULL)
        return false;
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    char text[160];
    bool fine = false;
    if (PQresultStatus(result) == PGRES_TUPLES_OK) {
        int version = column_int32_at(result, 0, 0, 0);
        fine = version >= SCHEMA_VERSION;
        snprintf(text, sizeof text,
                 "the database has schema version %d, %d is needed: run hookgate migrate", version,
                 SCHEMA_VERSION);
    } else if (state != NULL && (strcmp(state, "42P01") == 0 || strcmp(state, "3F000") == 0)) {
        snprintf(text, sizeof text, "the database has no schema yet: run hookgate migrate");
    } else {
        snprintf(text, sizeof text, "%s", PQresultErrorMessage(result));
    }
    PQclear(result);
    if (!fine)
        give_up(loader, text);
    return fine;
}

static void on_notice(void *context, const char *message)
{
    (void)context;
    log_event(LOG_WARNING, "directory_notice", "%.*s", (int)strcspn(message, "\n"), message);
}

/* Leaves loader->conn NULL when it failed. */
static void connect_postgres(struct loader *loader)
{
    int64_t deadline = clock_mono_us() + CONNECT_US;
    loader->conn = PQconnectStartParams(conninfo_keywords(loader->conninfo),
                                        conninfo_values(loader->conninfo), 1);
    if (loader->conn == NULL)
        abort(); /* no memory */
    PostgresPollingStatusType status =
        PQstatus(loader->conn) == CONNECTION_BAD ? PGRES_POLLING_FAILED : PGRES_POLLING_WRITING;
    while (status == PGRES_POLLING_READING || status == PGRES_POLLING_WRITING) {
        short events = status == PGRES_POLLING_READING ? POLLIN : POLLOUT;
        if (!wait_socket(loader, events, deadline)) {
            give_up(loader, "Postgres does not take the connection in time");
            return;
        }
        status = PQconnectPoll(loader->conn);
    }
    if (status != PGRES_POLLING_OK) {
        give_up(loader, PQerrorMessage(loader->conn));
        return;
    }
    PQsetnonblocking(loader->conn, 1);
    PQsetNoticeProcessor(loader->conn, on_notice, NULL);
    /* Listening before loading, so that no change falls between. */
    if (schema_is_current(loader) && must_run(loader, "LISTEN hookgate_directory"))
        loader->next_load = loader->next_upkeep = clock_mono_us();
}

/* A notification makes a load due, but never within the gap. */
static void take_notifications(struct loader *loader)
{
    for (PGnotify *notify; (notify = PQnotifies(loader->conn)) != NULL; PQfreemem(notify)) {
        int64_t now = clock_mono_us();
        int64_t wanted = loader->soonest_load > now ? loader->soonest_load : now;
        if (wanted < loader->next_load)
            loader->next_load = wanted;
    }
}

/* Sleeps until something is due. A notification that came while a query ran was read with its
 * result: the socket won't tell of it again. */
static void wait_for_work(struct loader *loader)
{
    take_notifications(loader);
    int64_t due = loader->next_load < loader->next_upkeep ? loader->next_load : loader->next_upkeep;
    if (loader->unused_left && due > clock_mono_us() + FREE_EVERY_US)
        due = clock_mono_us() + FREE_EVERY_US;
    if (due <= clock_mono_us() || !wait_socket(loader, POLLIN, due))
        return;
    if (!PQconsumeInput(loader->conn)) {
        give_up(loader, PQerrorMessage(loader->conn));
        return;
    }
    take_notifications(loader);
}

static void *loader_main(void *context)
{
    struct loader *loader = context;
    int64_t backoff = BACKOFF_MIN_US;
    while (!atomic_load(&loader->stopping)) {
        pthread_mutex_lock(&loader->lock);
        free_unused(loader);
        loader->unused_left = loader->published_count > 1;
        pthread_mutex_unlock(&loader->lock);
        if (loader->conn == NULL)
            connect_postgres(loader);
        else if (clock_mono_us() >= loader->next_load && load(loader))
            backoff = BACKOFF_MIN_US;
        else if (loader->conn != NULL && clock_mono_us() >= loader->next_upkeep)
            upkeep(loader);
        else if (loader->conn != NULL)
            wait_for_work(loader);
        if (loader->conn == NULL) {
            pause_until(loader, clock_mono_us() + backoff);
            backoff = backoff * 2 > BACKOFF_MAX_US ? BACKOFF_MAX_US : backoff * 2;
        }
    }
    PQfinish(loader->conn);
    loader->conn = NULL;
    return NULL;
}

struct loader *loader_start(struct setup *setup, loader_on_loaded *on_loaded, void *context)
{
    struct loader *loader = xcalloc(1, sizeof *loader);
    const struct config *config = setup->config;
    pthread_mutex_init(&loader->lock, NULL);
    loader->setup = setup_ref(setup);
    loader->on_loaded = on_loaded;
    loader->context = context;
    loader->conninfo =
        conninfo_new(config->postgres.conninfo, config->postgres.password_file, session_options);
    if (conninfo_problem(loader->conninfo) != NULL)
        log_event(LOG_ERROR, "directory_lost", "%s", conninfo_problem(loader->conninfo));
    loader->metrics = metrics_shard_new();
    loader->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loader->stop_fd < 0)
        abort(); /* out of descriptors before serving began */
    if (thread_start(&loader->thread, loader_main, loader) != 0)
        abort();
    return loader;
}

void loader_stop(struct loader *loader)
{
    if (loader == NULL)
        return;
    atomic_store(&loader->stopping, true);
    uint64_t one = 1;
    ssize_t written = write(loader->stop_fd, &one, sizeof one);
    assert(written == sizeof one);
    pthread_join(loader->thread, NULL);
    close(loader->stop_fd);
    conninfo_unref(loader->conninfo);
    for (size_t i = 0; i < loader->published_count; i++)
        directory_unref(loader->published[i]);
    free(loader->published);
    directory_rows_release(&loader->rows);
    seal_keys_free(loader->keys);
    setup_unref(loader->setup);
    pthread_mutex_destroy(&loader->lock);
    free(loader);
}
