/* The audit behind audit.h. Receipts are read in one snapshot, after the markers that are to become
 * some; then each topic up to an end that was asked for afterwards, so that every receipt's record
 * must lie before it; a record without a receipt may still be in flight, so those ids are asked for
 * once more at the end. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "audit.h"

#include "clock.h"
#include "config.h"
#include "conninfo.h"
#include "held.h"
#include "pg_column.h"
#include "reader.h"
#include "rfc3339.h"
#include "tally.h"

#include <libpq-fe.h>

#define TOPICS_MAX 256
#define TOPIC_BYTES 256 /* Kafka's names have 249 at most */
/* A record may be older than its receipt: a copy that was refused before the audit's beginning. */
#define MARGIN_US INT64_C(600000000)
/* What is in flight now has ended by then. */
#define IN_FLIGHT_US INT64_C(3000000)
#define IDS_PER_QUERY 1000

struct audit {
    const struct audit_options *options;
    struct audit_report *report;
    FILE *err;
    PGconn *conn;
    struct reader *reader;
    struct tally *tally;
    char topics[TOPICS_MAX][TOPIC_BYTES];
    size_t topic_count;
    size_t topic;             /* being read */
    char since[RFC3339_TEXT]; /* as records tell their time of receipt */
};

static bool complain(struct audit *audit, const char *where, const char *what)
{
    fprintf(audit->err, "hookgate audit: %s: %.*s\n", where, (int)strcspn(what, "\n"), what);
    return false;
}

/* ---- receipts ---- */

/* The topic's index, made on first use; TOPICS_MAX when there are too many. */
static size_t topic_index(struct audit *audit, struct slice name)
{
    for (size_t i = 0; i < audit->topic_count; i++) {
        if (slice_is(name, audit->topics[i]))
            return i;
    }
    if (audit->topic_count == TOPICS_MAX || name.len >= TOPIC_BYTES)
        return TOPICS_MAX;
    memcpy(audit->topics[audit->topic_count], name.ptr, name.len);
    return audit->topic_count++;
}

static struct event_id id_of(const PGresult *row, int column)
{
    struct event_id id;
    assert(PQgetlength(row, 0, column) == (int)sizeof id.bytes);
    memcpy(id.bytes, PQgetvalue(row, 0, column), sizeof id.bytes);
    return id;
}

static enum tally_status status_of(const char *word)
{
    return strcmp(word, "published") == 0 ? TALLY_PUBLISHED
           : strcmp(word, "parked") == 0  ? TALLY_PARKED
                                          : TALLY_STUCK;
}

static bool take_receipt(struct audit *audit, const PGresult *row)
{
    size_t topic = topic_index(audit, slice_of(PQgetvalue(row, 0, 1)));
    if (topic == TOPICS_MAX)
        return complain(audit, "Postgres", "the receipts name more topics than can be audited");
    struct tally_entry *entry = tally_at(audit->tally, id_of(row, 0));
    entry->topic = (uint16_t)topic;
    entry->status = (uint8_t)status_of(PQgetvalue(row, 0, 4));
    entry->partition = column_int32_at(row, 0, 2, -1);
    entry->offset = column_int64_at(row, 0, 3, -1);
    return true;
}

/* Row by row: the receipts of a day need not fit into libpq's memory as well. One that waits for
 * nothing, because its row is gone, must be in its topic like a published one. */
static bool read_receipts(struct audit *audit)
{
    const char *const params[] = {audit->since};
    if (!PQsendQueryParams(audit->conn,
                           "SELECT event_id, kafka_topic, kafka_partition, kafka_offset, CASE"
                           " WHEN status = 'parked' AND NOT EXISTS (SELECT FROM"
                           " mcp.webhook_outbox o WHERE o.event_id = e.event_id) THEN 'published'"
                           " WHEN status = 'stuck' AND NOT EXISTS (SELECT FROM"
                           " mcp.webhook_stuck s WHERE s.event_id = e.event_id) THEN 'published'"
                           " ELSE status END"
                           " FROM mcp.webhook_events e WHERE received_at >= $1::timestamptz"
                           " UNION ALL SELECT event_id, encode(kafka_topic, 'escape'),"
                           " kafka_partition, kafka_offset, 'stuck' FROM mcp.webhook_refused"
                           " WHERE received_us >="
                           " (extract(epoch FROM $1::timestamptz) * 1000000)::int8",
                           1, NULL, params, NULL, NULL, 1) ||
        !PQsetSingleRowMode(audit->conn))
        return complain(audit, "Postgres", PQerrorMessage(audit->conn));
    bool fine = true;
    for (PGresult *row; (row = PQgetResult(audit->conn)) != NULL; PQclear(row)) {
        ExecStatusType status = PQresultStatus(row);
        if (status == PGRES_SINGLE_TUPLE)
            fine = fine && take_receipt(audit, row);
        else if (status != PGRES_TUPLES_OK)
            fine = complain(audit, "Postgres", PQresultErrorMessage(row));
    }
    return fine;
}

/* ---- records ---- */

static bool on_record(const struct reader_record *record, void *context)
{
    struct audit *audit = context;
    struct slice text, received;
    struct event_id id;
    if (!reader_header(record, "ce_id", &text) || !event_id_parse(text, &id))
        return true; /* somebody else's */
    struct tally_entry *entry = tally_at(audit->tally, id);
    if (entry->status == TALLY_NONE && entry->found == 0) {
        /* Only what came since is of interest; earlier ones have their receipts earlier. */
        bool since = reader_header(record, "hookgate-received-at", &received) &&
                     received.len == strlen(audit->since) &&
                     memcmp(received.ptr, audit->since, received.len) >= 0;
        entry->topic = since ? (uint16_t)audit->topic : UINT16_MAX;
    }
    if (entry->found < UINT16_MAX)
        entry->found++;
    if (entry->status == TALLY_PUBLISHED && entry->offset < 0) {
        entry->partition = record->partition;
        entry->offset = record->offset;
        entry->fill = true;
    }
    return true;
}

static bool should_be_in_kafka(const struct tally_entry *entry)
{
    return entry->status == TALLY_PUBLISHED || entry->status == TALLY_MARKED;
}

static bool read_partition(struct audit *audit, const char *topic, int32_t partition)
{
    int64_t deadline = audit->options->deadline_us, low, end, from;
    enum reader_result result =
        reader_bounds(audit->reader, topic, partition, deadline, &low, &end);
    if (result == READER_OK)
        result = reader_offset_at(audit->reader, topic, partition,
                                  audit->options->since_wall_us - MARGIN_US, deadline, &from);
    if (result == READER_OK)
        result = reader_read(audit->reader, topic, partition, from < low ? low : from, end,
                             deadline, on_record, audit);
    if (result != READER_OK)
        return complain(audit, "Kafka", reader_reason(audit->reader));
    size_t at = 0;
    for (struct tally_entry *entry; low > 0 && (entry = tally_next(audit->tally, &at)) != NULL;) {
        bool gone = should_be_in_kafka(entry) && entry->found == 0 &&
                    entry->topic == audit->topic && entry->partition == partition &&
                    entry->offset >= 0 && entry->offset < low;
        audit->report->expired += gone;
        if (gone)
            entry->topic = UINT16_MAX;
    }
    return true;
}

static bool read_topics(struct audit *audit)
{
    for (size_t i = 0; i < audit->options->topic_count; i++)
        (void)topic_index(audit, slice_of(audit->options->topics[i]));
    for (audit->topic = 0; audit->topic < audit->topic_count; audit->topic++) {
        const char *topic = audit->topics[audit->topic];
        int32_t partitions = 0;
        enum reader_result result =
            reader_partitions(audit->reader, topic, audit->options->deadline_us, &partitions);
        if (result == READER_UNKNOWN) {
            fprintf(audit->err, "hookgate audit: topic %s does not exist\n", topic);
            continue; /* whatever should be in it is missing */
        }
        if (result != READER_OK)
            return complain(audit, "Kafka", reader_reason(audit->reader));
        for (int32_t partition = 0; partition < partitions; partition++) {
            if (!read_partition(audit, topic, partition))
                return false;
        }
    }
    return true;
}

/* ---- the join ---- */

static void count_entry(struct audit_report *report, const struct tally_entry *entry)
{
    if (entry->status == TALLY_NONE && entry->topic == UINT16_MAX) /* before the beginning */
        return;
    if (entry->found > 1) {
        if (report->doubled < AUDIT_SAMPLES)
            report->doubled_ids[report->doubled] = entry->id;
        report->doubled++;
    }
    if (entry->status == TALLY_NONE)
        return;
    report->acknowledged++;
    report->held += entry->status == TALLY_MARKED;
    report->in_kafka += entry->found > 0;
    if (entry->found > 0)
        return;
    report->parked += entry->status == TALLY_PARKED;
    report->stuck += entry->status == TALLY_STUCK;
    if (should_be_in_kafka(entry) && entry->topic != UINT16_MAX) {
        if (report->missing < AUDIT_SAMPLES)
            report->missing_ids[report->missing] = entry->id;
        report->missing++;
    }
}

/* uuid[] in text form. */
struct id_list {
    char text[IDS_PER_QUERY * EVENT_ID_TEXT + 3];
    size_t len, count;
};

static void list_add(struct id_list *list, struct event_id id)
{
    char text[EVENT_ID_TEXT];
    event_id_format(id, text);
    list->text[list->len++] = list->count++ == 0 ? '{' : ',';
    memcpy(list->text + list->len, text, EVENT_ID_TEXT - 1);
    list->len += EVENT_ID_TEXT - 1;
    memcpy(list->text + list->len, "}", 2);
}

/* How many of the ids have a receipt by now; -1 = an error. */
static int64_t count_receipts(struct audit *audit, const struct id_list *list)
{
    const char *const params[] = {list->text};
    PGresult *result =
        PQexecParams(audit->conn,
                     "SELECT count(DISTINCT event_id) FROM (SELECT event_id FROM mcp.webhook_events"
                     " UNION ALL SELECT event_id FROM mcp.webhook_refused) AS known"
                     " WHERE event_id = ANY ($1::uuid[])",
                     1, NULL, params, NULL, NULL, 0);
    int64_t count = -1;
    if (PQresultStatus(result) == PGRES_TUPLES_OK)
        count = strtoll(PQgetvalue(result, 0, 0), NULL, 10);
    else
        complain(audit, "Postgres", PQresultErrorMessage(result));
    PQclear(result);
    return count;
}

/* Records without a receipt, after those in flight have ended. */
static bool count_unclaimed(struct audit *audit)
{
    struct id_list *list = xcalloc(1, sizeof *list);
    bool fine = true, waited = false;
    size_t at = 0;
    for (struct tally_entry *entry = NULL; fine;) {
        entry = tally_next(audit->tally, &at);
        if (entry != NULL && entry->status == TALLY_NONE && entry->topic != UINT16_MAX)
            list_add(list, entry->id);
        if (list->count == IDS_PER_QUERY || (entry == NULL && list->count > 0)) {
            if (!waited)
                nanosleep(&(struct timespec){.tv_sec = IN_FLIGHT_US / 1000000}, NULL);
            waited = true;
            int64_t known = count_receipts(audit, list);
            fine = known >= 0;
            audit->report->unclaimed += (int64_t)list->count - (fine ? known : 0);
            list->len = list->count = 0;
        }
        if (entry == NULL)
            break;
    }
    free(list);
    return fine;
}

/* A success report of Kafka's may carry no offset (libraries differ by broker): the audit knows it
 * now. */
static bool fill_offsets(struct audit *audit)
{
    size_t at = 0;
    for (struct tally_entry *entry; (entry = tally_next(audit->tally, &at)) != NULL;) {
        if (!entry->fill)
            continue;
        char id[EVENT_ID_TEXT], offset[24], partition[12];
        event_id_format(entry->id, id);
        snprintf(offset, sizeof offset, "%lld", (long long)entry->offset);
        snprintf(partition, sizeof partition, "%d", entry->partition);
        const char *const params[] = {id, partition, offset};
        PGresult *result = PQexecParams(
            audit->conn,
            "UPDATE mcp.webhook_events SET kafka_partition = $2::int, kafka_offset = $3::bigint"
            " WHERE event_id = $1::uuid AND kafka_offset IS NULL AND status = 'published'",
            3, NULL, params, NULL, NULL, 0);
        bool fine = PQresultStatus(result) == PGRES_COMMAND_OK;
        if (fine)
            audit->report->filled += strtoll(PQcmdTuples(result), NULL, 10);
        else
            complain(audit, "Postgres", PQresultErrorMessage(result));
        PQclear(result);
        if (!fine)
            return false;
    }
    return true;
}

static bool join(struct audit *audit)
{
    size_t at = 0;
    for (const struct tally_entry *entry; (entry = tally_next(audit->tally, &at)) != NULL;)
        count_entry(audit->report, entry);
    return count_unclaimed(audit) && fill_offsets(audit);
}

/* ---- held ---- */

/* A marker that waits says what its receipt will: the receipts, which are read later, overrule it.
 */
static bool on_marker(const struct reader_record *record, void *context)
{
    struct audit *audit = context;
    struct held held;
    if (!held_read(record, true, &held))
        return true; /* no gateway wrote it */
    if (held.received_wall_us >= audit->options->since_wall_us) {
        size_t topic = topic_index(audit, held.topic);
        struct tally_entry *entry = tally_at(audit->tally, held.id);
        entry->topic = topic == TOPICS_MAX ? UINT16_MAX : (uint16_t)topic;
        entry->status = TALLY_MARKED;
        entry->partition = held.partition;
        entry->offset = held.offset;
    } else {
        audit->report->held++;
    }
    held_release(&held);
    return true;
}

static bool count_held_partition(struct audit *audit, const char *topic, int32_t partition,
                                 int64_t next, bool are_markers)
{
    int64_t low, end, deadline = audit->options->deadline_us;
    enum reader_result result;
    do {
        result = reader_bounds(audit->reader, topic, partition, deadline, &low, &end);
        if (result == READER_OK &&
            (next < low || next > end)) /* behind the end: the topic was made anew */
            next = low;
        if (result == READER_OK && are_markers && next < end)
            result =
                reader_read(audit->reader, topic, partition, next, end, deadline, on_marker, audit);
    } while (result == READER_EXPIRED); /* what was taken over meanwhile is deleted */
    if (result != READER_OK)
        return complain(audit, "Kafka", reader_reason(audit->reader));
    if (!are_markers)
        audit->report->held += end > next ? end - next : 0;
    return true;
}

/* How far each partition is taken over; 0 for those that no gateway has seen yet. */
static bool read_nexts(struct audit *audit, const char *topic, int64_t *ret_nexts, int32_t count)
{
    const char *const params[] = {topic};
    PGresult *result = PQexecParams(audit->conn,
                                    "SELECT kafka_partition, next_offset FROM "
                                    "mcp.webhook_hold_offsets WHERE kafka_topic = $1",
                                    1, NULL, params, NULL, NULL, 0);
    bool fine = PQresultStatus(result) == PGRES_TUPLES_OK;
    if (!fine)
        complain(audit, "Postgres", PQresultErrorMessage(result));
    for (int row = 0; fine && row < PQntuples(result); row++) {
        long partition = strtol(PQgetvalue(result, row, 0), NULL, 10);
        if (partition >= 0 && partition < count)
            ret_nexts[partition] = strtoll(PQgetvalue(result, row, 1), NULL, 10);
    }
    PQclear(result);
    return fine;
}

/* What came while Postgres was away has no receipt yet: it is counted where it waits. */
static bool count_held(struct audit *audit, const char *topic, bool are_markers)
{
    int32_t partitions = 0;
    enum reader_result result =
        reader_partitions(audit->reader, topic, audit->options->deadline_us, &partitions);
    if (result == READER_UNKNOWN) /* nothing can be held there */
        return true;
    if (result != READER_OK)
        return complain(audit, "Kafka", reader_reason(audit->reader));
    int64_t *nexts = xcalloc((size_t)partitions, sizeof *nexts);
    bool fine = read_nexts(audit, topic, nexts, partitions);
    for (int32_t partition = 0; fine && partition < partitions; partition++)
        fine = count_held_partition(audit, topic, partition, nexts[partition], are_markers);
    free(nexts);
    return fine;
}

/* ---- connecting ---- */

static bool connect_both(struct audit *audit)
{
    const struct config *config = audit->options->config;
    char *reason = NULL;
    audit->conn = conninfo_connect(
        config->postgres.conninfo, config->postgres.password_file,
        "-c statement_timeout=10min -c timezone=UTC -c client_min_messages=warning", &reason);
    if (audit->conn == NULL)
        complain(audit, "Postgres", reason);
    else if ((audit->reader = reader_new(config, &reason)) == NULL)
        complain(audit, "Kafka", reason);
    free(reason);
    return audit->reader != NULL;
}

bool audit_run(const struct audit_options *options, struct audit_report *ret, FILE *err)
{
    *ret = (struct audit_report){0};
    struct audit *audit = xcalloc(1, sizeof *audit);
    audit->options = options;
    audit->report = ret;
    audit->err = err;
    audit->tally = tally_new();
    rfc3339_format(options->since_wall_us, 6, audit->since);
    /* First what is held: what is taken over meanwhile is counted twice, rather than not at all. */
    bool fine = connect_both(audit) && count_held(audit, options->config->hold.topic, false) &&
                count_held(audit, options->config->hold.markers, true) && read_receipts(audit) &&
                read_topics(audit) && join(audit);
    reader_free(audit->reader);
    PQfinish(audit->conn);
    tally_free(audit->tally);
    free(audit);
    return fine;
}
