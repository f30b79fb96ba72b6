/* One partition of the holding topics, taken over, behind unhold_parts.h: what stands there is
 * read, written to Postgres with the row that says how far, and deleted. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "clock.h"
#include "log.h"
#include "metrics.h"
#include "unhold_parts.h"

#include <inttypes.h>

#define SECOND INT64_C(1000000)
#define BATCH_BYTES (4 << 20)
#define KAFKA_US SECOND
#define DELETE_EVERY_US SECOND
/* Claims are purged behind this: see mcp.purge_claims(). */
#define CAUGHT_UP_EVERY_US (10 * SECOND)
/* Before a partition is tried again that Postgres does not even let set aside. */
#define BLOCKED_PAUSE_US SECOND

/* One partition that is read. */
struct visit {
    struct taking *taking;
    const struct place *place;
};

static bool on_record(const struct reader_record *record, void *context)
{
    const struct visit *visit = context;
    const struct place *place = visit->place;
    struct taking *taking = visit->taking;
    taking->next = record->offset + 1;
    if (held_read(record, place->is_markers, &taking->batch[taking->count])) {
        taking->bytes += record->value.len;
        taking->count++;
    } else {
        metrics_add(taking->metrics, METRIC_HELD_UNREADABLE, 1);
        log_event(LOG_ERROR, "held_unreadable",
                  "topic %s, partition %d, offset %" PRId64
                  ": not written by a gateway; passed over",
                  place->topic, (int)record->partition, record->offset);
    }
    taking->is_full = taking->count >= taking->batch_max || taking->bytes >= BATCH_BYTES;
    return !taking->is_full;
}

/* Fills the batch with what stands behind place->next. */
static bool read_batch(struct taking *taking, struct place *place)
{
    struct visit visit = {taking, place};
    taking->count = taking->bytes = 0;
    taking->next = place->next;
    taking->is_full = false;
    bool fine = unhold_kafka_said(taking->kafka,
                                  reader_read(taking->kafka->reader, place->topic, place->partition,
                                              place->next, place->end, clock_mono_us() + KAFKA_US,
                                              on_record, &visit));
    if (fine && !taking->is_full)
        taking->next = place->end; /* offsets may have gaps */
    return fine || taking->next > place->next;
}

static void release_batch(struct taking *taking)
{
    for (size_t i = 0; i < taking->count; i++)
        held_release(&taking->batch[i]);
    taking->count = 0;
}

/* What is taken over is deleted, so that the topic stays small and tells what is held. */
static void delete_taken(struct taking *taking, struct place *place)
{
    int64_t now = clock_mono_us();
    if (place->next <= place->deleted ||
        (now - place->deleted_us < DELETE_EVERY_US && place->next < place->end))
        return;
    if (unhold_kafka_said(taking->kafka,
                          reader_delete_before(taking->kafka->reader, place->topic,
                                               place->partition, place->next, now + KAFKA_US)))
        place->deleted = place->next;
    place->deleted_us = now;
}

/* ---- taking over ---- */

static void count(struct taking *taking, const struct place *place,
                  const struct unhold_taken *taken)
{
    int64_t rest = (int64_t)taking->count - taken->refused;
    if (place->is_markers) {
        metrics_add(taking->metrics, METRIC_UNHELD_MARKED, rest);
        metrics_add(taking->metrics, METRIC_DOUBLES_STORE_LOST, taken->doubled);
    } else {
        taking->taken += (int64_t)taking->count;
        metrics_add(taking->metrics, METRIC_UNHELD_PARKED, taken->fresh);
        metrics_add(taking->metrics, METRIC_UNHELD_COPIES, rest - taken->fresh);
    }
    if (taken->refused == 0)
        return;
    metrics_add(taking->metrics, METRIC_UNHELD_REFUSED, taken->refused);
    log_event(LOG_ERROR, "held_refused",
              "topic %s, partition %d: Postgres refuses %d of %zu events, which are set aside "
              "(hookgate stuck list)",
              place->topic, (int)place->partition, taken->refused, taking->count);
}

/* With the row locked, which ends here: what was read is taken over. */
static bool take_read(struct taking *taking, struct place *place, bool caught_up, bool each)
{
    const struct unhold_batch batch = {.topic = place->topic,
                                       .partition = place->partition,
                                       .are_markers = place->is_markers,
                                       .held = taking->batch,
                                       .count = taking->count,
                                       .next = caught_up ? place->next : taking->next,
                                       .caught_up = caught_up,
                                       .each = each};
    struct unhold_taken taken;
    bool fine = unhold_sql_take(taking->sql, &batch, &taken);
    if (fine) {
        count(taking, place, &taken);
        place->next = batch.next;
        if (caught_up)
            place->caught_up_us = clock_mono_us();
    }
    release_batch(taking);
    return fine;
}

bool place_is_anew(const struct place *place, int64_t low)
{
    return place->next > place->end || low < place->deleted;
}

/* Where to go on, as Kafka is now. Reading again is safe: copies are claimed already. */
static void go_to(struct taking *taking, struct place *place, int64_t low)
{
    if (place_is_anew(place, low)) {
        if (place->next != low) /* else another instance has told it */
            log_event(LOG_ERROR, "held_anew",
                      "topic %s, partition %d was made anew: it begins at %" PRId64
                      " and ends at %" PRId64 ", but %" PRId64
                      " was to be read next; it is read from its begin",
                      place->topic, (int)place->partition, low, place->end, place->next);
        place->next = place->deleted = low;
    } else if (low > place->next) {
        if (place->next > 0) { /* 0: the row is new */
            metrics_add(taking->metrics, METRIC_HELD_LOST, low - place->next);
            log_event(LOG_ERROR, "held_lost",
                      "topic %s, partition %d: offsets %" PRId64 " to %" PRId64
                      " are gone from Kafka before they were taken over",
                      place->topic, (int)place->partition, place->next, low - 1);
        }
        place->next = low;
    }
}

/* With the row locked: reads and takes over one batch, or notes that there is nothing. */
static bool take_locked(struct taking *taking, struct place *place, bool each)
{
    int64_t low;
    bool fine = unhold_kafka_bounds(taking->kafka, place, &low);
    if (fine)
        go_to(taking, place, low);
    bool caught_up = fine && place->next >= place->end;
    if (!fine || (!caught_up && !read_batch(taking, place))) {
        unhold_sql_rollback(taking->sql);
        return false;
    }
    return take_read(taking, place, caught_up, each);
}

bool place_learn(struct taking *taking, struct place *place)
{
    if (!unhold_sql_next(taking->sql, place->topic, place->partition, &place->next))
        return false;
    if (place->next >= 0)
        return true;
    place->next = 0;
    return unhold_sql_know(taking->sql, place->topic, place->partition);
}

static bool take_batch(struct taking *taking, struct place *place, bool each)
{
    int64_t next;
    if (!unhold_sql_lock(taking->sql, place->topic, place->partition, &next))
        return false;
    if (next < 0)
        return place_learn(taking, place);
    place->next = next;
    bool fine = take_locked(taking, place, each);
    if (fine)
        delete_taken(taking, place);
    return fine;
}

/* Postgres refuses an event and also that it is set aside: the partition waits, nothing is lost. */
static void set_blocked(struct taking *taking, struct place *place, bool is_blocked)
{
    if (is_blocked && place->blocked_us == 0)
        log_event(LOG_ERROR, "held_blocked",
                  "topic %s, partition %d: Postgres refuses what is held at offset %" PRId64
                  " or behind, and does not let it be set aside either; it stays in Kafka and is "
                  "tried again: %s",
                  place->topic, (int)place->partition, place->next, unhold_sql_reason(taking->sql));
    place->blocked_us = is_blocked ? clock_mono_us() : 0;
}

bool place_take(struct taking *taking, struct place *place)
{
    if (place->blocked_us != 0 && clock_mono_us() - place->blocked_us < BLOCKED_PAUSE_US)
        return false;
    bool fine = take_batch(taking, place, false);
    bool refused = !fine && unhold_sql_was_refused(taking->sql);
    if (refused) {
        fine = take_batch(taking, place, true);
        refused = !fine && unhold_sql_was_refused(taking->sql);
    }
    if (refused || (fine && place->blocked_us != 0))
        set_blocked(taking, place, refused);
    return fine;
}

bool place_note_caught_up(struct taking *taking, struct place *place)
{
    if (clock_mono_us() - place->caught_up_us < CAUGHT_UP_EVERY_US)
        return true;
    place->caught_up_us = clock_mono_us(); /* another instance at it will do */
    return place_take(taking, place);
}

bool place_apply(struct taking *taking, struct place *place)
{
    int64_t low;
    if (!unhold_kafka_bounds(taking->kafka, place, &low))
        return false;
    int64_t end = place->end;
    for (bool anew = place_is_anew(place, low); anew || place->next < end; anew = false) {
        int64_t before = place->next;
        if (!place_take(taking, place) || place->next == before)
            return false;
    }
    return place_note_caught_up(taking, place);
}
