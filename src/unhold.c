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
#include "thread.h"
#include "unhold_parts.h"

#include <stdatomic.h>
#include <unistd.h>

#define SECOND INT64_C(1000000)
#define CLOSED_PAUSE_MS 50
#define OPEN_PAUSE_MS 500
#define KAFKA_GONE_US (3 * SECOND)
/* With more than this in the outbox the held ones are better off where they are. */
#define PARKED_MAX 5000
/* Topics get more partitions while we run, and may be deleted. */
#define LOOK_EVERY_US (10 * SECOND)
#define LOOK_SOON_US SECOND
#define NO_GENERATION UINT32_MAX

struct unhold {
    struct unhold_options options;
    struct unhold_kafka kafka;
    struct taking taking;
    struct held_topic markers, payloads;
    pthread_t thread;
    atomic_bool stopping;
    unsigned generation; /* of the connection, */
    uint64_t epoch;      /* and of the gate, for which the partitions are known */
    bool was_open;
};

/* ---- taking over ---- */

static bool apply_markers(struct unhold *unhold)
{
    for (int32_t p = 0; p < unhold->markers.partitions; p++) {
        if (!place_apply(&unhold->taking, &unhold->markers.places[p]))
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
        if (!unhold_kafka_bounds(&unhold->kafka, place, &low))
            return false;
        if (place->next < place->end || place_is_anew(place, low)) {
            int64_t before = place->next;
            if (!unhold_sql_parked(unhold->taking.sql, PARKED_MAX, &parked))
                return false;
            if (parked < PARKED_MAX &&
                (!apply_markers(unhold) || !place_take(&unhold->taking, place)) &&
                place->blocked_us == 0)
                return false; /* only a blocked one keeps the others from nothing */
            *ret_taken += place->next > before ? place->next - before : 0;
        } else if (!place_note_caught_up(&unhold->taking, place)) {
            return false;
        }
        waiting += place->end > place->next ? place->end - place->next : 0;
    }
    metrics_set(unhold->taking.metrics, METRIC_HELD_NOW, waiting);
    return true;
}

/* ---- partitions ---- */

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
        if (!place_learn(&unhold->taking, place))
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
    if (count > 0 && fewer && !unhold_sql_forget(unhold->taking.sql, topic->name, count))
        return false;
    topic->generation = generation;
    topic->partitions = count;
    return true;
}

static bool find_topic(struct unhold *unhold, struct held_topic *topic, unsigned generation)
{
    int32_t count;
    return unhold_kafka_partitions(&unhold->kafka, topic, &count) &&
           learn_places(unhold, topic, count, generation) &&
           forget_places(unhold, topic, count, generation);
}

/* Anew on each connection, because the server may be another one, which knows less; on each closing
 * of the gate, because a marker may be in a partition that is new; and now and then. */
static bool find_places(struct unhold *unhold, uint64_t epoch)
{
    unsigned generation = unhold_sql_generation(unhold->taking.sql);
    bool missing = unhold->markers.missing_us != 0 || unhold->payloads.missing_us != 0;
    if (unhold->generation == generation && unhold->epoch == epoch &&
        clock_mono_us() - unhold->kafka.looked_us < (missing ? LOOK_SOON_US : LOOK_EVERY_US))
        return true;
    if (!find_topic(unhold, &unhold->markers, generation) ||
        !find_topic(unhold, &unhold->payloads, generation))
        return false;
    unhold->kafka.looked_us = clock_mono_us();
    unhold->generation = generation;
    unhold->epoch = epoch;
    return true;
}

/* ---- rounds ---- */

/* While Postgres is away: is Kafka there (see kafka_died_first()), and what is held in? */
static void watch_kafka(struct unhold *unhold)
{
    int64_t low;
    int32_t count;
    if (unhold->markers.partitions > 0 && unhold->markers.missing_us == 0 &&
        !unhold_kafka_bounds(&unhold->kafka, &unhold->markers.places[0], &low) &&
        unhold->kafka.is_silent)
        return;
    if (clock_mono_us() - unhold->kafka.looked_us < LOOK_SOON_US)
        return;
    if (unhold_kafka_partitions(&unhold->kafka, &unhold->markers, &count) ||
        !unhold->kafka.is_silent)
        unhold_kafka_partitions(&unhold->kafka, &unhold->payloads, &count);
    unhold->kafka.looked_us = clock_mono_us();
}

/* Kafka has not answered since before the gate closed, so nobody can have left a marker since: the
 * gate may open without it, and events are parked. */
static bool kafka_died_first(const struct unhold *unhold)
{
    int64_t closed_us = gate_closed_us(unhold->options.gate);
    return unhold->kafka.contact_us < closed_us && clock_mono_us() - closed_us > KAFKA_GONE_US;
}

static void tell_gate(struct unhold *unhold)
{
    bool is_open = gate_is_open(unhold->options.gate);
    metrics_set(unhold->taking.metrics, METRIC_HOLDING, !is_open);
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
    if (!gate_is_open(unhold->options.gate) && unhold_sql_probe(unhold->taking.sql))
        (void)gate_open(unhold->options.gate, epoch);
    tell_gate(unhold);
}

static void count_blocked(struct unhold *unhold)
{
    const struct held_topic *topics[] = {&unhold->markers, &unhold->payloads};
    int64_t count = 0;
    for (size_t i = 0; i < sizeof topics / sizeof *topics; i++) {
        for (int32_t p = 0; p < topics[i]->partitions; p++)
            count += topics[i]->places[p].blocked_us != 0;
    }
    metrics_set(unhold->taking.metrics, METRIC_HELD_BLOCKED, count);
}

/* Returns how many payloads were taken over. */
static int64_t round_of(struct unhold *unhold)
{
    uint64_t epoch = gate_epoch(unhold->options.gate);
    int64_t taken = 0;
    tell_gate(unhold);
    if (!unhold_sql_is_ready(unhold->taking.sql)) {
        watch_kafka(unhold);
        return 0;
    }
    if (!find_places(unhold, epoch) || !apply_markers(unhold)) {
        if (unhold->kafka.is_silent && kafka_died_first(unhold))
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
        count_blocked(unhold);
        int64_t pause_ms = gate_is_open(unhold->options.gate) ? OPEN_PAUSE_MS : CLOSED_PAUSE_MS;
        if (taken > 0) /* live traffic comes first */
            pause_ms = taken * 1000 / unhold->options.config->hold.rate;
        int64_t until = clock_mono_us() + pause_ms * 1000;
        for (int64_t left;
             !atomic_load(&unhold->stopping) && (left = until - clock_mono_us()) > 0;) {
            if (taken == 0 && pause_ms == OPEN_PAUSE_MS && !gate_is_open(unhold->options.gate))
                break; /* closed meanwhile: don't sleep on */
            unhold_sql_wait(unhold->taking.sql, left > 50000 ? 50 : (int)(left / 1000) + 1);
        }
    }
    return NULL;
}

struct unhold *unhold_start(const struct unhold_options *options, char **ret_reason)
{
    struct unhold *unhold = xcalloc(1, sizeof *unhold);
    unhold->options = *options;
    unhold->kafka.options = &unhold->options;
    unhold->taking.kafka = &unhold->kafka;
    unhold->taking.metrics = metrics_shard_new();
    unhold->markers = (struct held_topic){
        .name = options->config->hold.markers, .is_markers = true, .generation = NO_GENERATION};
    unhold->payloads =
        (struct held_topic){.name = options->config->hold.topic, .generation = NO_GENERATION};
    unhold->generation = NO_GENERATION;
    unhold->kafka.reader = reader_new(options->config, ret_reason);
    if (unhold->kafka.reader == NULL) {
        free(unhold);
        return NULL;
    }
    unhold->taking.sql = unhold_sql_new(options->config);
    if (thread_start(&unhold->thread, run, unhold) != 0)
        abort();
    return unhold;
}

void unhold_stop(struct unhold *unhold)
{
    if (unhold == NULL)
        return;
    atomic_store(&unhold->stopping, true);
    unhold_sql_wake(unhold->taking.sql);
    pthread_join(unhold->thread, NULL);
    unhold_sql_close(unhold->taking.sql);
    reader_free(unhold->kafka.reader);
    unhold->kafka.reader = NULL;
}
