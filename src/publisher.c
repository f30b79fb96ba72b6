/* The publisher behind publisher.h, on librdkafka's event queue: it writes to an eventfd when the
 * queue gets its first event, and the loop drains it. A producer that was purged or failed for good
 * is replaced at once and kept aside until its last report has come; it is destroyed on a thread of
 * its own, because that may block. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "publisher.h"

#include "clock.h"
#include "config.h"
#include "log.h"
#include "metrics.h"
#include "publisher_parts.h"
#include "thread.h"
#include "topics.h"

#include <errno.h>
#include <librdkafka/rdkafka.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* The successor of a producer that failed for good may fail the same way at once: not more often
 * than this. */
#define RENEW_US 1000000
/* The same refusal is told again after so long. */
#define TELL_US 60000000
/* The password is read again so often while a producer is not let in. */
#define PASSWORD_US 1000000

/* Kafka protocol: the key of requests that carry records. */
#define API_PRODUCE 0

/* A producer of librdkafka, with what makes it visible to the loop. */
struct producer {
    struct publisher *publisher;
    rd_kafka_t *handle;
    rd_kafka_queue_t *queue;
    struct loop_watch watch; /* eventfd */
    size_t outstanding;      /* records without a report */
    atomic_ulong requests;   /* of records, that have left; librdkafka's threads count */
    bool warm;               /* the broker gave it its producer id: it can send */
    bool failed;             /* for good */
    int64_t password_us;     /* when it was not let in and took the password anew; 0 = never */
    struct list node;        /* in publisher->retired */
};

/* A record that could not even be queued gets its report at the end of the turn. */
struct refusal {
    struct loop_task task;
    struct publish_op *op;
    enum publish_result result;
};

struct publisher {
    struct loop *loop;
    const struct config *config;
    struct metrics *metrics;
    struct producer *producer;
    struct list topics;
    struct list retired;
    struct loop_timer renew;
    int64_t renewed_us; /* when it was tried last */
    struct told told;   /* of the login and the producer id */
};

/* How many requests of records have left since it was queued. */
static unsigned long requests_since(struct producer *producer, const rd_kafka_message_t *message)
{
    const struct publish_op *op = message->_private;
    return atomic_load(&producer->requests) - op->requests;
}

/* librdkafka's own word is not enough: a broker that is being stopped calls itself no longer the
 * leader for what it has appended just before, which librdkafka takes for not persisted. So a
 * record is unsent only if no request at all has left since it was queued. */
static bool is_unsent(struct producer *producer, const rd_kafka_message_t *message)
{
    return rd_kafka_message_status(message) == RD_KAFKA_MSG_STATUS_NOT_PERSISTED &&
           requests_since(producer, message) == 0;
}

static bool says_no_topic(rd_kafka_resp_err_t err)
{
    switch (err) {
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
    case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
    case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
    case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
        return true;
    default:
        return false;
    }
}

static enum publish_result result_of(struct producer *producer, const rd_kafka_message_t *message)
{
    switch (message->err) {
    case RD_KAFKA_RESP_ERR_NO_ERROR:
        return PUBLISHED;
    case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
    case RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE:
        return PUBLISH_TOO_LARGE;
    case RD_KAFKA_RESP_ERR_INVALID_MSG:
    case RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE:
    case RD_KAFKA_RESP_ERR_INVALID_RECORD:
    case RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP:
        return PUBLISH_REFUSED;
    default:
        break;
    }
    /* The answer to its only request: nothing was appended. To its second one, the first may have
     * been. */
    if (says_no_topic(message->err) && requests_since(producer, message) <= 1)
        return PUBLISH_NO_TOPIC;
    return is_unsent(producer, message) ? PUBLISH_UNSENT : PUBLISH_UNDECIDED;
}

static void renew_soon(struct publisher *publisher)
{
    loop_timer_set(publisher->loop, &publisher->renew, publisher->renewed_us + RENEW_US);
}

/* Counts each, and tells the same now and then. */
static void tell_refusal(struct publisher *publisher, struct told *told,
                         enum topics_refusal refusal, const char *what)
{
    metrics_add(publisher->metrics,
                refusal == REFUSAL_LOGIN ? METRIC_REFUSED_LOGINS : METRIC_REFUSED_RIGHTS, 1);
    int64_t now = clock_mono_us();
    if (told->us != 0 && told->refusal == refusal && now - told->us < TELL_US)
        return;
    *told = (struct told){refusal, now};
    char text[1024];
    topics_refusal_tell(publisher->config, refusal, what, text, sizeof text);
    log_event(LOG_ERROR, "broker_refuses", "%s", text);
}

/* librdkafka remembers for minutes that a topic was unknown or forbidden: a new producer asks
 * again.
 */
static void lose_topic(struct topic *topic, rd_kafka_resp_err_t err)
{
    char what[320];
    snprintf(what, sizeof what, "topic %s: %s", topic->name, rd_kafka_err2str(err));
    if (topics_refusal_of(err) != REFUSAL_NONE)
        tell_refusal(topic->publisher, &topic->told, topics_refusal_of(err), what);
    topic_open(topic, rd_kafka_err2str(err));
    renew_soon(topic->publisher);
}

static void report(struct producer *producer, const rd_kafka_message_t *message)
{
    struct publish_op *op = message->_private;
    producer->outstanding--;
    enum publish_result result = result_of(producer, message);
    if (result == PUBLISHED) {
        op->topic->told.us = producer->publisher->told.us = 0;
        topic_acknowledged(op->topic, message->partition);
    } else if (says_no_topic(message->err)) {
        lose_topic(op->topic, message->err);
    }
    op->on_report(op, result, message->partition, message->offset);
}

static void take_password(struct producer *producer)
{
    producer->password_us = clock_mono_us();
    topics_take_password(producer->publisher->config, producer->handle);
}

/* librdkafka tells some fatal errors by their own code alone (a producer id that is refused), so
 * the handle is asked. Its version before 2.3 ends up here after some disconnects too (its issue
 * 4438). In each case a new producer is the way out. */
static void on_error_event(struct producer *producer, rd_kafka_event_t *event)
{
    if (producer->failed)
        return;
    struct publisher *publisher = producer->publisher;
    char text[512];
    rd_kafka_resp_err_t err = rd_kafka_fatal_error(producer->handle, text, sizeof text);
    producer->failed = err != RD_KAFKA_RESP_ERR_NO_ERROR;
    if (!producer->failed) {
        err = rd_kafka_event_error(event);
        snprintf(text, sizeof text, "%s", rd_kafka_event_error_string(event));
    }
    enum topics_refusal refusal = topics_refusal_of(err);
    if (refusal != REFUSAL_NONE)
        tell_refusal(publisher, &publisher->told, refusal, text);
    else
        log_event(producer->failed ? LOG_ERROR : LOG_WARNING,
                  producer->failed ? "broker_fatal" : "broker_error", "%s", text);
    if (refusal == REFUSAL_LOGIN)
        take_password(producer);
    if (producer->failed)
        producer->warm = false;
    if (producer->failed && producer == publisher->producer)
        renew_soon(publisher);
}

/* The handle's threads count in the producer until they have ended. */
static void *destroy(void *argument)
{
    struct producer *producer = argument;
    rd_kafka_destroy(producer->handle);
    free(producer);
    return NULL;
}

/* Destroying a handle may block for as long as its threads take to end: on a loop that must not be
 * waited for. */
static void producer_free(struct producer *producer, bool wait)
{
    int fd = producer->watch.fd;
    rd_kafka_queue_io_event_enable(producer->queue, -1, NULL, 0);
    loop_unwatch(producer->publisher->loop, &producer->watch);
    close(fd);
    rd_kafka_queue_destroy(producer->queue);
    pthread_t thread;
    if (!wait && thread_start(&thread, destroy, producer) == 0)
        pthread_detach(thread);
    else
        destroy(producer);
}

/* librdkafka tells of its producer id in its statistics only, and of the same refusal only every
 * half a minute. */
static void on_statistics(struct producer *producer, rd_kafka_event_t *event)
{
    if (producer->warm || producer->failed)
        return;
    producer->warm = strstr(rd_kafka_event_stats(event), "\"idemp_state\": \"Assigned\"") != NULL;
    if (producer->warm && producer == producer->publisher->producer)
        list_each(node, &producer->publisher->topics)
            topic_take_heard(container_of(node, struct topic, node));
    else if (!producer->warm && producer->password_us != 0 &&
             clock_mono_us() - producer->password_us > PASSWORD_US)
        take_password(producer);
}

static void drain(struct producer *producer)
{
    /* Until it is empty: the eventfd is written only when the queue was empty before. */
    for (rd_kafka_event_t *event; (event = rd_kafka_queue_poll(producer->queue, 0));) {
        if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_DR) {
            for (const rd_kafka_message_t *message; (message = rd_kafka_event_message_next(event));)
                report(producer, message);
        } else if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_ERROR) {
            on_error_event(producer, event);
        } else if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_STATS) {
            on_statistics(producer, event);
        }
        rd_kafka_event_destroy(event);
    }
    if (producer != producer->publisher->producer && producer->outstanding == 0) {
        list_remove(&producer->node);
        producer_free(producer, false);
    }
}

static void on_queue_ready(struct loop_watch *watch, unsigned events)
{
    (void)events;
    struct producer *producer = container_of(watch, struct producer, watch);
    uint64_t count;
    if (read(watch->fd, &count, sizeof count) < 0 && errno != EAGAIN)
        abort();
    drain(producer);
}

static rd_kafka_resp_err_t on_request_sent(rd_kafka_t *handle, int fd, const char *broker,
                                           int32_t broker_id, int16_t api_key, int16_t version,
                                           int32_t correlation, size_t size, void *context)
{
    (void)handle, (void)fd, (void)broker, (void)broker_id, (void)version, (void)correlation;
    (void)size;
    struct producer *producer = context;
    if (api_key == API_PRODUCE)
        atomic_fetch_add(&producer->requests, 1);
    return RD_KAFKA_RESP_ERR_NO_ERROR;
}

static rd_kafka_resp_err_t on_new(rd_kafka_t *handle, const rd_kafka_conf_t *conf, void *context,
                                  char *text, size_t size)
{
    (void)conf, (void)text, (void)size;
    return rd_kafka_interceptor_add_on_request_sent(handle, "hookgate", on_request_sent, context);
}

/* The handle of a producer, whose threads count its requests. NULL with *ret_reason. */
static rd_kafka_t *handle_new(struct producer *producer, char **ret_reason)
{
    rd_kafka_conf_t *conf = topics_producer_conf(producer->publisher->config, ret_reason);
    if (conf == NULL)
        return NULL;
    rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_STATS);
    rd_kafka_conf_interceptor_add_on_new(conf, "hookgate", on_new, producer);
    return topics_handle_new(RD_KAFKA_PRODUCER, conf, ret_reason);
}

static struct producer *producer_new(struct publisher *publisher, char **ret_reason)
{
    struct producer *producer = xcalloc(1, sizeof *producer);
    producer->publisher = publisher;
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (fd < 0)
        *ret_reason = xstrdup(strerror(errno));
    else
        producer->handle = handle_new(producer, ret_reason);
    if (producer->handle == NULL) {
        if (fd >= 0)
            close(fd);
        free(producer);
        return NULL;
    }
    producer->queue = rd_kafka_queue_get_main(producer->handle);
    list_init(&producer->node);
    producer->watch.on_ready = on_queue_ready;
    loop_watch(publisher->loop, &producer->watch, fd, LOOP_READ);
    static const uint64_t one = 1;
    rd_kafka_queue_io_event_enable(producer->queue, fd, &one, sizeof one);
    /* It writes when the queue gets its first event, but the first may have come before this call
     * (a connection that was refused at once): without this nothing of this producer would ever be
     * read. */
    if (write(fd, &one, sizeof one) != sizeof one)
        abort();
    return producer;
}

/* Topics are connected at once, so that no first event waits for metadata. */
static void topic_connect(struct topic *topic)
{
    topic->handle = rd_kafka_topic_new(topic->publisher->producer->handle, topic->name, NULL);
    assert(topic->handle != NULL);
}

/* The present producer goes aside with what it still owes; a new one takes its place. */
static void renew(struct publisher *publisher)
{
    loop_timer_clear(publisher->loop, &publisher->renew);
    publisher->renewed_us = clock_mono_us();
    char *reason = NULL;
    struct producer *fresh = producer_new(publisher, &reason);
    if (fresh == NULL) { /* out of threads or descriptors: the old one goes on, and the next
                            deadline tries again */
        log_event(LOG_ERROR, "broker_producer_failed", "%s", reason);
        free(reason);
        return;
    }
    struct producer *old = publisher->producer;
    list_each(node, &publisher->topics)
    {
        struct topic *topic = container_of(node, struct topic, node);
        rd_kafka_topic_destroy(topic->handle);
    }
    rd_kafka_purge(old->handle, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT |
                                    RD_KAFKA_PURGE_F_NON_BLOCKING);
    list_append(&publisher->retired, &old->node);
    publisher->producer = fresh;
    list_each(node, &publisher->topics) topic_connect(container_of(node, struct topic, node));
    metrics_add(publisher->metrics, METRIC_BROKER_RENEWED, 1);
    if (old->outstanding == 0) {
        list_remove(&old->node);
        producer_free(old, false);
    }
}

static void on_renew(struct loop_timer *timer)
{
    renew(container_of(timer, struct publisher, renew));
}

struct publisher *publisher_new(struct loop *loop, const struct config *config,
                                struct metrics *metrics, char **ret_reason)
{
    struct publisher *publisher = xcalloc(1, sizeof *publisher);
    publisher->loop = loop;
    publisher->config = config;
    publisher->metrics = metrics;
    publisher->renew.on_due = on_renew;
    list_init(&publisher->topics);
    list_init(&publisher->retired);
    publisher->producer = producer_new(publisher, ret_reason);
    if (publisher->producer == NULL) {
        free(publisher);
        return NULL;
    }
    return publisher;
}

void publisher_free(struct publisher *publisher)
{
    if (publisher == NULL)
        return;
    loop_timer_clear(publisher->loop, &publisher->renew);
    for (struct list *node; (node = list_pop(&publisher->topics));) {
        struct topic *topic = container_of(node, struct topic, node);
        rd_kafka_topic_destroy(topic->handle);
        topic_free(topic);
    }
    for (struct list *node; (node = list_pop(&publisher->retired));)
        producer_free(container_of(node, struct producer, node), true);
    producer_free(publisher->producer, true);
    free(publisher);
}

struct topic *publisher_topic(struct publisher *publisher, const char *name)
{
    list_each(node, &publisher->topics)
    {
        struct topic *topic = container_of(node, struct topic, node);
        if (strcmp(topic->name, name) == 0)
            return topic;
    }
    struct topic *topic = topic_new(publisher, publisher->metrics, name);
    list_append(&publisher->topics, &topic->node);
    topic_connect(topic);
    return topic;
}

bool publisher_is_up(const struct publisher *publisher)
{
    return publisher->producer->warm;
}

static void on_refusal(struct loop_task *task)
{
    struct refusal *refusal = container_of(task, struct refusal, task);
    refusal->op->on_report(refusal->op, refusal->result, -1, -1);
    free(refusal);
}

static void refuse_later(struct publisher *publisher, struct publish_op *op,
                         enum publish_result result)
{
    struct refusal *refusal = xcalloc(1, sizeof *refusal);
    refusal->task.run = on_refusal;
    refusal->op = op;
    refusal->result = result;
    loop_defer(publisher->loop, &refusal->task);
}

static enum publish_result refusal_of(rd_kafka_resp_err_t err)
{
    switch (err) {
    case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
        return PUBLISH_TOO_LARGE;
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
    case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
    case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
    case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
        return PUBLISH_NO_TOPIC;
    default: /* the queue is full, or the producer failed for good */
        return PUBLISH_UNSENT;
    }
}

void publisher_send(struct publisher *publisher, struct topic *topic,
                    const struct publish_record *record, struct publish_op *op)
{
    op->topic = topic;
    op->requests = atomic_load(&publisher->producer->requests);
    rd_kafka_headers_t *headers = rd_kafka_headers_new(record->header_count);
    for (size_t i = 0; i < record->header_count; i++) {
        const struct publish_header *h = &record->headers[i];
        rd_kafka_header_add(headers, h->name, -1, h->value.ptr, (ssize_t)h->value.len);
    }
    /* producev takes a mutable pointer but, without F_FREE, only reads; the cast is the C API's. */
    void *value = (void *)(uintptr_t)record->value.ptr, *key = (void *)(uintptr_t)record->key.ptr;
    rd_kafka_resp_err_t err = rd_kafka_producev(
        publisher->producer->handle, RD_KAFKA_V_RKT(topic->handle),
        RD_KAFKA_V_KEY(key, record->key.len), RD_KAFKA_V_VALUE(value, record->value.len),
        RD_KAFKA_V_MSGFLAGS(0), RD_KAFKA_V_TIMESTAMP(record->wall_us / 1000),
        RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_OPAQUE(op), RD_KAFKA_V_END);
    if (err == RD_KAFKA_RESP_ERR_NO_ERROR) {
        publisher->producer->outstanding++;
        return;
    }
    rd_kafka_headers_destroy(headers); /* on an error they stay ours */
    if (err == RD_KAFKA_RESP_ERR__FATAL)
        renew_soon(publisher);
    if (refusal_of(err) == PUBLISH_NO_TOPIC)
        lose_topic(topic, err);
    refuse_later(publisher, op, refusal_of(err));
}

void publisher_purge(struct publisher *publisher)
{
    renew(publisher);
}
