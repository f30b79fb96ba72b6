/* The loader's thread: one connection, LISTEN, and queries that never wait without a deadline or
 * past a stop. libpq's blocking calls are avoided because a frozen server would hold them for ever.
 * Called by serve. Thread: its own; only the callback leads out of it. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "loader.h"

#include "clock.h"
#include "config.h"
#include "conninfo.h"
#include "directory.h"
#include "log.h"
#include "metrics.h"
#include "migrate.h"
#include "platform.h"
#include "seal.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <libpq-fe.h>
#include <openssl/crypto.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
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
#define PURGE_ROWS 5000
#define PURGE_PAUSE_US (SECOND / 50)
/* Receipts outlive claims: audits look back over a month. Not configurable yet. */
#define RECEIPTS_KEPT "30 days"
#define SKIPPED_MAX 20

static const char session_options[] =
    "-c statement_timeout=10s -c lock_timeout=2s -c idle_in_transaction_session_timeout=10s"
    " -c client_min_messages=warning -c jit=off";

/* A row that can't be used: its id and why (static text). */
struct skipped {
    char id[SEAL_UUID_TEXT];
    const char *reason;
};

struct loader {
    const struct config *config;
    const struct platforms *platforms;
    loader_on_loaded *on_loaded;
    void *context;
    pthread_t thread;
    int stop_fd;
    atomic_bool stopping;

    /* The thread's own. */
    struct conninfo *conninfo;
    struct metrics *metrics;
    PGconn *conn;
    int64_t next_load, next_upkeep;
    int64_t soonest_load; /* a burst of changes must not keep the thread loading without end */
    size_t last_count;
    bool loaded_once;
    bool lost_told; /* one line per outage, not per attempt */
    struct skipped skipped[SKIPPED_MAX];
    size_t skipped_count;
    uint64_t skipped_hash, skipped_told; /* the same complaints are told once */
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

static int32_t get_int4(const PGresult *result, int row, int column)
{
    uint32_t value;
    memcpy(&value, PQgetvalue(result, row, column), sizeof value);
    return (int32_t)ntohl(value);
}

static int64_t get_int8(const PGresult *result, int row, int column)
{
    uint64_t value;
    memcpy(&value, PQgetvalue(result, row, column), sizeof value);
    return (int64_t)be64toh(value);
}

static void skip(struct loader *loader, const char *id, const char *reason)
{
    for (const char *p = id; *p != '\0'; p++)
        loader->skipped_hash = (loader->skipped_hash ^ (unsigned char)*p) * 0x100000001b3U;
    for (const char *p = reason; *p != '\0'; p++)
        loader->skipped_hash = (loader->skipped_hash ^ (unsigned char)*p) * 0x100000001b3U;
    if (loader->skipped_count < SKIPPED_MAX) {
        struct skipped *skipped = &loader->skipped[loader->skipped_count];
        snprintf(skipped->id, sizeof skipped->id, "%s", id);
        skipped->reason = reason;
    }
    loader->skipped_count++;
}

static void tell_skipped(struct loader *loader)
{
    if (loader->skipped_hash == loader->skipped_told)
        return;
    loader->skipped_told = loader->skipped_hash;
    size_t shown = loader->skipped_count < SKIPPED_MAX ? loader->skipped_count : SKIPPED_MAX;
    for (size_t i = 0; i < shown; i++)
        log_event(LOG_WARNING, "directory_row_skipped", "%s: %s", loader->skipped[i].id,
                  loader->skipped[i].reason);
    if (loader->skipped_count > shown)
        log_event(LOG_WARNING, "directory_row_skipped", "and %zu more rows",
                  loader->skipped_count - shown);
}

/* A text[] in binary form: dimensions, flag, type, then per dimension size and lower bound, then
 * each element's length and bytes. */
struct texts {
    const char **items;
    size_t count;
    char *bytes;
};

static struct texts get_texts(const PGresult *result, int row, int column)
{
    struct texts texts = {0};
    size_t len = (size_t)PQgetlength(result, row, column);
    const char *p = PQgetvalue(result, row, column), *end = p + len;
    uint32_t head[5] = {0};
    if (len < sizeof head) /* no dimension: an empty array */
        return texts;
    memcpy(head, p, sizeof head);
    size_t count = ntohl(head[3]);
    p += sizeof head;
    if (ntohl(head[0]) != 1 || count > len / 4)
        return texts;
    texts.items = xcalloc(count, sizeof *texts.items);
    texts.bytes = xmalloc(len);
    char *out = texts.bytes;
    while (texts.count < count && end - p >= 4) {
        uint32_t size;
        memcpy(&size, p, sizeof size);
        size = ntohl(size);
        p += sizeof size;
        if (size > (size_t)(end - p)) /* NULL is told as 0xffffffff; the trigger lets none in */
            break;
        texts.items[texts.count++] = out;
        memcpy(out, p, size);
        out[size] = '\0';
        out += size + 1;
        p += size;
    }
    return texts;
}

static void texts_release(struct texts *texts)
{
    free(texts->items);
    free(texts->bytes);
}

static const char integrations_sql[] =
    "SELECT i.integration_id, i.integration_id::text, i.workspace_id, i.platform, i.status,"
    " i.endpoint_token, w.plan = 'enterprise', i.account_ids, i.emails, i.domains"
    " FROM core.integrations i JOIN core.workspaces w USING (workspace_id)"
    /* Of two integrations of one workspace with the same account the first counts. */
    " ORDER BY i.status <> 'connected', i.created_at, i.integration_id";
/* The one that most deliveries are signed with first. An infinite not_after has no microseconds. */
static const char secrets_sql[] =
    "SELECT integration_id, secret_id::text, sealed,"
    " CASE WHEN isfinite(not_after) THEN (extract(epoch FROM not_after) * 1000000)::int8 ELSE 0 END"
    " FROM core.integration_secrets WHERE not_after IS NULL OR not_after > now()"
    " ORDER BY integration_id, array_position('{current,next,retiring}', state), created_at DESC";

static const char *open_secret(const struct seal_keys *keys, const struct platform *platform,
                               const char *owner, const PGresult *rows, int row,
                               struct keyring *keyring)
{
    if (keys == NULL)
        return "a sealed secret, but postgres.key_file is not set";
    if (keyring->count == SECRETS_MAX)
        return "more live secrets than are tried";
    struct slice sealed = {PQgetvalue(rows, row, 2), (size_t)PQgetlength(rows, row, 2)};
    unsigned char plain[SEAL_PLAIN_MAX];
    size_t len = 0;
    if (!seal_open(keys, slice_of(owner), sealed, plain, &len))
        return "the secret does not open with the key file for this integration";
    const char *reason = "the secret is not usable";
    int64_t not_after = PQgetisnull(rows, row, 3) ? 0 : get_int8(rows, row, 3);
    struct secret *secret =
        secret_new(platform, PQgetvalue(rows, row, 1), (struct slice){(const char *)plain, len},
                   not_after, &reason);
    OPENSSL_cleanse(plain, sizeof plain);
    if (secret == NULL)
        return reason;
    keyring->secrets[keyring->count++] = secret;
    return NULL;
}

/* The first row of `secrets`, which are sorted by integration, that is not before `uuid`. */
static int first_secret(const PGresult *secrets, const char *uuid)
{
    int low = 0, high = PQntuples(secrets);
    while (low < high) {
        int middle = low + (high - low) / 2;
        if (memcmp(PQgetvalue(secrets, middle, 0), uuid, 16) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void add_row(struct loader *loader, struct directory_builder *builder,
                    const struct seal_keys *keys, const PGresult *rows, int row,
                    const PGresult *secrets)
{
    const char *uuid = PQgetvalue(rows, row, 0), *id = PQgetvalue(rows, row, 1);
    const char *name = PQgetvalue(rows, row, 3);
    const struct platform *platform = platforms_find(loader->platforms, slice_of(name));
    if (platform == NULL) {
        skip(loader, id, "an integration of a platform that is not loaded");
        return;
    }
    struct keyring keyring = {0};
    int end = first_secret(secrets, uuid), begin = end;
    for (; end < PQntuples(secrets) && memcmp(PQgetvalue(secrets, end, 0), uuid, 16) == 0; end++) {
        const char *reason = open_secret(keys, platform, id, secrets, end, &keyring);
        if (reason != NULL)
            skip(loader, PQgetvalue(secrets, end, 1), reason);
    }
    /* Its owner wants signatures checked on the endpoint route: without a usable secret the token
     * alone must not do, so the route is closed. */
    bool closed = end > begin && keyring.count == 0;
    if (closed)
        skip(loader, id, "none of its secrets is usable: its endpoint is closed");
    struct texts accounts = get_texts(rows, row, 7), emails = get_texts(rows, row, 8),
                 domains = get_texts(rows, row, 9);
    struct integration *integration = directory_builder_add(
        builder, &(struct directory_row){
                     .integration_id = id,
                     .workspace = PQgetvalue(rows, row, 2),
                     .platform = name,
                     .status = PQgetvalue(rows, row, 4),
                     .token = closed || PQgetisnull(rows, row, 5) ? NULL : PQgetvalue(rows, row, 5),
                     .unlimited = PQgetvalue(rows, row, 6)[0] != 0,
                     .accounts = accounts.items,
                     .account_count = accounts.count,
                     .emails = emails.items,
                     .email_count = emails.count,
                     .domains = domains.items,
                     .domain_count = domains.count,
                 });
    if (integration != NULL) {
        integration->secrets = keyring;
    } else {
        keyring_release(&keyring);
        skip(loader, id, "an integration with an unknown status");
    }
    texts_release(&accounts);
    texts_release(&emails);
    texts_release(&domains);
}

static struct directory *build(struct loader *loader, const struct seal_keys *keys,
                               const PGresult *rows, const PGresult *secrets)
{
    struct directory_builder *builder = directory_builder_new();
    loader->skipped_count = 0;
    loader->skipped_hash = 0;
    for (int row = 0; row < PQntuples(rows); row++) {
        if (row % 1000 == 0 && atomic_load(&loader->stopping))
            break;
        add_row(loader, builder, keys, rows, row, secrets);
    }
    tell_skipped(loader);
    return directory_builder_finish(builder);
}

static void publish(struct loader *loader, struct directory *directory, int64_t began)
{
    size_t count = directory_count(directory);
    bool news = !loader->loaded_once || loader->lost_told || count != loader->last_count;
    log_event(news ? LOG_INFO : LOG_DEBUG, "directory_loaded", "%zu integrations in %lld ms", count,
              (long long)((clock_mono_us() - began) / 1000));
    metrics_set(loader->metrics, METRIC_DIRECTORY_SIZE, (int64_t)count);
    metrics_set(loader->metrics, METRIC_DIRECTORY_LOADED, clock_wall_us() / SECOND);
    loader->last_count = count;
    loader->loaded_once = true;
    loader->lost_told = false;
    loader->on_loaded(directory, loader->context);
}

/* The three tables as of one moment. False: the last directory stays. */
static bool load_rows(struct loader *loader, const struct seal_keys *keys, int64_t began)
{
    PGresult *rows = NULL, *secrets = NULL;
    bool fine = must_run(loader, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") &&
                (rows = must_query(loader, integrations_sql, 0, NULL)) != NULL &&
                (secrets = must_query(loader, secrets_sql, 0, NULL)) != NULL &&
                must_run(loader, "COMMIT");
    if (fine) {
        struct directory *directory = build(loader, keys, rows, secrets);
        if (atomic_load(&loader->stopping))
            directory_unref(directory);
        else
            publish(loader, directory, began);
    }
    PQclear(rows);
    PQclear(secrets);
    return fine;
}

static bool load(struct loader *loader)
{
    int64_t began = clock_mono_us();
    struct seal_keys *keys = NULL;
    bool fine = true;
    if (loader->config->postgres.key_file != NULL) {
        /* Read anew each time, so that a key is rotated without a restart. */
        const char *reason = NULL;
        keys =
            seal_keys_read(config_path(loader->config, loader->config->postgres.key_file), &reason);
        fine = keys != NULL;
        if (!fine && !loader->lost_told) {
            log_event(LOG_ERROR, "directory_lost", "postgres.key_file: %s", reason);
            loader->lost_told = true;
        }
        if (!fine)
            metrics_add(loader->metrics, METRIC_DIRECTORY_FAILED, 1);
    }
    fine = fine && load_rows(loader, keys, began);
    seal_keys_free(keys);
    int64_t now = clock_mono_us(), took = now - began;
    loader->next_load = now + (fine ? loader->config->postgres.refresh_us : BACKOFF_MAX_US);
    loader->soonest_load = now + (took > RELOAD_GAP_US ? took : RELOAD_GAP_US);
    return fine;
}

/* One number from a function of ours; -1 when it failed, which is told and not fatal: the upkeep
 * comes again within a minute. */
static int32_t call(struct loader *loader, const char *sql, int count, const char *const *params)
{
    PGresult *result = query(loader, sql, count, params);
    int32_t value = -1;
    if (result != NULL && PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1)
        value = get_int4(result, 0, 0);
    else if (result != NULL)
        log_event(LOG_WARNING, "upkeep_failed", "%s",
                  PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY));
    PQclear(result);
    return value;
}

/* Returns true when old claims may be left: what the directory needs comes before them. */
static bool purge(struct loader *loader)
{
    char window[48], rows[16];
    snprintf(window, sizeof window, "%lld seconds",
             (long long)(loader->config->postgres.dedup_window_us / SECOND));
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
    snprintf(kept, sizeof kept, "%lld seconds",
             (long long)(loader->config->postgres.security_events_us / SECOND));
    snprintf(rows, sizeof rows, "%d", PURGE_ROWS);
    const char *const params[] = {kept, rows};
    call(loader, "SELECT mcp.purge_security_events($1::interval, $2::int)", 2, params);
}

static void upkeep(struct loader *loader)
{
    loader->next_upkeep = clock_mono_us() + UPKEEP_US;
    call(loader, "SELECT mcp.ensure_event_partitions(7)", 0, NULL);
    /* One instance at a time; the lock goes with the session, if need be. */
    if (loader->conn == NULL ||
        call(loader, "SELECT pg_try_advisory_lock(hashtext('hookgate.upkeep'), 0)::int", 0, NULL) !=
            1)
        return;
    if (purge(loader))
        loader->next_upkeep = clock_mono_us();
    else if (loader->conn != NULL)
        call(loader, "SELECT mcp.drop_event_partitions('" RECEIPTS_KEPT "')", 0, NULL);
    if (loader->conn != NULL)
        purge_security_events(loader);
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
        int version = get_int4(result, 0, 0);
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

/* Sleeps until something is due; a notification makes a load due, but never within the gap. */
static void wait_for_work(struct loader *loader)
{
    int64_t due = loader->next_load < loader->next_upkeep ? loader->next_load : loader->next_upkeep;
    if (due <= clock_mono_us() || !wait_socket(loader, POLLIN, due))
        return;
    if (!PQconsumeInput(loader->conn)) {
        give_up(loader, PQerrorMessage(loader->conn));
        return;
    }
    for (PGnotify *notify; (notify = PQnotifies(loader->conn)) != NULL; PQfreemem(notify)) {
        int64_t now = clock_mono_us();
        int64_t wanted = loader->soonest_load > now ? loader->soonest_load : now;
        if (wanted < loader->next_load)
            loader->next_load = wanted;
    }
}

static void *loader_main(void *context)
{
    struct loader *loader = context;
    int64_t backoff = BACKOFF_MIN_US;
    while (!atomic_load(&loader->stopping)) {
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

struct loader *loader_start(const struct config *config, const struct platforms *platforms,
                            loader_on_loaded *on_loaded, void *context)
{
    struct loader *loader = xcalloc(1, sizeof *loader);
    loader->config = config;
    loader->platforms = platforms;
    loader->on_loaded = on_loaded;
    loader->context = context;
    const char *password_file = config->postgres.password_file;
    loader->conninfo =
        conninfo_new(config->postgres.conninfo,
                     password_file ? config_path(config, password_file) : NULL, session_options);
    if (conninfo_problem(loader->conninfo) != NULL)
        log_event(LOG_ERROR, "directory_lost", "%s", conninfo_problem(loader->conninfo));
    loader->metrics = metrics_shard_new();
    loader->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loader->stop_fd < 0)
        abort(); /* out of descriptors before serving began */
    /* Signals are the main thread's. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int failed = pthread_create(&loader->thread, NULL, loader_main, loader);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (failed != 0)
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
    free(loader);
}
