/* The sending behind shipment.h. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "shipment.h"

#include "clock.h"
#include "record.h"

/* Reports of purged records come at once; whoever has none by then is undecided. */
#define PURGE_GRACE_US 200000
#define TURN_MS 20

struct parcel {
    struct publish_op op;
    struct shipment *shipment;
};

struct shipment {
    struct loop *loop;
    struct publisher *publisher;
    struct topic *topic;
    struct outbox_rows rows;
    struct parcel *parcels;
    struct shipment_end *ends;
    int64_t latest_us;
    size_t outstanding; /* at librdkafka */
    bool late, ended;
};

static void release(struct shipment *shipment)
{
    outbox_rows_release(&shipment->rows);
    free(shipment->parcels);
    free(shipment->ends);
    free(shipment);
}

struct shipment *shipment_new(struct loop *loop, struct publisher *publisher, struct topic *topic,
                              struct outbox_rows *rows)
{
    struct shipment *shipment = xcalloc(1, sizeof *shipment);
    shipment->loop = loop;
    shipment->publisher = publisher;
    shipment->topic = topic;
    shipment->rows = *rows;
    *rows = (struct outbox_rows){0};
    shipment->parcels = xcalloc(shipment->rows.count, sizeof *shipment->parcels);
    shipment->ends = xcalloc(shipment->rows.count, sizeof *shipment->ends);
    for (size_t i = 0; i < shipment->rows.count; i++)
        shipment->ends[i] = (struct shipment_end){PUBLISH_NOT_TRIED, -1, -1};
    return shipment;
}

static void on_report(struct publish_op *op, enum publish_result result, int32_t partition,
                      int64_t offset)
{
    struct parcel *parcel = container_of(op, struct parcel, op);
    struct shipment *shipment = parcel->shipment;
    shipment->outstanding--;
    if (!shipment->ended)
        shipment->ends[parcel - shipment->parcels] =
            (struct shipment_end){result, partition, offset};
    else if (shipment->outstanding == 0)
        release(shipment);
}

static void send_one(struct shipment *shipment, size_t index)
{
    const struct outbox_row *row = &shipment->rows.rows[index];
    shipment->ends[index].result = PUBLISH_NOT_TRIED;
    struct publish_record record = {
        .key = row->key, .value = row->body, .wall_us = row->record_wall_us};
    char *names = NULL;
    if (!record_unpack(row->headers, &record, &names)) {
        shipment->ends[index].result = PUBLISH_REFUSED;
        return;
    }
    struct parcel *parcel = &shipment->parcels[index];
    *parcel = (struct parcel){.op.on_report = on_report, .shipment = shipment};
    if (clock_mono_us() > shipment->latest_us) { /* the process was stopped, or is very slow */
        free(names);
        return;
    }
    shipment->ends[index].result = PUBLISH_UNDECIDED; /* until it is reported */
    shipment->outstanding++;
    publisher_send(shipment->publisher, shipment->topic, &record, &parcel->op);
    free(names);
}

static void await(struct shipment *shipment, int64_t wait_us)
{
    for (int64_t until = clock_mono_us() + wait_us;
         shipment->outstanding > 0 && clock_mono_us() < until;)
        loop_turn(shipment->loop, TURN_MS);
    if (shipment->outstanding == 0)
        return;
    shipment->late = true;
    publisher_purge(shipment->publisher);
    for (int64_t until = clock_mono_us() + PURGE_GRACE_US;
         shipment->outstanding > 0 && clock_mono_us() < until;)
        loop_turn(shipment->loop, TURN_MS);
}

void shipment_send(struct shipment *shipment, int64_t latest_us, int64_t wait_us)
{
    shipment->latest_us = latest_us;
    for (size_t i = 0; i < shipment->rows.count; i++)
        send_one(shipment, i);
    await(shipment, wait_us);
    for (size_t i = 0; i < shipment->rows.count && shipment->rows.count > 1; i++) {
        if (shipment->ends[i].result != PUBLISH_TOO_LARGE)
            continue;
        if (shipment->late) { /* its own size is not known yet */
            shipment->ends[i].result = PUBLISH_NOT_TRIED;
            continue;
        }
        send_one(shipment, i);
        await(shipment, wait_us);
    }
}

const struct outbox_rows *shipment_rows(const struct shipment *shipment)
{
    return &shipment->rows;
}

const struct shipment_end *shipment_ends(const struct shipment *shipment)
{
    return shipment->ends;
}

bool shipment_is_late(const struct shipment *shipment)
{
    return shipment->late;
}

void shipment_free(struct shipment *shipment)
{
    shipment->ended = true;
    if (shipment->outstanding == 0)
        release(shipment);
}
