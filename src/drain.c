/* The thread behind drain.h: one turn after another, each step of it bounded in time. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "drain.h"

#include "breaker.h"
#include "clock.h"
#include "config.h"
#include "log.h"
#include "metrics.h"
#include "outbox.h"
#include "parking.h"
#include "publisher.h"
#include "search.h"
#include "shipment.h"
#include "thread.h"

#include <stdatomic.h>
#include <stdio.h>

#define SECOND INT64_C(1000000)
#define TURN_MS 50
/* The outbox is looked at so often, but not for more than a tenth of the time. */
#define LOOK_US SECOND
#define LOOK_SOON_US (SECOND / 10)
/* However long a look took: Postgres may have been frozen meanwhile, and is quick again. */
#define LOOK_MOST_US (5 * SECOND)
/* What is taken is handed to librdkafka within this or not at all: whoever is stopped in between
 * must not send what others have looked for since. Together with message.timeout.ms (topics.c) it
 * is not more than the least that park.decide_after can be and what search.c lets pass besides. */
#define FRESH_US (3 * SECOND)
#define PUBLISH_US (3 * SECOND)
#define SHIPMENT_ROWS 128
#define SHIPMENT_BYTES (4 * 1024 * 1024)
#define SEARCH_ROWS 1000
#define SEARCH_PAUSE_US (2 * SECOND)
/* A fence (search.h) was made so long after the last moment at which the record could be appended:
 * instances' clocks differ. */
#define FENCE_US (5 * SECOND)
/* A partition may be idle and get none: so long after the first search the brokers' word counts. */
#define IDLE_US (60 * SECOND)
/* A topic may be away for a while, when it is made anew or its rights are mended. */
#define TOPIC_GONE_US (600 * SECOND)
#define PARTITIONS_MAX 1024
/* More than a configuration has, and what is left of others goes as soon as nothing waits for it.
 */
#define ROUTES_MAX 1024

static const struct breaker_patience patience = {.first_us = SECOND / 4, .most_us = SECOND};
/* A partition's alone: each probe of one that is dead costs the others PUBLISH_US. */
static const struct breaker_patience partition_patience = {.first_us = SECOND / 4,
                                                           .most_us = 5 * SECOND};

/* What topics_watch.h says of a topic. Rows of one that it does not name are left of another
 * configuration, under which they were taken: they go there too, or get stuck if it is gone. */
enum route_word { ROUTE_UNNAMED, ROUTE_GOOD, ROUTE_REFUSED };

/* A topic that is named, or that rows were seen for. */
struct route {
    char name[256];
    unsigned round;           /* of naming all topics: the last that named it */
    struct outbox_topic look; /* as of the last look; all zero when nothing waits */
    enum route_word word;
    bool flows; /* something was acknowledged since rows began to wait: no need to begin with one */
    struct breaker breaker;
    struct breaker partitions[PARTITIONS_MAX];
    int64_t gone_us; /* since when Kafka says that it can't be written to; 0 = it can */
    struct search *search;
    struct outbox_rows searched;
    int64_t search_us; /* not before */
};

struct drain {
    struct drain_options options;
    pthread_t thread;
    _Atomic bool stop;

    /* The thread's own. */
    struct loop *loop;
    struct metrics *metrics;
    struct outbox *outbox;
    struct publisher *publisher; /* NULL until something waits */
    struct route *routes[ROUTES_MAX];
    size_t route_count;
    unsigned round;  /* of naming all topics of the configuration; the present one */
    bool all_named;  /* in one round at least */
    int64_t look_us; /* the next one */
    int64_t rate_us; /* when the rate allows the next shipment */
};

/* ---- look ---- */

static struct route *route_of(struct drain *drain, const char *name)
{
    for (size_t i = 0; i < drain->route_count; i++) {
        if (strcmp(drain->routes[i]->name, name) == 0)
            return drain->routes[i];
    }
    if (drain->route_count == ROUTES_MAX)
        return NULL;
    struct route *route = xcalloc(1, sizeof *route);
    snprintf(route->name, sizeof route->name, "%s", name);
    drain->routes[drain->route_count++] = route;
    return route;
}

static void tell_look(struct drain *drain, const struct outbox_look *look)
{
    int64_t rows = 0, undecided = 0, bytes = 0, oldest_us = 0;
    for (size_t i = 0; i < look->count; i++) {
        const struct outbox_topic *topic = &look->topics[i];
        rows += topic->ready + topic->undecided;
        undecided += topic->undecided;
        bytes += topic->bytes;
        oldest_us = topic->oldest_us > oldest_us ? topic->oldest_us : oldest_us;
    }
    metrics_set(drain->metrics, METRIC_OUTBOX_ROWS, rows);
    metrics_set(drain->metrics, METRIC_OUTBOX_UNDECIDED, undecided);
    metrics_set(drain->metrics, METRIC_OUTBOX_BYTES, bytes);
    metrics_set(drain->metrics, METRIC_OUTBOX_AGE, oldest_us / SECOND);
    metrics_set(drain->metrics, METRIC_STUCK, look->stuck);
    parking_set(drain->options.parking, bytes, oldest_us);
}

/* Nothing waits for a topic: all that was parked has been acknowledged, be it to another instance.
 */
static void tell_empty(const struct drain *drain)
{
    for (size_t i = 0; i < drain->route_count; i++) {
        struct route *route = drain->routes[i];
        if (route->look.ready + route->look.undecided > 0)
            continue;
        route->flows = false;
        drain->options.on_heard(route->name, -1, drain->options.context);
    }
}

/* Topics that the configuration does not name, and nothing waits for any more. */
static void drop_former(struct drain *drain)
{
    size_t kept = 0;
    for (size_t i = 0; i < drain->route_count; i++) {
        struct route *route = drain->routes[i];
        if (route->word != ROUTE_UNNAMED || route->search != NULL ||
            route->look.ready + route->look.undecided > 0)
            drain->routes[kept++] = route;
        else
            free(route);
    }
    drain->route_count = kept;
}

static void look(struct drain *drain)
{
    int64_t now = clock_mono_us();
    bool soon = parking_take_news(drain->options.parking);
    if (now < drain->look_us && !(soon && now >= drain->look_us - LOOK_US + LOOK_SOON_US))
        return;
    struct outbox_look found;
    if (!outbox_look(drain->outbox, &found)) {
        drain->look_us = now + LOOK_US;
        return;
    }
    for (size_t i = 0; i < drain->route_count; i++)
        drain->routes[i]->look = (struct outbox_topic){0};
    for (size_t i = 0; i < found.count; i++) {
        struct route *route = route_of(drain, found.topics[i].name);
        if (route != NULL)
            route->look = found.topics[i];
    }
    tell_look(drain, &found);
    tell_empty(drain);
    drop_former(drain);
    int64_t took = clock_mono_us() - now;
    int64_t pause = took * 10 > LOOK_US ? took * 10 : LOOK_US;
    drain->look_us = now + (pause < LOOK_MOST_US ? pause : LOOK_MOST_US);
}

/* ---- publish ---- */

static bool publisher_is_warm(struct drain *drain)
{
    if (drain->publisher == NULL) {
        char *reason = NULL;
        drain->publisher =
            publisher_new(drain->loop, drain->options.config, drain->metrics, &reason);
        if (drain->publisher == NULL)
            log_event(LOG_ERROR, "drain_failed", "%s", reason);
        free(reason);
    }
    return drain->publisher != NULL && publisher_is_up(drain->publisher);
}

/* What became of one row, as the outbox should have it. */
static struct outbox_verdict verdict_of(const struct route *route, const struct shipment_end *end)
{
    struct outbox_verdict verdict = {OUTBOX_RELEASED, end->partition, end->offset, NULL};
    switch (end->result) {
    case PUBLISHED:
        verdict.end = OUTBOX_PUBLISHED;
        break;
    case PUBLISH_UNDECIDED:
        verdict.end = OUTBOX_STAYS;
        break;
    case PUBLISH_TOO_LARGE:
        verdict.end = OUTBOX_STUCK;
        verdict.reason = "the record is larger than the topic's max.message.bytes";
        break;
    case PUBLISH_REFUSED:
        verdict.end = OUTBOX_STUCK;
        verdict.reason = "Kafka calls the record invalid";
        break;
    case PUBLISH_NO_TOPIC:
        if (route->gone_us != 0 && clock_mono_us() - route->gone_us > TOPIC_GONE_US) {
            verdict.end = OUTBOX_STUCK;
            verdict.reason = "there is no such topic, or it may not be written to";
        }
        break;
    case PUBLISH_UNSENT:
    case PUBLISH_NOT_TRIED:
        break;
    }
    return verdict;
}

/* Kafka acknowledges: closes the breakers here, and the workers'. */
static void hear(struct drain *drain, struct route *route, const struct shipment *shipment)
{
    int32_t told = -1;
    const struct shipment_end *ends = shipment_ends(shipment);
    for (size_t i = 0; i < shipment_rows(shipment)->count; i++) {
        int32_t partition = ends[i].partition;
        if (ends[i].result != PUBLISHED)
            continue;
        route->gone_us = 0;
        route->flows = true;
        if (breaker_close(&route->breaker)) {
            log_event(LOG_INFO, "drain_flows", "topic %s: Kafka takes what is parked", route->name);
            memset(route->partitions, 0, sizeof route->partitions); /* all may be back */
        }
        if (partition < PARTITIONS_MAX)
            (void)breaker_close(&route->partitions[partition]);
        if (partition != told)
            drain->options.on_heard(route->name, partition, drain->options.context);
        told = partition;
    }
}

static bool is_missed(const struct shipment_end *end)
{
    return end->result == PUBLISH_UNSENT || end->result == PUBLISH_UNDECIDED;
}

/* Once for all records of a shipment. */
static void fail_partition(struct route *route, int32_t partition, int64_t now_us)
{
    if (partition < 0 || partition >= PARTITIONS_MAX)
        return;
    struct breaker *breaker = &route->partitions[partition];
    if (!breaker->open || breaker_probe_is_due(breaker, now_us))
        (void)breaker_fail(breaker, &partition_patience, now_us);
}

/* A record that is not acknowledged in time opens its partition's breaker, so that the next probe
 * goes elsewhere, and the topic's if no other was acknowledged. A partition that is probed (-1 =
 * none) says nothing of the topic. */
static void miss(struct route *route, const struct shipment *shipment, int32_t probed)
{
    bool any_acked = false, any_missed = false, topic_is_gone = false;
    const struct shipment_end *ends = shipment_ends(shipment);
    const struct outbox_rows *rows = shipment_rows(shipment);
    int64_t now = clock_mono_us();
    for (size_t i = 0; i < rows->count; i++) {
        any_acked |= ends[i].result == PUBLISHED;
        any_missed |= is_missed(&ends[i]);
        topic_is_gone |= ends[i].result == PUBLISH_NO_TOPIC;
        if (is_missed(&ends[i]))
            fail_partition(route, rows->rows[i].key_partition, now);
    }
    if (topic_is_gone && route->gone_us == 0)
        route->gone_us = now;
    if (!any_acked && (topic_is_gone || (any_missed && probed < 0)))
        (void)breaker_fail(&route->breaker, &patience, now);
}

static void count_ends(struct drain *drain, const struct outbox_verdict *verdicts, size_t count)
{
    int64_t published = 0, stuck = 0;
    for (size_t i = 0; i < count; i++) {
        published += verdicts[i].end == OUTBOX_PUBLISHED;
        stuck += verdicts[i].end == OUTBOX_STUCK;
        if (verdicts[i].end == OUTBOX_STUCK && stuck == 1)
            log_event(LOG_ERROR, "drain_stuck", "%s (hookgate stuck list)", verdicts[i].reason);
    }
    metrics_add(drain->metrics, METRIC_DRAINED, published);
    metrics_add(drain->metrics, METRIC_STUCK_TOTAL, stuck);
}

/* What can't be settled now stays undecided, and is found in Kafka later. */
static bool settle(struct drain *drain, const struct outbox_rows *rows,
                   const struct outbox_verdict *verdicts)
{
    size_t gone = 0;
    if (!outbox_settle(drain->outbox, rows, verdicts, &gone)) {
        log_event(LOG_WARNING, "drain_unsettled", "%s", outbox_reason(drain->outbox));
        return false;
    }
    count_ends(drain, verdicts, rows->count);
    if (gone > 0)
        metrics_add(drain->metrics, METRIC_DOUBLES_DRAIN, (int64_t)gone);
    return true;
}

/* Takes and sends; returns how many rows. */
static size_t ship(struct drain *drain, struct route *route, const struct outbox_wanted *wanted)
{
    int64_t began = clock_mono_us();
    struct outbox_rows rows;
    if (!outbox_take(drain->outbox, wanted, clock_wall_us(), &rows)) {
        log_event(LOG_WARNING, "drain_failed", "%s", outbox_reason(drain->outbox));
        return 0;
    }
    size_t count = rows.count;
    if (count == 0) {
        outbox_rows_release(&rows);
        return 0;
    }
    struct topic *topic = publisher_topic(drain->publisher, route->name);
    struct shipment *shipment = shipment_new(drain->loop, drain->publisher, topic, &rows);
    shipment_send(shipment, began + FRESH_US, PUBLISH_US);
    hear(drain, route, shipment);
    miss(route, shipment, wanted->partition);
    struct outbox_verdict *verdicts = xcalloc(count, sizeof *verdicts);
    for (size_t i = 0; i < count; i++)
        verdicts[i] = verdict_of(route, &shipment_ends(shipment)[i]);
    (void)settle(drain, shipment_rows(shipment), verdicts);
    free(verdicts);
    shipment_free(shipment);
    return count;
}

/* One record for the partition that has waited for its probe the longest. */
static void probe_partition(struct drain *drain, struct route *route)
{
    struct breaker *due = NULL;
    for (int32_t i = 0; i < PARTITIONS_MAX; i++) {
        struct breaker *breaker = &route->partitions[i];
        if (breaker_probe_is_due(breaker, clock_mono_us()) &&
            (due == NULL || breaker->probe_us < due->probe_us))
            due = breaker;
    }
    if (due == NULL)
        return;
    const struct outbox_wanted wanted = {
        .topic = route->name, .partition = (int32_t)(due - route->partitions), .count = 1};
    if (ship(drain, route, &wanted) == 0)
        (void)breaker_close(due); /* nothing waits for it */
}

static size_t shipment_size(const struct route *route)
{
    int64_t largest = route->look.largest > 0 ? route->look.largest : 1;
    int64_t fit = SHIPMENT_BYTES / largest;
    if (route->breaker.open || !route->flows || fit < 1)
        return 1;
    return fit < SHIPMENT_ROWS ? (size_t)fit : SHIPMENT_ROWS;
}

static bool may_send(const struct drain *drain, const struct route *route)
{
    return route->word == ROUTE_GOOD || (route->word == ROUTE_UNNAMED && drain->all_named);
}

static void publish(struct drain *drain, struct route *route)
{
    int64_t now = clock_mono_us();
    if (route->look.ready == 0 || !may_send(drain, route) || now < drain->rate_us ||
        !publisher_is_warm(drain) ||
        (route->breaker.open && !breaker_probe_is_due(&route->breaker, now)))
        return;
    int32_t skipped[PARTITIONS_MAX];
    struct outbox_wanted wanted = {
        .topic = route->name, .skipped = skipped, .partition = -1, .count = shipment_size(route)};
    for (int32_t i = 0; i < PARTITIONS_MAX; i++) {
        if (route->partitions[i].open)
            skipped[wanted.skipped_count++] = i;
    }
    size_t sent = ship(drain, route, &wanted);
    route->look.ready -= (int64_t)sent;
    if (sent < wanted.count)
        route->look.ready = 0; /* others have the rest, or their partitions do not answer */
    int64_t rate = drain->options.config->park.rate;
    drain->rate_us = now + (int64_t)sent * SECOND / rate;
    if (!route->breaker.open)
        probe_partition(drain, route);
    else if (sent == 0) /* each has been tried: from the first one again */
        memset(route->partitions, 0, sizeof route->partitions);
}

/* ---- undecided ---- */

/* Both the record's own time and that of its marking, by Postgres' clock: one of them may be
 * behind. While Kafka takes nothing of the topic nothing is won by calling a record absent. */
static struct search_item item_of(const struct drain *drain, const struct route *route,
                                  const struct outbox_row *row)
{
    int64_t decide_after_us = drain->options.config->park.decide_after_us;
    int64_t sent_us =
        row->record_wall_us > row->undecided_since ? row->record_wall_us : row->undecided_since;
    bool flows = route->look.ready == 0 || (route->flows && !route->breaker.open);
    return (struct search_item){.id = row->id,
                                .partition = row->sent_partition,
                                .wall_us = row->record_wall_us,
                                .fence_us = sent_us + decide_after_us + FENCE_US,
                                .idle = flows && row->undecided_us > decide_after_us + IDLE_US};
}

static void start_search(struct drain *drain, struct route *route)
{
    if (route->look.undecided == 0 || clock_mono_us() < route->search_us)
        return;
    route->search_us = clock_mono_us() + SEARCH_PAUSE_US;
    if (!outbox_lock(drain->outbox, route->name))
        return;
    if (!outbox_take_undecided(drain->outbox, route->name,
                               drain->options.config->park.decide_after_us, SEARCH_ROWS,
                               &route->searched) ||
        route->searched.count == 0) {
        outbox_rows_release(&route->searched);
        outbox_unlock(drain->outbox, route->name);
        return;
    }
    size_t count = route->searched.count;
    struct search_item *items = xcalloc(count, sizeof *items);
    for (size_t i = 0; i < count; i++)
        items[i] = item_of(drain, route, &route->searched.rows[i]);
    route->search = search_start(drain->options.config, route->name, items, count);
    free(items);
}

static void end_search(struct drain *drain, struct route *route)
{
    const struct search_item *items = search_items(route->search);
    size_t count = route->searched.count, found = 0, absent = 0, likely = 0;
    struct outbox_verdict *verdicts = xcalloc(count, sizeof *verdicts);
    for (size_t i = 0; i < count; i++) {
        enum search_result result = items[i].result;
        verdicts[i] = (struct outbox_verdict){OUTBOX_STAYS, items[i].partition, -1, NULL};
        if (result == SEARCH_FOUND) {
            verdicts[i].end = OUTBOX_PUBLISHED;
            verdicts[i].offset = items[i].offset;
        } else if (result != SEARCH_UNKNOWN) {
            verdicts[i].end = OUTBOX_RELEASED;
        }
        found += result == SEARCH_FOUND;
        absent += result == SEARCH_ABSENT;
        likely += result == SEARCH_LIKELY_ABSENT;
    }
    bool settled = settle(drain, &route->searched, verdicts);
    if (settled && found + absent + likely > 0) {
        log_event(LOG_INFO, "undecided",
                  "topic %s: of %zu undecided records %zu are in Kafka, %zu are not, %zu most "
                  "likely not",
                  route->name, count, found, absent, likely);
        metrics_add(drain->metrics, METRIC_UNDECIDED_FOUND, (int64_t)found);
        metrics_add(drain->metrics, METRIC_UNDECIDED_ABSENT, (int64_t)(absent + likely));
        metrics_add(drain->metrics, METRIC_DOUBLES_DRAIN, (int64_t)likely);
    }
    outbox_unlock(drain->outbox, route->name);
    free(verdicts);
    search_free(route->search);
    outbox_rows_release(&route->searched);
    route->search = NULL;
    drain->look_us = 0;
}

static void decide(struct drain *drain, struct route *route)
{
    if (route->search == NULL)
        start_search(drain, route);
    else if (search_is_done(route->search))
        end_search(drain, route);
}

/* ---- the thread ---- */

/* While rows wait and Kafka takes them, the rate alone decides. */
static int wait_ms(const struct drain *drain)
{
    int64_t left = (drain->rate_us - clock_mono_us()) / 1000;
    bool busy = false;
    for (size_t i = 0; i < drain->route_count; i++)
        busy |= drain->routes[i]->look.ready > 0 && drain->routes[i]->flows;
    if (!busy || left > TURN_MS)
        return TURN_MS;
    return left > 0 ? (int)left : 0;
}

static void turn(struct drain *drain)
{
    loop_turn(drain->loop, wait_ms(drain));
    if (!outbox_is_ready(drain->outbox))
        return;
    look(drain);
    for (size_t i = 0; i < drain->route_count && !atomic_load(&drain->stop); i++) {
        publish(drain, drain->routes[i]);
        decide(drain, drain->routes[i]);
    }
}

static void *run(void *argument)
{
    struct drain *drain = argument;
    drain->outbox = outbox_new(drain->loop, drain->options.config);
    while (!atomic_load(&drain->stop))
        turn(drain);
    for (size_t i = 0; i < drain->route_count; i++) {
        search_free(drain->routes[i]->search);
        outbox_rows_release(&drain->routes[i]->searched);
        free(drain->routes[i]);
    }
    publisher_free(drain->publisher);
    outbox_free(drain->outbox);
    return NULL;
}

struct drain *drain_start(const struct drain_options *options)
{
    struct drain *drain = xcalloc(1, sizeof *drain);
    drain->options = *options;
    drain->metrics = metrics_shard_new();
    drain->loop = loop_new();
    drain->round = 1;
    if (thread_start(&drain->thread, run, drain) != 0)
        abort();
    return drain;
}

/* What was found out about a topic, on its way to the thread; without a name: all were named. */
struct finding {
    struct loop_task task;
    struct drain *drain;
    bool good;
    char name[];
};

static void end_round(struct drain *drain)
{
    for (size_t i = 0; i < drain->route_count; i++) {
        if (drain->routes[i]->round != drain->round)
            drain->routes[i]->word = ROUTE_UNNAMED;
    }
    drain->round++;
    drain->all_named = true;
}

static void on_finding(struct loop_task *task)
{
    struct finding *finding = container_of(task, struct finding, task);
    struct drain *drain = finding->drain;
    bool ends = finding->name[0] == '\0';
    struct route *route = ends ? NULL : route_of(drain, finding->name);
    if (ends)
        end_round(drain);
    if (route != NULL) {
        route->word = finding->good ? ROUTE_GOOD : ROUTE_REFUSED;
        route->round = drain->round;
    }
    free(finding);
}

void drain_topic_checked(struct drain *drain, const char *topic, int32_t partitions)
{
    struct finding *finding = xcalloc(1, sizeof *finding + strlen(topic) + 1);
    finding->task.run = on_finding;
    finding->drain = drain;
    finding->good = partitions > 0;
    memcpy(finding->name, topic, strlen(topic));
    loop_post(drain->loop, &finding->task);
}

void drain_topics_named(struct drain *drain)
{
    drain_topic_checked(drain, "", 0);
}

void drain_stop(struct drain *drain)
{
    if (drain == NULL)
        return;
    atomic_store(&drain->stop, true);
    pthread_join(drain->thread, NULL);
    /* It stays with its loop until the process ends: a thread that looks up a name may still post
     * to it. */
}
