/* The loader's thread: one session, LISTEN, and what is due next: a load, upkeep, or a directory
 * that nobody has any more. Called by serve, and by reload, on whose thread loader_take() builds
 * and calls back. Else its own thread; only the callback leads out of it. */
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
#include "session.h"
#include "setup.h"
#include "thread.h"
#include "upkeep.h"

#include <stdio.h>

#define SECOND INT64_C(1000000)
#define BACKOFF_MIN_US (SECOND / 10)
#define BACKOFF_MAX_US (2 * SECOND)
#define RELOAD_GAP_US (SECOND / 20)
#define UPKEEP_US (60 * SECOND) /* below idle_session_timeout */
/* Deliveries that hold an old directory end within seconds. */
#define FREE_EVERY_US SECOND

/* The session's lock for the upkeep must not stay with an instance that is frozen. One that runs
 * asks something every minute. */
static const char session_options[] =
    "-c statement_timeout=10s -c lock_timeout=2s -c idle_in_transaction_session_timeout=10s"
    " -c idle_session_timeout=120s -c client_min_messages=warning -c jit=off";

struct loader {
    loader_on_loaded *on_loaded;
    void *context;
    pthread_t thread;
    struct session *session;

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
    struct metrics *metrics;
    struct upkeep upkeep;
    int64_t next_load, next_upkeep;
    int64_t soonest_load; /* a burst of changes must not keep the thread loading without end */
    bool unused_left;     /* directories that are to be freed */
    bool lost_told;       /* one line per outage, not per attempt */
};

static bool is_stopping(const struct loader *loader)
{
    return atomic_load(session_stopping(loader->session));
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
                                                       session_stopping(loader->session), &skipped);
    if (is_stopping(loader)) {
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
static bool read_rows(struct session *session, struct directory_rows *ret)
{
    bool fine = session_must_run(session, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") &&
                (ret->integrations =
                     session_must_query(session, directory_rows_integrations_sql)) != NULL &&
                (ret->secrets = session_must_query(session, directory_rows_secrets_sql)) != NULL &&
                session_must_run(session, "COMMIT");
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
    if (!read_rows(loader->session, &rows)) {
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

/* After loads: what the directory needs comes before. */
static void keep_up(struct loader *loader)
{
    loader->next_upkeep = clock_mono_us() + UPKEEP_US;
    struct setup *setup = present_setup(loader);
    if (upkeep_run(&loader->upkeep, loader->session, setup->config, loader->next_load))
        loader->next_upkeep = clock_mono_us();
    setup_unref(setup);
}

static bool schema_is_current(struct session *session)
{
    PGresult *result = session_query(
        session, "SELECT coalesce(max(version), 0)::int FROM hookgate.schema_migrations", 0, NULL);
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
        session_close(session, text);
    return fine;
}

static void on_notice(void *context, const char *message)
{
    (void)context;
    log_event(LOG_WARNING, "directory_notice", "%.*s", (int)strcspn(message, "\n"), message);
}

/* Listening before loading, so that no change falls between. */
static void open_session(struct loader *loader)
{
    if (session_open(loader->session) && schema_is_current(loader->session) &&
        session_must_run(loader->session, "LISTEN hookgate_directory"))
        loader->next_load = loader->next_upkeep = clock_mono_us();
}

/* A notification makes a load due, but never within the gap. */
static void take_notifications(struct loader *loader)
{
    if (!session_take_notified(loader->session))
        return;
    int64_t now = clock_mono_us();
    int64_t wanted = loader->soonest_load > now ? loader->soonest_load : now;
    if (wanted < loader->next_load)
        loader->next_load = wanted;
}

/* Sleeps until something is due. */
static void wait_for_work(struct loader *loader)
{
    int64_t due = loader->next_load < loader->next_upkeep ? loader->next_load : loader->next_upkeep;
    if (loader->unused_left && due > clock_mono_us() + FREE_EVERY_US)
        due = clock_mono_us() + FREE_EVERY_US;
    session_listen(loader->session, due);
}

static void tell_lost(struct loader *loader)
{
    metrics_add(loader->metrics, METRIC_DIRECTORY_FAILED, 1);
    if (is_stopping(loader) || loader->lost_told)
        return;
    log_event(LOG_WARNING, "directory_lost", "%s", session_reason(loader->session));
    loader->lost_told = true;
}

static void *loader_main(void *context)
{
    struct loader *loader = context;
    struct session *session = loader->session;
    int64_t backoff = BACKOFF_MIN_US;
    while (!is_stopping(loader)) {
        pthread_mutex_lock(&loader->lock);
        free_unused(loader);
        loader->unused_left = loader->published_count > 1;
        pthread_mutex_unlock(&loader->lock);
        take_notifications(loader);
        if (!session_is_open(session))
            open_session(loader);
        else if (clock_mono_us() >= loader->next_load && load(loader))
            backoff = BACKOFF_MIN_US;
        else if (session_is_open(session) && clock_mono_us() >= loader->next_upkeep)
            keep_up(loader);
        else if (session_is_open(session))
            wait_for_work(loader);
        if (!session_is_open(session)) {
            tell_lost(loader);
            session_pause(session, clock_mono_us() + backoff);
            backoff = backoff * 2 > BACKOFF_MAX_US ? BACKOFF_MAX_US : backoff * 2;
        }
    }
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
    struct conninfo *conninfo =
        conninfo_new(config->postgres.conninfo, config->postgres.password_file, session_options);
    if (conninfo_problem(conninfo) != NULL)
        log_event(LOG_ERROR, "directory_lost", "%s", conninfo_problem(conninfo));
    loader->session = session_new(conninfo, on_notice);
    conninfo_unref(conninfo);
    loader->metrics = loader->upkeep.metrics = metrics_shard_new();
    if (thread_start(&loader->thread, loader_main, loader) != 0)
        abort();
    return loader;
}

void loader_stop(struct loader *loader)
{
    if (loader == NULL)
        return;
    session_stop(loader->session);
    pthread_join(loader->thread, NULL);
    session_free(loader->session);
    for (size_t i = 0; i < loader->published_count; i++)
        directory_unref(loader->published[i]);
    free(loader->published);
    directory_rows_release(&loader->rows);
    seal_keys_free(loader->keys);
    setup_unref(loader->setup);
    pthread_mutex_destroy(&loader->lock);
    free(loader);
}
