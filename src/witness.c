/* The witness behind witness.h: one timer, one connection, one statement a second. The rows of the
 * hour are remembered, so that a source that goes on adds to its row; every ten minutes those that
 * have nothing new are forgotten. So an instance makes at most TABLE_MAX rows in ten minutes,
 * whatever is sent. A connection that is lost behind a statement has it sent again: counts may then
 * be too high, never too low. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "witness.h"

#include "clock.h"
#include "config.h"
#include "conninfo.h"
#include "event.h"
#include "json.h"
#include "log.h"
#include "loop.h"
#include "metrics.h"
#include "pg.h"
#include "sighting.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#define SECOND INT64_C(1000000)
#define TABLE_MAX 1024 /* entries of the instance */
#define BOOK_MAX 256   /* entries of a loop, within a second or so */
#define WRITE_EVERY_US SECOND
#define FORGET_EVERY_US (600 * SECOND)
/* The server gives up after 5 s; past this it is the server itself that hangs. */
#define ANSWER_US (7 * SECOND)
#define LAST_US SECOND
#define ROW_MAX 1024 /* bytes of JSON */

static const char session_options[] =
    "-c statement_timeout=5s -c lock_timeout=2s -c synchronous_commit=off -c jit=off"
    " -c client_min_messages=warning";

static const struct pg_statement statements[] = {
    {"witness", "SELECT mcp.add_security_events($1::text::jsonb)"},
    {NULL, NULL},
};

struct witness {
    struct loop *loop;
    struct metrics *metrics;
    struct conninfo *conninfo;
    struct pg *pg;
    struct loop_timer timer;
    struct sighting_book *books[WITNESS_BOOKS];
    size_t book_count;
    struct sightings *known;
    char *rows; /* JSON of the statement under way */
    bool ready, writing, failed;
    bool told_lost; /* one line per outage, not per attempt */
    int64_t answer_due_us, forget_us;
    int64_t last_due_us; /* 0 = not ending yet */
};

/* ---- rows ---- */

PRINTF_LIKE(3, 4)
static void put(struct witness *witness, size_t *len, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int written = vsnprintf(witness->rows + *len, ROW_MAX, format, arguments);
    va_end(arguments);
    assert(written > 0 && written < ROW_MAX);
    *len += (size_t)written;
}

static void put_row(struct witness *witness, size_t *len, const struct sighting *sighting)
{
    const struct sighting_key *key = &sighting->key;
    enum outcome outcome = (enum outcome)key->outcome;
    char source[SIGHTING_SOURCE_TEXT], integration[EVENT_ID_TEXT];
    put(witness, len,
        "%s{\"hour\":%" PRId64 ",\"kind\":\"%s\",\"outcome\":\"%s\",\"count\":%" PRIu64
        ",\"first\":%" PRId64 ",\"last\":%" PRId64 ",\"platform\":",
        *len > 1 ? "," : "", key->hour, sighting_kind(outcome), sighting_word(outcome),
        sighting->count, sighting->first_us, sighting->last_us);
    bool fits = json_quote(witness->rows, *len + ROW_MAX, len, slice_of(key->platform));
    assert(fits);
    if (key->has_integration) {
        struct event_id id;
        memcpy(id.bytes, key->integration, sizeof id.bytes);
        event_id_format(id, integration);
        put(witness, len, ",\"integration\":\"%s\"", integration);
    }
    if (sighting_source_text(key, source))
        put(witness, len, ",\"source\":\"%s\"", source);
    put(witness, len, "}");
}

static void write_rows(struct witness *witness)
{
    size_t len = 0, rows = 0;
    put(witness, &len, "[");
    for (size_t i = 0; i < sightings_count(witness->known); i++) {
        struct sighting *sighting = sightings_at(witness->known, i);
        sighting->told = sighting->count;
        if (sighting->count == 0)
            continue;
        put_row(witness, &len, sighting);
        rows++;
    }
    if (rows == 0)
        return;
    put(witness, &len, "]");
    witness->writing = true;
    witness->failed = false;
    witness->answer_due_us = clock_mono_us() + ANSWER_US;
    pg_send(witness->pg, "witness", 1, &(struct pg_param){witness->rows, (int)len});
    pg_sync(witness->pg);
}

/* ---- the connection ---- */

static void tell_lost(struct witness *witness, const char *reason)
{
    if (!witness->told_lost)
        log_event(LOG_WARNING, "witness_lost", "security events can't be written now: %s", reason);
    witness->told_lost = true;
}

static uint64_t sum_told(struct witness *witness)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < sightings_count(witness->known); i++)
        sum += sightings_at(witness->known, i)->told;
    return sum;
}

static void settle(struct witness *witness, bool arrived)
{
    if (!witness->writing)
        return;
    if (arrived)
        metrics_add(witness->metrics, METRIC_SIGHTINGS_WRITTEN, (int64_t)sum_told(witness));
    sightings_settle(witness->known, arrived);
    witness->writing = false;
}

static void on_ready(void *context)
{
    struct witness *witness = context;
    witness->ready = true;
    if (witness->told_lost)
        log_event(LOG_INFO, "witness_ready", "security events are written again");
    witness->told_lost = false;
}

static void on_result(void *context, PGresult *result)
{
    struct witness *witness = context;
    if (PQresultStatus(result) != PGRES_TUPLES_OK) {
        const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
        const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
        char reason[200];
        snprintf(reason, sizeof reason, "%s: %s", state ? state : "-----", message ? message : "");
        tell_lost(witness, reason);
        witness->failed = true;
    }
    PQclear(result);
}

static void on_sync(void *context)
{
    struct witness *witness = context;
    settle(witness, !witness->failed);
    if (!witness->failed)
        witness->told_lost = false;
}

static void on_lost(void *context, const char *reason)
{
    struct witness *witness = context;
    witness->ready = false;
    tell_lost(witness, reason);
    settle(witness, false);
}

static void on_unreachable(void *context, const char *reason)
{
    tell_lost(context, reason);
}

static const struct pg_handler pg_handler = {
    .on_ready = on_ready,
    .on_result = on_result,
    .on_sync = on_sync,
    .on_lost = on_lost,
    .on_unreachable = on_unreachable,
};

/* ---- once a second ---- */

static void turn(struct witness *witness)
{
    int64_t now = clock_mono_us();
    for (size_t i = 0; i < witness->book_count; i++)
        sighting_book_read(witness->books[i], witness->known);
    if (witness->writing && now >= witness->answer_due_us)
        pg_drop(witness->pg, "security events were not answered in time");
    if (witness->ready && !witness->writing)
        write_rows(witness);
    if (now >= witness->forget_us) {
        sightings_forget(witness->known);
        witness->forget_us = now + FORGET_EVERY_US;
    }
}

static void on_timer(struct loop_timer *timer)
{
    struct witness *witness = container_of(timer, struct witness, timer);
    turn(witness);
    loop_timer_set(witness->loop, timer, clock_mono_us() + WRITE_EVERY_US);
}

static bool has_untold(struct witness *witness)
{
    for (size_t i = 0; i < sightings_count(witness->known); i++) {
        if (sightings_at(witness->known, i)->count > 0)
            return true;
    }
    return false;
}

bool witness_is_finished(struct witness *witness)
{
    int64_t now = clock_mono_us();
    if (witness->last_due_us == 0)
        witness->last_due_us = now + LAST_US;
    turn(witness);
    return !has_untold(witness) || now >= witness->last_due_us;
}

struct sighting_book *witness_book(struct witness *witness, struct metrics *metrics)
{
    assert(witness->book_count < WITNESS_BOOKS);
    struct sighting_book *book = sighting_book_new(BOOK_MAX, metrics);
    witness->books[witness->book_count++] = book;
    return book;
}

struct witness *witness_new(struct loop *loop, const struct config *config, struct metrics *metrics)
{
    struct witness *witness = xcalloc(1, sizeof *witness);
    witness->loop = loop;
    witness->metrics = metrics;
    witness->known = sightings_new(TABLE_MAX, metrics);
    witness->rows = xmalloc((TABLE_MAX + 2) * ROW_MAX);
    witness->forget_us = clock_mono_us() + FORGET_EVERY_US;
    witness->conninfo =
        conninfo_new(config->postgres.conninfo, config->postgres.password_file, session_options);
    witness->pg = pg_new(loop, witness->conninfo, statements, &pg_handler, witness);
    witness->timer.on_due = on_timer;
    loop_timer_set(loop, &witness->timer, clock_mono_us() + WRITE_EVERY_US);
    return witness;
}

void witness_free(struct witness *witness)
{
    if (witness == NULL)
        return;
    loop_timer_clear(witness->loop, &witness->timer);
    pg_free(witness->pg);
    conninfo_unref(witness->conninfo);
    for (size_t i = 0; i < witness->book_count; i++)
        sighting_book_free(witness->books[i]);
    sightings_free(witness->known);
    free(witness->rows);
    free(witness);
}
