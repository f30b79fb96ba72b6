/* The reader behind reader.h, on librdkafka's simple consumer: a partition is started at an offset
 * and stopped again, so there is no group, no commit and no coordinator to wait for. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "reader.h"

#include "clock.h"
#include "topics.h"
#include "topics_refusal.h"

#include <librdkafka/rdkafka.h>
#include <stdio.h>

/* librdkafka counts in milliseconds and takes -1 for "for ever". */
#define WAIT_MAX_MS 1000

struct reader {
    const struct config *config;
    rd_kafka_t *handle;
    char reason[256];
};

/* One read under way. */
struct reading {
    rd_kafka_topic_t *topic;
    int32_t partition;
    int64_t end, deadline_us;
    reader_visit_f *visit;
    void *context;
};

static enum reader_result result_of(rd_kafka_resp_err_t err)
{
    switch (err) {
    case RD_KAFKA_RESP_ERR_NO_ERROR:
        return READER_OK;
    case RD_KAFKA_RESP_ERR__TIMED_OUT:
    case RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE:
    case RD_KAFKA_RESP_ERR__TRANSPORT:
    case RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN:
    case RD_KAFKA_RESP_ERR__WAIT_CACHE:
    case RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE:
    case RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION:
        return READER_LATE;
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
    case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
        return READER_UNKNOWN;
    case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
    case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE:
        return READER_EXPIRED;
    default:
        return READER_FAILED;
    }
}

static enum reader_result tell(struct reader *reader, rd_kafka_resp_err_t err, const char *topic)
{
    if (err != RD_KAFKA_RESP_ERR_NO_ERROR)
        snprintf(reader->reason, sizeof reader->reason, "topic %s: %s", topic,
                 rd_kafka_err2str(err));
    if (result_of(err) == READER_LATE) /* perhaps it does not let us in */
        topics_take_password(reader->config, reader->handle);
    return result_of(err);
}

static int wait_ms(int64_t deadline_us)
{
    int64_t left = (deadline_us - clock_mono_us()) / 1000;
    return left <= 0 ? 0 : left > WAIT_MAX_MS ? WAIT_MAX_MS : (int)left;
}

/* Asks again until the deadline: a broker that comes back answers the next question. */
#define ASK_UNTIL(deadline_us, err, question)                                                      \
    do {                                                                                           \
        (err) = (question);                                                                        \
    } while (result_of(err) == READER_LATE && wait_ms(deadline_us) > 0)

struct reader *reader_new(const struct config *config, char **ret_reason)
{
    rd_kafka_conf_t *conf = topics_reader_conf(config, ret_reason);
    if (conf == NULL)
        return NULL;
    rd_kafka_t *handle = topics_handle_new(RD_KAFKA_CONSUMER, conf, ret_reason);
    if (handle == NULL)
        return NULL;
    struct reader *reader = xcalloc(1, sizeof *reader);
    reader->config = config;
    reader->handle = handle;
    return reader;
}

void reader_free(struct reader *reader)
{
    if (reader == NULL)
        return;
    rd_kafka_destroy(reader->handle);
    free(reader);
}

const char *reader_reason(const struct reader *reader)
{
    return reader->reason;
}

/* What the brokers say of one topic: *ret_metadata is librdkafka's, NULL unless READER_OK. */
static enum reader_result ask_topic(struct reader *reader, const char *topic, int64_t deadline_us,
                                    const struct rd_kafka_metadata **ret_metadata)
{
    *ret_metadata = NULL;
    rd_kafka_topic_t *handle = rd_kafka_topic_new(reader->handle, topic, NULL);
    if (handle == NULL)
        return tell(reader, rd_kafka_last_error(), topic);
    const struct rd_kafka_metadata *metadata = NULL;
    rd_kafka_resp_err_t err;
    ASK_UNTIL(deadline_us, err,
              rd_kafka_metadata(reader->handle, 0, handle, &metadata, wait_ms(deadline_us)));
    rd_kafka_topic_destroy(handle);
    if (err == RD_KAFKA_RESP_ERR_NO_ERROR && metadata->topic_cnt == 1)
        err = metadata->topics[0].err;
    if (err == RD_KAFKA_RESP_ERR_NO_ERROR)
        *ret_metadata = metadata;
    else if (metadata != NULL)
        rd_kafka_metadata_destroy(metadata);
    return tell(reader, err, topic);
}

enum reader_result reader_partitions(struct reader *reader, const char *topic, int64_t deadline_us,
                                     int32_t *ret_count)
{
    const struct rd_kafka_metadata *metadata;
    enum reader_result result = ask_topic(reader, topic, deadline_us, &metadata);
    if (metadata == NULL)
        return result;
    *ret_count = metadata->topic_cnt == 1 ? metadata->topics[0].partition_cnt : 0;
    rd_kafka_metadata_destroy(metadata);
    return READER_OK;
}

enum reader_result reader_replicas(struct reader *reader, const char *topic, int64_t deadline_us,
                                   int32_t *ret_count, struct reader_replicas **ret_replicas)
{
    const struct rd_kafka_metadata *metadata;
    *ret_count = 0;
    *ret_replicas = NULL;
    enum reader_result result = ask_topic(reader, topic, deadline_us, &metadata);
    if (metadata == NULL)
        return result;
    int32_t count = metadata->topic_cnt == 1 ? metadata->topics[0].partition_cnt : 0;
    struct reader_replicas *replicas = xcalloc((size_t)count, sizeof *replicas);
    for (int32_t i = 0; i < count; i++) {
        const struct rd_kafka_metadata_partition *partition = &metadata->topics[0].partitions[i];
        if (partition->id >= 0 && partition->id < count)
            replicas[partition->id] =
                (struct reader_replicas){partition->replica_cnt, partition->isr_cnt};
    }
    rd_kafka_metadata_destroy(metadata);
    *ret_count = count;
    *ret_replicas = replicas;
    return READER_OK;
}

enum reader_result reader_bounds(struct reader *reader, const char *topic, int32_t partition,
                                 int64_t deadline_us, int64_t *ret_low, int64_t *ret_end)
{
    rd_kafka_resp_err_t err;
    ASK_UNTIL(deadline_us, err,
              rd_kafka_query_watermark_offsets(reader->handle, topic, partition, ret_low, ret_end,
                                               wait_ms(deadline_us)));
    return tell(reader, err, topic);
}

enum reader_result reader_offset_at(struct reader *reader, const char *topic, int32_t partition,
                                    int64_t wall_us, int64_t deadline_us, int64_t *ret_offset)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_t *asked = rd_kafka_topic_partition_list_add(list, topic, partition);
    rd_kafka_resp_err_t err;
    do {
        asked->offset = wall_us / 1000;
        asked->err = RD_KAFKA_RESP_ERR_NO_ERROR;
        err = rd_kafka_offsets_for_times(reader->handle, list, wait_ms(deadline_us));
        if (err == RD_KAFKA_RESP_ERR_NO_ERROR)
            err = asked->err;
    } while (result_of(err) == READER_LATE && wait_ms(deadline_us) > 0);
    int64_t offset = asked->offset;
    rd_kafka_topic_partition_list_destroy(list);
    if (err == RD_KAFKA_RESP_ERR_NO_ERROR && offset < 0) { /* RD_KAFKA_OFFSET_END */
        int64_t low;
        return reader_bounds(reader, topic, partition, deadline_us, &low, ret_offset);
    }
    if (err == RD_KAFKA_RESP_ERR_NO_ERROR)
        *ret_offset = offset;
    return tell(reader, err, topic);
}

static rd_kafka_resp_err_t deletion_error(rd_kafka_event_t *event)
{
    if (event == NULL)
        return RD_KAFKA_RESP_ERR__TIMED_OUT;
    const rd_kafka_DeleteRecords_result_t *result = rd_kafka_event_DeleteRecords_result(event);
    if (rd_kafka_event_error(event) != RD_KAFKA_RESP_ERR_NO_ERROR || result == NULL)
        return rd_kafka_event_error(event);
    const rd_kafka_topic_partition_list_t *list = rd_kafka_DeleteRecords_result_offsets(result);
    return list->cnt == 1 ? list->elems[0].err : RD_KAFKA_RESP_ERR__FAIL;
}

enum reader_result reader_delete_before(struct reader *reader, const char *topic, int32_t partition,
                                        int64_t offset, int64_t deadline_us)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, topic, partition)->offset = offset;
    rd_kafka_DeleteRecords_t *request = rd_kafka_DeleteRecords_new(list);
    rd_kafka_AdminOptions_t *options =
        rd_kafka_AdminOptions_new(reader->handle, RD_KAFKA_ADMIN_OP_DELETERECORDS);
    rd_kafka_queue_t *queue = rd_kafka_queue_new(reader->handle);
    char text[256];
    int wait = wait_ms(deadline_us) + 1; /* 0 would be refused */
    rd_kafka_AdminOptions_set_request_timeout(options, wait, text, sizeof text);
    rd_kafka_DeleteRecords(reader->handle, &request, 1, options, queue);
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, wait + 100);
    rd_kafka_resp_err_t err = deletion_error(event);
    if (event != NULL)
        rd_kafka_event_destroy(event);
    rd_kafka_queue_destroy(queue);
    rd_kafka_AdminOptions_destroy(options);
    rd_kafka_DeleteRecords_destroy(request);
    rd_kafka_topic_partition_list_destroy(list);
    return tell(reader, err, topic);
}

bool reader_header(const struct reader_record *record, const char *name, struct slice *ret_value)
{
    const rd_kafka_headers_t *headers = (const rd_kafka_headers_t *)(const void *)record->headers;
    const void *value;
    size_t len;
    if (headers == NULL ||
        rd_kafka_header_get_last(headers, name, &value, &len) != RD_KAFKA_RESP_ERR_NO_ERROR)
        return false;
    *ret_value = (struct slice){value, len};
    return true;
}

bool reader_header_at(const struct reader_record *record, size_t index, const char **ret_name,
                      struct slice *ret_value)
{
    const rd_kafka_headers_t *headers = (const rd_kafka_headers_t *)(const void *)record->headers;
    const void *value;
    size_t len;
    if (headers == NULL || rd_kafka_header_get_all(headers, index, ret_name, &value, &len) !=
                               RD_KAFKA_RESP_ERR_NO_ERROR)
        return false;
    *ret_value = (struct slice){value, len};
    return true;
}

/* Returns false to stop; *ret_err tells why. */
static bool take_message(struct reading *reading, const rd_kafka_message_t *message,
                         rd_kafka_resp_err_t *ret_err)
{
    *ret_err = RD_KAFKA_RESP_ERR_NO_ERROR;
    /* Its offset is where librdkafka would fetch on, so behind gaps. One below `end` comes from a
     * new leader, which hears late how far its records are committed: they are there. */
    if (message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF)
        return message->offset < reading->end;
    if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        *ret_err = message->err;
        return result_of(message->err) == READER_LATE; /* librdkafka goes on by itself */
    }
    if (message->offset >= reading->end)
        return false;
    rd_kafka_headers_t *headers = NULL;
    if (rd_kafka_message_headers(message, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR)
        headers = NULL;
    rd_kafka_timestamp_type_t type;
    int64_t ms = rd_kafka_message_timestamp(message, &type);
    const struct reader_record record = {
        .partition = message->partition,
        .offset = message->offset,
        .wall_us = ms > 0 ? ms * 1000 : 0,
        .key = {message->key, message->key_len},
        .value = {message->payload, message->len},
        .headers = (const struct reader_headers *)(const void *)headers,
    };
    return reading->visit(&record, reading->context) && message->offset + 1 < reading->end;
}

static rd_kafka_resp_err_t read_on(struct reading *reading)
{
    rd_kafka_resp_err_t err = RD_KAFKA_RESP_ERR_NO_ERROR;
    for (bool more = true; more;) {
        int wait = wait_ms(reading->deadline_us);
        if (wait == 0)
            return err != RD_KAFKA_RESP_ERR_NO_ERROR ? err : RD_KAFKA_RESP_ERR__TIMED_OUT;
        rd_kafka_message_t *message = rd_kafka_consume(reading->topic, reading->partition, wait);
        if (message == NULL)
            continue;
        more = take_message(reading, message, &err);
        rd_kafka_message_destroy(message);
    }
    return err;
}

enum reader_result reader_read(struct reader *reader, const char *topic, int32_t partition,
                               int64_t from, int64_t end, int64_t deadline_us,
                               reader_visit_f *visit, void *context)
{
    if (from >= end)
        return READER_OK;
    struct reading reading = {.partition = partition,
                              .end = end,
                              .deadline_us = deadline_us,
                              .visit = visit,
                              .context = context};
    reading.topic = rd_kafka_topic_new(reader->handle, topic, NULL);
    if (reading.topic == NULL || rd_kafka_consume_start(reading.topic, partition, from) == -1) {
        rd_kafka_resp_err_t err = rd_kafka_last_error();
        if (reading.topic != NULL)
            rd_kafka_topic_destroy(reading.topic);
        return tell(reader, err, topic);
    }
    rd_kafka_resp_err_t err = read_on(&reading);
    rd_kafka_consume_stop(reading.topic, partition);
    rd_kafka_topic_destroy(reading.topic);
    return tell(reader, err, topic);
}
