/* The thread behind unhold.h. In rounds: markers of all partitions up to their ends as of the
 * round's begin, then the gate, then one batch of each partition of payloads. Whatever fails ends
 * the round; nothing is remembered but what Postgres and Kafka say. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "unhold.h"

#include "clock.h"
#include "config.h"
#include "gate.h"
#include "log.h"
#include "metrics.h"
#include "reader.h"
#include "thread.h"
#include "unhold_sql.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <unistd.h>

#define SECOND INT64_C(1000000)
#define BATCH_MAX 256
#define BATCH_BYTES (4 << 20)
#define KAFKA_US SECOND
#define CLOSED_PAUSE_MS 50
#define OPEN_PAUSE_MS 500
/* Claims are purged behind this: see mcp.purge_claims(). */
#define CAUGHT_UP_EVERY_US (10 * SECOND)
#define DELETE_EVERY_US SECOND
#define TELL_EVERY_US (2 * SECOND)
#define KAFKA_GONE_US (3 * SECOND)
/* With more than this in the outbox the held ones are better off where they are. */
#define PARKED_MAX 5000
/* Before a partition is tried again that Postgres does not even let set aside. */
#define BLOCKED_PAUSE_US SECOND
/* Topics get more partitions while we run, and may be deleted. */
#define LOOK_EVERY_US (10 * SECOND)
#define LOOK_SOON_US SECOND
/* A broker that has just come up, or a topic that has just been made, may be unknown for a moment.
 */
#define MISSING_US (2 * SECOND)
#define NO_GENERATION UINT32_MAX

/* A partition of the holding topic or of the markers. */
struct place {
    const char *topic;
    int32_t partition;
    bool is_markers;
    int64_t next, end; /* as last seen */
    int64_t deleted, deleted_us;
    int64_t caught_up_us;
    int64_t blocked_us;  /* when Postgres last refused to let go on; 0 = it does */
    unsigned generation; /* of the connection that knows it */
};

struct held_topic {
    const char *name;
    bool is_markers;
    struct place *places; /* by partition; librdkafka bounds how many there can be */
    int32_t place_count;
    int32_t partitions;  /* so many of the places are there now */
    unsigned generation; /* of the connection that has no rows beyond them */
    int64_t missing_us;  /* since when Kafka knows no such topic; 0 = it does */
};

struct unhold {
    struct unhold_options options;
    struct metrics *metrics;
    pthread_t thread;
    atomic_bool stopping;
    struct unhold_sql *sql;
    struct reader *reader;
    struct held_topic markers, payloads;
    unsigned generation; /* of the connection, */
    uint64_t epoch;      /* and of the gate, for which the partitions are known */
    int64_t looked_us;   /* when they were last asked for */
    int64_t missed_us;   /* when options.on_missing was last called */
    struct held batch[BATCH_MAX];
    size_t batch_count, batch_bytes;
    int64_t batch_next;
    bool batch_is_full;
    int64_t contact_us;   /* when Kafka last answered; 0 = never */
    int64_t told_us;      /* when options.on_kafka was last called */
    bool kafka_is_silent; /* and not: it refuses */
    bool told_kafka, was_open;
};

/* ---- Kafka ---- */

/* A loop whose holding topic's breaker is open can't hear it otherwise. */
static void tell_contact(struct unhold *unhold)
{
    if (gate_is_open(unhold->options.gate) || unhold->contact_us - unhold->told_us < TELL_EVERY_US)
        return;
    unhold->told_us = unhold->contact_us;
    unhold->options.on_kafka(unhold->options.context);
}

/* A topic or a partition is not there. */
static void miss(struct unhold *unhold)
{
    int64_t now = clock_mono_us();
    unhold->contact_us = now; /* Kafka has answered */
    unhold->looked_us = now - LOOK_EVERY_US;
    if (now - unhold->missed_us < LOOK_SOON_US)
        return;
    unhold->missed_us = now;
    unhold->options.on_missing(unhold->options.context);
}

static bool kafka_said(struct unhold *unhold, enum reader_result result)
{
    unhold->kafka_is_silent = result == READER_LATE;
    if (result == READER_UNKNOWN)
        miss(unhold);
    if (result == READER_OK) {
        unhold->contact_us = clock_mono_us();
        unhold->told_kafka = false;
        tell_contact(unhold);
        return true;
    }
    if (!unhold->told_kafka)
        log_event(LOG_WARNING, "unhold_kafka", "what is held can't be read now: %s",
                  reader_reason(unhold->reader));
    unhold->told_kafka = true;
    return false;
}

static bool ask_end(struct unhold *unhold, struct place *place, int64_t *ret_low)
{
    return kafka_said(unhold, reader_bounds(unhold->reader, place->topic, place->partition,
                                            clock_mono_us() + KAFKA_US, ret_low, &place->end));
}

/* A topic that does not exist has no partitions; for markers it must have been so for a while,
 * because the gate may open without them. */
static bool ask_partitions(struct unhold *unhold, struct held_topic *topic, int32_t *ret_count)
{
    *ret_count = 0;
    enum reader_result result =
        reader_partitions(unhold->reader, topic->name, clock_mono_us() + KAFKA_US, ret_count);
    if (result != READER_UNKNOWN) {
        topic->missing_us = 0;
        return kafka_said(unhold, result);
    }
    if (topic->missing_us == 0) {
        topic->missing_us = clock_mono_us();
        log_event(LOG_WARNING, "held_missing", "topic %s does not exist", topic->name);
    }
    unhold->kafka_is_silent = false;
    miss(unhold);
    return !topic->is_markers || clock_mono_us() - topic->missing_us >= MISSING_US;
}

/* One partition that is read. */
struct visit {
    struct unhold *unhold;
    const struct place *place;
};

static bool on_record(const struct reader_record *record, void *context)
{
    const struct visit *visit = context;
    const struct place *place = visit->place;
    struct unhold *unhold = visit->unhold;
    unhold->batch_next = record->offset + 1;
    if (held_read(record, place->is_markers, &unhold->batch[unhold->batch_count])) {
        unhold->batch_bytes += record->value.len;
        unhold->batch_count++;
    } else {
        metrics_add(unhold->metrics, METRIC_HELD_UNREADABLE, 1);
        log_event(LOG_ERROR, "held_unreadable",
                  "topic %s, partition %d, offset %" PRId64
                  ": not written by a gateway; passed over",
                  place->topic, (int)record->partition, record->offset);
    }
    unhold->batch_is_full = unhold->batch_count == BATCH_MAX || unhold->batch_bytes >= BATCH_BYTES;
    return !unhold->batch_is_full;
}

/* Fills the batch with what stands behind place->next. */
static bool read_batch(struct unhold *unhold, struct place *place)
{
    struct visit visit = {unhold, place};
    unhold->batch_count = unhold->batch_bytes = 0;
    unhold->batch_next = place->next;
    unhold->batch_is_full = false;
    bool fine =
        kafka_said(unhold, reader_read(unhold->reader, place->topic, place->partition, place->next,
                                       place->end, clock_mono_us() + KAFKA_US, on_record, &visit));
    if (fine && !unhold->batch_is_full)
        unhold->batch_next = place->end; /* offsets may have gaps */
    return fine || unhold->batch_next > place->next;
}

static void release_batch(struct unhold *unhold)
{
    for (size_t i = 0; i < unhold->batch_count; i++)
        held_release(&unhold->batch[i]);
    unhold->batch_count = 0;
}

/* What is taken over is deleted, so that the topic stays small and tells what is held. */
static void delete_taken(struct unhold *unhold, struct place *place)
{
    int64_t now = clock_mono_us();
    if (place->next <= place->deleted ||
        (now - place->deleted_us < DELETE_EVERY_US && place->next < place->end))
        return;
    if (kafka_said(unhold, reader_delete_before(unhold->reader, place->topic, place->partition,
                                                place->next, now + KAFKA_US)))
        place->deleted = place->next;
    place->deleted_us = now;
}

/* ---- taking over ---- */

static void count(struct unhold *unhold, const struct place *place,
                  const struct unhold_taken *taken)
{
    int64_t rest = (int64_t)unhold->batch_count - taken->refused;
    if (place->is_markers) {
        metrics_add(unhold->metrics, METRIC_UNHELD_MARKED, rest);
        metrics_add(unhold->metrics, METRIC_DOUBLES_STORE_LOST, taken->doubled);
    } else {
        metrics_add(unhold->metrics, METRIC_UNHELD_PARKED, taken->fresh);
        metrics_add(unhold->metrics, METRIC_UNHELD_COPIES, rest - taken->fresh);
    }
    if (taken->refused == 0)
        return;
    metrics_add(unhold->metrics, METRIC_UNHELD_REFUSED, taken->refused);
    log_event(LOG_ERROR, "held_refused",
              "topic %s, partition %d: Postgres refuses %d of %zu events, which are set aside "
              "(hookgate stuck list)",
              place->topic, (int)place->partition, taken->refused, unhold->batch_count);
}

/* With the row locked, which ends here: what was read is taken over. */
static bool take_read(struct unhold *unhold, struct place *place, bool caught_up, bool each)
{
    const struct unhold_batch batch = {.topic = place->topic,
                                       .partition = place->partition,
                                       .are_markers = place->is_markers,
                                       .held = unhold->batch,
                                       .count = unhold->batch_count,
                                       .next = caught_up ? place->next : unhold->batch_next,
                                       .caught_up = caught_up,
                                       .each = each};
    struct unhold_taken taken;
    bool fine = unhold_sql_take(unhold->sql, &batch, &taken);
    if (fine) {
        count(unhold, place, &taken);
        place->next = batch.next;
        if (caught_up)
            place->caught_up_us = clock_mono_us();
    }
    release_batch(unhold);
    return fine;
}

/* The topic was deleted and made anew: it ends before what was taken over, or what was deleted is
 * there again. */
static bool is_anew(const struct place *place, int64_t low)
{
    return place->next > place->end || low < place->deleted;
}

/* Where to go on, as Kafka is now. Reading again is safe: copies are claimed already. */
static void go_to(struct unhold *unhold, struct place *place, int64_t low)
{
    if (is_anew(place, low)) {
        if (place->next != low) /* else another instance has told it */
            log_event(LOG_ERROR, "held_anew",
                      "topic %s, partition %d was made anew: it begins at %" PRId64
                      " and ends at %" PRId64 ", but %" PRId64
                      " was to be read next; it is read from its begin",
                      place->topic, (int)place->partition, low, place->end, place->next);
        place->next = place->deleted = low;
    } else if (low > place->next) {
        if (place->next > 0) { /* 0: the row is new */
            metrics_add(unhold->metrics, METRIC_HELD_LOST, low - place->next);
            log_event(LOG_ERROR, "held_lost",
                      "topic %s, partition %d: offsets %" PRId64 " to %" PRId64
                      " are gone from Kafka before they were taken over",
                      place->topic, (int)place->partition, place->next, low - 1);
        }
        place->next = low;
    }
}

/* With the row locked: reads and takes over one batch, or notes that there is nothing. */
static bool take_locked(struct unhold *unhold, struct place *place, bool each)
{
    int64_t low;
    bool fine = ask_end(unhold, place, &low);
    if (fine)
        go_to(unhold, place, low);
    bool caught_up = fine && place->next >= place->end;
    if (!fine || (!caught_up && !read_batch(unhold, place))) {
        unhold_sql_rollback(unhold->sql);
        return false;
    }
    return take_read(unhold, place, caught_up, each);
}

/* From the partition's row, which is made if there is none, or no longer. */
static bool learn_next(struct unhold *unhold, struct place *place)
{
    if (!unhold_sql_next(unhold->sql, place->topic, place->partition, &place->next))
        return false;
    if (place->next >= 0)
        return true;
    place->next = 0;
    return unhold_sql_know(unhold->sql, place->topic, place->partition);
}

/* One batch, if no other instance is at it; place->next is true afterwards. */
static bool take_batch(struct unhold *unhold, struct place *place, bool each)
{
    int64_t next;
    if (!unhold_sql_lock(unhold->sql, place->topic, place->partition, &next))
        return false;
    if (next < 0)
        return learn_next(unhold, place);
    place->next = next;
    bool fine = take_locked(unhold, place, each);
    if (fine)
        delete_taken(unhold, place);
    return fine;
}

static void count_blocked(struct unhold *unhold)
{
    const struct held_topic *topics[] = {&unhold->markers, &unhold->payloads};
    int64_t count = 0;
    for (size_t i = 0; i < sizeof topics / sizeof *topics; i++) {
        for (int32_t p = 0; p < topics[i]->partitions; p++)
            count += topics[i]->places[p].blocked_us != 0;
    }
    metrics_set(unhold->metrics, METRIC_HELD_BLOCKED, count);
}

/* Postgres refuses an event and also that it is set aside: the partition waits, nothing is lost. */
static void set_blocked(struct unhold *unhold, struct place *place, bool is_blocked)
{
    if (is_blocked && place->blocked_us == 0)
        log_event(LOG_ERROR, "held_blocked",
                  "topic %s, partition %d: Postgres refuses what is held at offset %" PRId64
                  " or behind, and does not let it be set aside either; it stays in Kafka and is "
                  "tried again: %s",
                  place->topic, (int)place->partition, place->next, unhold_sql_reason(unhold->sql));
    place->blocked_us = is_blocked ? clock_mono_us() : 0;
    count_blocked(unhold);
}

/* A batch that Postgres refuses for what stands in it is taken one by one. */
static bool take(struct unhold *unhold, struct place *place)
{
    if (place->blocked_us != 0 && clock_mono_us() - place->blocked_us < BLOCKED_PAUSE_US)
        return false;
    bool fine = take_batch(unhold, place, false);
    bool refused = !fine && unhold_sql_was_refused(unhold->sql);
    if (refused) {
        fine = take_batch(unhold, place, true);
        refused = !fine && unhold_sql_was_refused(unhold->sql);
    }
    if (refused || (fine && place->blocked_us != 0))
        set_blocked(unhold, place, refused);
    return fine;
}

/* Now and then also when there is nothing, to note that there was nothing. */
static bool note_caught_up(struct unhold *unhold, struct place *place)
{
    if (clock_mono_us() - place->caught_up_us < CAUGHT_UP_EVERY_US)
        return true;
    place->caught_up_us = clock_mono_us(); /* another instance at it will do */
    return take(unhold, place);
}

/* True when all that stands in the partition now is applied, by whomever. */
static bool apply_partition(struct unhold *unhold, struct place *place)
{
    int64_t low;
    if (!ask_end(unhold, place, &low))
        return false;
    int64_t end = place->end;
    for (bool anew = is_anew(place, low); anew || place->next < end; anew = false) {
        int64_t before = place->next;
        if (!take(unhold, place) || place->next == before)
            return false;
    }
    return note_caught_up(unhold, place);
}

static bool apply_markers(struct unhold *unhold)
{
    for (int32_t p = 0; p < unhold->markers.partitions; p++) {
        if (!apply_partition(unhold, &unhold->markers.places[p]))
            return false;
    }
    return true;
}

/* At most one batch of each partition. Markers are looked at again before each: a payload may be
 * the copy of what one of them tells. *ret_taken counts records. */
static bool take_payloads(struct unhold *unhold, int64_t *ret_taken)
{
    int parked;
    int64_t waiting = 0, low;
    *ret_taken = 0;
    for (int32_t p = 0; p < unhold->payloads.partitions; p++) {
        struct place *place = &unhold->payloads.places[p];
        if (!ask_end(unhold, place, &low))
            return false;
        if (place->next < place->end || is_anew(place, low)) {
            int64_t before = place->next;
            if (!unhold_sql_parked(unhold->sql, PARKED_MAX, &parked))
                return false;
            if (parked < PARKED_MAX && (!apply_markers(unhold) || !take(unhold, place)) &&
                place->blocked_us == 0)
                return false; /* only a blocked one keeps the others from nothing */
            *ret_taken += place->next > before ? place->next - before : 0;
        } else if (!note_caught_up(unhold, place)) {
            return false;
        }
        waiting += place->end > place->next ? place->end - place->next : 0;
    }
    metrics_set(unhold->metrics, METRIC_HELD_NOW, waiting);
    return true;
}

/* ---- rounds ---- */

static void grow(struct held_topic *topic, int32_t count)
{
    topic->places = xrealloc(topic->places, (size_t)count * sizeof *topic->places);
    for (int32_t p = topic->place_count; p < count; p++)
        topic->places[p] = (struct place){.topic = topic->name,
                                          .partition = p,
                                          .is_markers = topic->is_markers,
                                          .generation = NO_GENERATION};
    topic->place_count = count;
}

static bool learn_places(struct unhold *unhold, struct held_topic *topic, int32_t count,
                         unsigned generation)
{
    if (count > topic->place_count)
        grow(topic, count);
    for (int32_t p = 0; p < count; p++) {
        struct place *place = &topic->places[p];
        if (place->generation == generation)
            continue;
        if (!learn_next(unhold, place))
            return false;
        place->generation = generation;
        place->caught_up_us = clock_mono_us();
    }
    return true;
}

/* The topic was made anew with fewer: a row that nobody moves would keep all claims for ever. */
static bool forget_places(struct unhold *unhold, struct held_topic *topic, int32_t count,
                          unsigned generation)
{
    for (int32_t p = count; p < topic->place_count; p++) {
        topic->places[p].generation = NO_GENERATION;
        topic->places[p].blocked_us = 0;
    }
    bool fewer = count < topic->partitions || topic->generation != generation;
    /* None at all is another matter: it will be made anew, and its rows tell that. */
    if (count > 0 && fewer && !unhold_sql_forget(unhold->sql, topic->name, count))
        return false;
    topic->generation = generation;
    topic->partitions = count;
    count_blocked(unhold);
    return true;
}

static bool find_topic(struct unhold *unhold, struct held_topic *topic, unsigned generation)
{
    int32_t count;
    return ask_partitions(unhold, topic, &count) &&
           learn_places(unhold, topic, count, generation) &&
           forget_places(unhold, topic, count, generation);
}

/* Anew on each connection, because the server may be another one, which knows less; on each closing
 * of the gate, because a marker may be in a partition that is new; and now and then. */
static bool find_places(struct unhold *unhold, uint64_t epoch)
{
    unsigned generation = unhold_sql_generation(unhold->sql);
    bool missing = unhold->markers.missing_us != 0 || unhold->payloads.missing_us != 0;
    if (unhold->generation == generation && unhold->epoch == epoch &&
        clock_mono_us() - unhold->looked_us < (missing ? LOOK_SOON_US : LOOK_EVERY_US))
        return true;
    if (!find_topic(unhold, &unhold->markers, generation) ||
        !find_topic(unhold, &unhold->payloads, generation))
        return false;
    unhold->looked_us = clock_mono_us();
    unhold->generation = generation;
    unhold->epoch = epoch;
    return true;
}

/* While Postgres is away: is Kafka there (see kafka_died_first()), and what is held in? */
static void watch_kafka(struct unhold *unhold)
{
    int64_t low;
    int32_t count;
    if (unhold->markers.partitions > 0 && unhold->markers.missing_us == 0 &&
        !ask_end(unhold, &unhold->markers.places[0], &low) && unhold->kafka_is_silent)
        return;
    if (clock_mono_us() - unhold->looked_us < LOOK_SOON_US)
        return;
    if (ask_partitions(unhold, &unhold->markers, &count) || !unhold->kafka_is_silent)
        (void)ask_partitions(unhold, &unhold->payloads, &count);
    unhold->looked_us = clock_mono_us();
}

/* Kafka has not answered since before the gate closed, so nobody can have left a marker since: the
 * gate may open without it, and events are parked. */
static bool kafka_died_first(const struct unhold *unhold)
{
    int64_t closed_us = gate_closed_us(unhold->options.gate);
    return unhold->contact_us < closed_us && clock_mono_us() - closed_us > KAFKA_GONE_US;
}

static void tell_gate(struct unhold *unhold)
{
    bool is_open = gate_is_open(unhold->options.gate);
    metrics_set(unhold->metrics, METRIC_HOLDING, !is_open);
    if (is_open == unhold->was_open)
        return;
    unhold->was_open = is_open;
    if (is_open)
        log_event(LOG_INFO, "hold_ended", "Postgres takes events; what is held is taken over");
    else
        log_event(LOG_WARNING, "hold_began",
                  "Postgres let a transaction or a connection go: "
                  "events are held until it is back");
}

static void open_gate(struct unhold *unhold, uint64_t epoch)
{
    if (!gate_is_open(unhold->options.gate) && unhold_sql_probe(unhold->sql))
        (void)gate_open(unhold->options.gate, epoch);
    tell_gate(unhold);
}

/* Returns how many payloads were taken over. */
static int64_t round_of(struct unhold *unhold)
{
    uint64_t epoch = gate_epoch(unhold->options.gate);
    int64_t taken = 0;
    tell_gate(unhold);
    if (!unhold_sql_is_ready(unhold->sql)) {
        watch_kafka(unhold);
        return 0;
    }
    if (!find_places(unhold, epoch) || !apply_markers(unhold)) {
        if (unhold->kafka_is_silent && kafka_died_first(unhold))
            open_gate(unhold, epoch);
        return 0;
    }
    open_gate(unhold, epoch);
    return take_payloads(unhold, &taken) ? taken : 0;
}

static void *run(void *argument)
{
    struct unhold *unhold = argument;
    while (!atomic_load(&unhold->stopping)) {
        int64_t taken = round_of(unhold);
        int64_t pause_ms = gate_is_open(unhold->options.gate) ? OPEN_PAUSE_MS : CLOSED_PAUSE_MS;
        if (taken > 0) /* live traffic comes first */
            pause_ms = taken * 1000 / unhold->options.config->hold.rate;
        int64_t until = clock_mono_us() + pause_ms * 1000;
        for (int64_t left;
             !atomic_load(&unhold->stopping) && (left = until - clock_mono_us()) > 0;) {
            if (taken == 0 && pause_ms == OPEN_PAUSE_MS && !gate_is_open(unhold->options.gate))
                break; /* closed meanwhile: don't sleep on */
            unhold_sql_wait(unhold->sql, left > 50000 ? 50 : (int)(left / 1000) + 1);
        }
    }
    return NULL;
}

struct unhold *unhold_start(const struct unhold_options *options, char **ret_reason)
{
    struct unhold *unhold = xcalloc(1, sizeof *unhold);
    unhold->options = *options;
    unhold->metrics = metrics_shard_new();
    unhold->markers = (struct held_topic){
        .name = options->config->hold.markers, .is_markers = true, .generation = NO_GENERATION};
    unhold->payloads =
        (struct held_topic){.name = options->config->hold.topic, .generation = NO_GENERATION};
    unhold->generation = NO_GENERATION;
    unhold->reader = reader_new(options->config, ret_reason);
    if (unhold->reader == NULL) {
        free(unhold);
        return NULL;
    }
    unhold->sql = unhold_sql_new(options->config);
    if (thread_start(&unhold->thread, run, unhold) != 0)
        abort();
    return unhold;
}

void unhold_stop(struct unhold *unhold)
{
    if (unhold == NULL)
        return;
    atomic_store(&unhold->stopping, true);
    unhold_sql_wake(unhold->sql);
    pthread_join(unhold->thread, NULL);
    unhold_sql_close(unhold->sql);
    reader_free(unhold->reader);
    unhold->reader = NULL;
}
