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
#define CLOSED_PAUSE_US 50000
#define OPEN_PAUSE_US 500000
#define KAFKA_GONE_US (3 * SECOND)
/* With more than this in the outbox the held ones are better off where they are. But it may all be
 * of one topic that is refused, so a few of each partition go on. */
#define PARKED_MAX 5000
#define CROWDED_BATCH 10
#define CROWDED_REST_US SECOND
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
    int32_t first;         /* partition of payloads to look at */
    int64_t rest_until_us; /* before that no payloads are taken: live traffic comes first */
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

/* Markers are looked at again before: a payload may be the copy of what one of them tells. */
static bool take_payload_batch(struct unhold *unhold, struct place *place)
{
    int parked;
    if (!unhold_sql_parked(unhold->taking.sql, PARKED_MAX, &parked) || !apply_markers(unhold))
        return false;
    bool crowded = parked >= PARKED_MAX;
    unhold->taking.batch_max = crowded ? CROWDED_BATCH : UNHOLD_BATCH_MAX;
    bool fine = place_take(&unhold->taking, place);
    unhold->taking.batch_max = UNHOLD_BATCH_MAX;
    if (crowded)
        unhold->rest_until_us = clock_mono_us() + CROWDED_REST_US;
    return fine;
}

static void count_waiting(struct unhold *unhold)
{
    int64_t waiting = 0;
    for (int32_t p = 0; p < unhold->payloads.partitions; p++) {
        const struct place *place = &unhold->payloads.places[p];
        waiting += place->end > place->next ? place->end - place->next : 0;
    }
    metrics_set(unhold->taking.metrics, METRIC_HELD_NOW, waiting);
}

/* At most one batch of each partition. One that fails ends it, because Kafka or Postgres may be
 * away; but the next round begins behind it, so that it keeps the others from nothing. */
static void take_payloads(struct unhold *unhold)
{
    bool rests = clock_mono_us() < unhold->rest_until_us, fine = true;
    int32_t count = unhold->payloads.partitions, begin = unhold->first;
    for (int32_t i = 0; i < count && fine; i++) {
        struct place *place = &unhold->payloads.places[(begin + i) % count];
        int64_t low;
        fine = unhold_kafka_bounds(&unhold->kafka, place, &low);
        if (fine && (place->next < place->end || place_is_anew(place, low)))
            fine = rests || take_payload_batch(unhold, place) || place->blocked_us != 0;
        else if (fine)
            fine = place_note_caught_up(&unhold->taking, place);
        unhold->first = place->partition + 1;
    }
    count_waiting(unhold);
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

/* Kafka has not answered us since before the gate closed. When it is away for all, nobody can have
 * left a marker since: the gate may open without it, and events are parked. When it is away for us
 * alone, others may have: a copy that is claimed before theirs is applied is a possible double,
 * which is counted when it is. */
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

static void round_of(struct unhold *unhold)
{
    uint64_t epoch = gate_epoch(unhold->options.gate);
    tell_gate(unhold);
    if (!unhold_sql_is_ready(unhold->taking.sql)) {
        watch_kafka(unhold);
        return;
    }
    if (!find_places(unhold, epoch) || !apply_markers(unhold)) {
        if (unhold->kafka.is_silent && kafka_died_first(unhold))
            open_gate(unhold, epoch);
        return;
    }
    open_gate(unhold, epoch);
    take_payloads(unhold);
}

/* Rounds go on while payloads rest. A gate that is closed meanwhile ends the pause. */
static void pause_after(struct unhold *unhold)
{
    const struct gate *gate = unhold->options.gate;
    bool was_open = gate_is_open(gate);
    int64_t now = clock_mono_us(), until = now + (was_open ? OPEN_PAUSE_US : CLOSED_PAUSE_US);
    int64_t rested = now + unhold->taking.taken * SECOND / unhold->options.config->hold.rate;
    unhold->taking.taken = 0;
    if (unhold->rest_until_us < rested)
        unhold->rest_until_us = rested;
    if (unhold->rest_until_us > now && unhold->rest_until_us < until)
        until = unhold->rest_until_us;
    for (int64_t left; !atomic_load(&unhold->stopping) && (left = until - clock_mono_us()) > 0;) {
        if (was_open && !gate_is_open(gate))
            break;
        unhold_sql_wait(unhold->taking.sql, left > 50000 ? 50 : (int)(left / 1000) + 1);
    }
}

static void *run(void *argument)
{
    struct unhold *unhold = argument;
    while (!atomic_load(&unhold->stopping)) {
        round_of(unhold);
        count_blocked(unhold);
        pause_after(unhold);
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
    unhold->taking.batch_max = UNHOLD_BATCH_MAX;
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
