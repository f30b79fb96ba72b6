/* The producer's settings and the topics' existence. Settings that hookgate's promises rest on are
 * fixed here and refused in the configuration. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "topics.h"

#include "config.h"
#include "log.h"
#include "secret_file.h"
#include "thread.h"
#include "topics_check.h"
#include "topics_ensure.h"
#include "topics_refusal.h"

#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <sys/socket.h>

static bool set(rd_kafka_conf_t *conf, const char *key, const char *value, char **ret_reason)
{
    char text[256];
    if (rd_kafka_conf_set(conf, key, value, text, sizeof text) == RD_KAFKA_CONF_OK)
        return true;
    *ret_reason = xstrdup(text);
    return false;
}

static bool set_int(rd_kafka_conf_t *conf, const char *key, int64_t value, char **ret_reason)
{
    char text[32];
    snprintf(text, sizeof text, "%" PRId64, value);
    return set(conf, key, text, ret_reason);
}

static bool set_password(rd_kafka_conf_t *conf, const struct config *config, char **ret_reason)
{
    if (config->kafka.password_file == NULL)
        return true;
    char *password = secret_file_password(config->kafka.password_file, ret_reason);
    if (password == NULL)
        return false;
    bool ok = set(conf, "sasl.password", password, ret_reason);
    OPENSSL_cleanse(password, strlen(password));
    free(password);
    return ok;
}

struct setting {
    const char *key, *value;
};

static bool set_all(rd_kafka_conf_t *conf, const struct setting *settings, char **ret_reason)
{
    for (; settings->key != NULL; settings++) {
        if (!set(conf, settings->key, settings->value, ret_reason))
            return false;
    }
    return true;
}

/* Chosen here, and open to the operator's own word under kafka.settings. */
static const struct setting client_defaults[] = {
    {"client.id", "hookgate"},
    {"socket.nagle.disable", "true"},
    {"socket.keepalive.enable", "true"},
    {"reconnect.backoff.ms", "50"},
    {"reconnect.backoff.max.ms", "1000"},
    {"topic.metadata.refresh.fast.interval.ms", "100"},
    {"log.connection.close", "false"},
    {NULL, NULL},
};
static const struct setting producer_defaults[] = {
    {"compression.codec", "lz4"},
    {"partitioner", "murmur2_random"}, /* as Java's producers do */
    {"queue.buffering.max.kbytes", "131072"},
    {"retry.backoff.ms", "50"},
    {"topic.metadata.propagation.max.ms", "500"},
    {"statistics.interval.ms", "200"}, /* the publisher learns from them that it can send */
    {NULL, NULL},
};
/* Small steps: what is read back is seldom more than a few records. */
static const struct setting reader_defaults[] = {
    {"fetch.wait.max.ms", "50"},
    {"fetch.error.backoff.ms", "50"},
    {"queued.max.messages.kbytes", "16384"},
    {NULL, NULL},
};

/* librdkafka's own lines, as ours. */
static void on_log(const rd_kafka_t *handle, int level, const char *facility, const char *text)
{
    (void)handle;
    /* What a connection failed for is an event too, and comes anew with each short-lived handle. */
    bool wanted = level <= 3 && strcmp(facility, "FAIL") != 0;
    log_event(wanted ? LOG_WARNING : LOG_DEBUG, "librdkafka", "%s: %s", facility, text);
}

/* What every client of ours has in common; `defaults` are those of its kind. NULL with *ret_reason.
 */
static rd_kafka_conf_t *client_conf(const struct config *config, const struct setting *defaults,
                                    char **ret_reason)
{
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set_log_cb(conf, on_log);
    bool ok = set_all(conf, client_defaults, ret_reason) && set_all(conf, defaults, ret_reason);
    for (size_t i = 0; ok && i < config->kafka.setting_count; i++)
        ok = set(conf, config->kafka.settings[i].key, config->kafka.settings[i].value, ret_reason);
    ok = ok && set(conf, "bootstrap.servers", config->kafka.brokers, ret_reason) &&
         set(conf, "allow.auto.create.topics", "false", ret_reason) &&
         set_password(conf, config, ret_reason);
    if (!ok) {
        rd_kafka_conf_destroy(conf);
        return NULL;
    }
    return conf;
}

/* What a purge gave up may lie in the kernel, unacknowledged, and be repeated there for minutes
 * after its socket was closed, or this process killed: Kafka would get it after it was looked for
 * in vain. RFC 5482's option ends that before anybody looks (park.decide_after, 5 s and more). */
#define LAST_REPEAT_MS 5000

static int open_socket(int domain, int type, int protocol, void *context)
{
    (void)context;
    static const unsigned patience_ms = LAST_REPEAT_MS;
    int fd = socket(domain, type | SOCK_CLOEXEC, protocol);
    if (fd >= 0)
        (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &patience_ms, sizeof patience_ms);
    return fd;
}

rd_kafka_conf_t *topics_producer_conf(const struct config *config, char **ret_reason)
{
    rd_kafka_conf_t *conf = client_conf(config, producer_defaults, ret_reason);
    if (conf == NULL)
        return NULL;
    rd_kafka_conf_set_socket_cb(conf, open_socket);
    char linger[32];
    snprintf(linger, sizeof linger, "%.3f", (double)config->kafka.linger_us / 1000.0);
    /* The promises: all replicas, in order, once. Our deadlines decide, unless the process was
     * stopped meanwhile: what its queue held must not be sent when it wakes, because copies, or
     * other drainers, may have come before it. A broker reads a connection's next request when it
     * has answered the last one: it must not wait for replicas longer than that, or it appends what
     * lies in its socket long after it was given up. */
    bool ok = set(conf, "enable.idempotence", "true", ret_reason) &&
              set(conf, "acks", "all", ret_reason) && set(conf, "linger.ms", linger, ret_reason) &&
              set(conf, "message.timeout.ms", "5000", ret_reason) &&
              set(conf, "request.timeout.ms", "5000", ret_reason) &&
              set_int(conf, "message.max.bytes", config->listen.body + TOPICS_RECORD_OVERHEAD,
                      ret_reason);
    if (!ok) {
        rd_kafka_conf_destroy(conf);
        return NULL;
    }
    return conf;
}

rd_kafka_conf_t *topics_reader_conf(const struct config *config, char **ret_reason)
{
    rd_kafka_conf_t *conf = client_conf(config, reader_defaults, ret_reason);
    if (conf == NULL)
        return NULL;
    /* An open transaction hides nothing, and only the leader is read: others are behind. */
    bool ok = set(conf, "isolation.level", "read_uncommitted", ret_reason) &&
              set(conf, "client.rack", "", ret_reason) &&
              set(conf, "enable.auto.commit", "false", ret_reason) &&
              set(conf, "auto.offset.reset", "error", ret_reason) &&
              set(conf, "enable.partition.eof", "true", ret_reason) &&
              set(conf, "check.crcs", "true", ret_reason);
    if (!ok) {
        rd_kafka_conf_destroy(conf);
        return NULL;
    }
    return conf;
}

rd_kafka_t *topics_handle_new(rd_kafka_type_t type, rd_kafka_conf_t *conf, char **ret_reason)
{
    char text[256];
    sigset_t before;
    thread_block_signals(&before);
    rd_kafka_t *handle = rd_kafka_new(type, conf, text, sizeof text);
    thread_restore_signals(&before);
    if (handle == NULL) {
        rd_kafka_conf_destroy(conf);
        *ret_reason = xstrdup(text);
    }
    return handle;
}

static void check_alone(const struct config_setting *setting, struct problems *problems)
{
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    char *reason = NULL;
    if (!set(conf, setting->key, setting->value, &reason))
        yaml_problem(setting->node, problems, "%s", reason);
    free(reason);
    rd_kafka_conf_destroy(conf);
}

/* Much is only said when a client is made. One that knows no broker connects to none. */
static void check_together(const struct config *config, struct problems *problems)
{
    char *reason = NULL;
    rd_kafka_t *handle = NULL;
    rd_kafka_conf_t *conf = topics_producer_conf(config, &reason);
    if (conf != NULL) {
        rd_kafka_conf_set_log_cb(conf, NULL);
        if (set(conf, "bootstrap.servers", "", &reason))
            handle = topics_handle_new(RD_KAFKA_PRODUCER, conf, &reason);
        else
            rd_kafka_conf_destroy(conf);
    }
    if (handle != NULL)
        rd_kafka_destroy(handle);
    else
        yaml_problem(config_place(config, "kafka", "settings"), problems, "%s", reason);
    free(reason);
}

void topics_check_settings(const struct config *config, struct problems *problems)
{
    for (size_t i = 0; i < config->kafka.setting_count; i++)
        check_alone(&config->kafka.settings[i], problems);
    if (!problems_any(problems))
        check_together(config, problems);
}

static const rd_kafka_metadata_topic_t *find_topic(const rd_kafka_metadata_t *metadata,
                                                   const char *name)
{
    for (int i = 0; i < metadata->topic_cnt; i++) {
        const rd_kafka_metadata_topic_t *topic = &metadata->topics[i];
        if (strcmp(topic->topic, name) == 0 && topic->err == RD_KAFKA_RESP_ERR_NO_ERROR &&
            topic->partition_cnt > 0)
            return topic;
    }
    return NULL;
}

/* With the settings that it needs; NULL when librdkafka refuses it and a problem was added. */
static rd_kafka_NewTopic_t *new_topic(const struct config *config, const char *name,
                                      struct problems *problems)
{
    char text[256];
    rd_kafka_NewTopic_t *topic = rd_kafka_NewTopic_new(
        name, (int)config->kafka.partitions, (int)config->kafka.replication, text, sizeof text);
    if (topic == NULL) {
        problem_add(problems, NULL, 0, 0, "Kafka topic %s can't be made: %s", name, text);
        return NULL;
    }
    char size[32];
    snprintf(size, sizeof size, "%" PRId64, config->listen.body + TOPICS_RECORD_OVERHEAD);
    rd_kafka_NewTopic_set_config(topic, "max.message.bytes", size);
    if (config_is_held(config, name)) {
        rd_kafka_NewTopic_set_config(topic, "retention.ms", "-1");
        rd_kafka_NewTopic_set_config(topic, "retention.bytes", "-1");
        rd_kafka_NewTopic_set_config(topic, "cleanup.policy", "delete");
    }
    if (config->kafka.replication >= 2) {
        rd_kafka_NewTopic_set_config(topic, "min.insync.replicas", "2");
        rd_kafka_NewTopic_set_config(topic, "unclean.leader.election.enable", "false");
    }
    return topic;
}

static bool create_topic(rd_kafka_t *handle, const struct config *config, const char *name,
                         int timeout_ms, struct problems *problems)
{
    rd_kafka_NewTopic_t *topic = new_topic(config, name, problems);
    if (topic == NULL)
        return false;
    char text[256];
    rd_kafka_AdminOptions_t *options =
        rd_kafka_AdminOptions_new(handle, RD_KAFKA_ADMIN_OP_CREATETOPICS);
    rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, text, sizeof text);
    rd_kafka_queue_t *queue = rd_kafka_queue_new(handle);
    rd_kafka_CreateTopics(handle, &topic, 1, options, queue);

    bool ok = false;
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, timeout_ms + 1000);
    const char *why = "no answer in time";
    size_t count = 0;
    const rd_kafka_CreateTopics_result_t *result =
        event ? rd_kafka_event_CreateTopics_result(event) : NULL;
    if (event && rd_kafka_event_error(event) != RD_KAFKA_RESP_ERR_NO_ERROR) {
        why = rd_kafka_event_error_string(event);
    } else if (result) {
        const rd_kafka_topic_result_t **topics =
            rd_kafka_CreateTopics_result_topics(result, &count);
        rd_kafka_resp_err_t err = rd_kafka_topic_result_error(topics[0]);
        ok = err == RD_KAFKA_RESP_ERR_NO_ERROR || err == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS;
        why = rd_kafka_topic_result_error_string(topics[0]);
    }
    if (ok)
        log_event(LOG_INFO, "topic_created", "%s with %" PRId64 " partitions", name,
                  config->kafka.partitions);
    else
        problem_add(problems, NULL, 0, 0, "Kafka topic %s can't be made: %s", name,
                    why ? why : "unknown reason");
    if (event)
        rd_kafka_event_destroy(event);
    rd_kafka_queue_destroy(queue);
    rd_kafka_AdminOptions_destroy(options);
    rd_kafka_NewTopic_destroy(topic);
    return ok;
}

static void complain_missing(const struct config *config, const char *name,
                             struct problems *problems)
{
    problem_add(
        problems, NULL, 0, 0,
        "Kafka topic %s does not exist; make it: kafka-topics.sh --bootstrap-server %s "
        "--create --topic %s --partitions %" PRId64 " --replication-factor %" PRId64
        " --config max.message.bytes=%" PRId64 " --config min.insync.replicas=2%s"
        " (or set kafka.create_topics: true). If it exists, grant our user Describe on it",
        name, config->kafka.brokers, name, config->kafka.partitions, config->kafka.replication,
        config->listen.body + TOPICS_RECORD_OVERHEAD,
        config_is_held(config, name)
            ? " --config retention.ms=-1 --config retention.bytes=-1 --config cleanup.policy=delete"
            : "");
}

static int least_replicas(const rd_kafka_metadata_topic_t *topic)
{
    int least = topic->partitions[0].replica_cnt;
    for (int i = 1; i < topic->partition_cnt; i++)
        least = topic->partitions[i].replica_cnt < least ? topic->partitions[i].replica_cnt : least;
    return least;
}

/* False when no broker answered. Replicas are -1 for a topic that does not exist yet. */
static bool find_all(rd_kafka_t *handle, const struct config *config, const char *const *names,
                     size_t count, int timeout_ms, int32_t *ret_partitions, int *ret_replicas,
                     struct problems *problems)
{
    const rd_kafka_metadata_t *metadata;
    if (rd_kafka_metadata(handle, /* all_topics= */ 1, NULL, &metadata, timeout_ms) !=
        RD_KAFKA_RESP_ERR_NO_ERROR)
        return false;
    for (size_t i = 0; i < count; i++) {
        const rd_kafka_metadata_topic_t *topic = find_topic(metadata, names[i]);
        ret_partitions[i] = topic ? topic->partition_cnt : 0;
        ret_replicas[i] = topic ? least_replicas(topic) : -1;
        if (topic)
            continue;
        if (!config->kafka.create_topics)
            complain_missing(config, names[i], problems);
        else if (create_topic(handle, config, names[i], timeout_ms, problems))
            ret_partitions[i] = (int32_t)config->kafka.partitions;
    }
    rd_kafka_metadata_destroy(metadata);
    return true;
}

/* One topic after another, so that each knows its own problems. */
static bool check_found(rd_kafka_t *handle, const struct config *config, const char *const *names,
                        const int *replicas, size_t count, int timeout_ms, int32_t *ret_partitions,
                        struct problems *problems, struct problems *warnings)
{
    for (size_t i = 0; i < count; i++) {
        if (replicas[i] < 0)
            continue;
        size_t before = problems_total(problems);
        if (!topics_check(handle, config, names[i], replicas[i], timeout_ms, problems, warnings))
            return false;
        if (problems_total(problems) > before)
            ret_partitions[i] = 0;
    }
    return true;
}

/* A mock cluster (test.mock.num.brokers) has no settings to ask for, and is allowed only where weak
 * durability is. */
static bool is_mock(const struct config *config)
{
    for (size_t i = 0; i < config->kafka.setting_count; i++) {
        if (strncmp(config->kafka.settings[i].key, "test.", 5) == 0)
            return true;
    }
    return false;
}

static enum topics_result ensure_all(rd_kafka_t *handle, const struct config *config,
                                     const char *const *names, size_t count, int timeout_ms,
                                     int32_t *ret_partitions, struct problems *problems,
                                     struct problems *warnings)
{
    int *replicas = xcalloc(count, sizeof *replicas);
    bool answered =
        find_all(handle, config, names, count, timeout_ms, ret_partitions, replicas, problems) &&
        (is_mock(config) || check_found(handle, config, names, replicas, count, timeout_ms,
                                        ret_partitions, problems, warnings));
    free(replicas);
    if (!answered)
        return TOPICS_UNREACHABLE;
    return problems_any(problems) ? TOPICS_WRONG : TOPICS_READY;
}

/* No broker answered: because none lets us in? */
static void complain_refused(const struct config *config, rd_kafka_t *handle,
                             struct problems *problems)
{
    rd_kafka_queue_t *queue = rd_kafka_queue_get_main(handle);
    bool refused = false;
    for (rd_kafka_event_t *event; !refused && (event = rd_kafka_queue_poll(queue, 0));) {
        refused = topics_refusal_of(rd_kafka_event_error(event)) == REFUSAL_LOGIN;
        char text[1024];
        topics_refusal_tell(config, REFUSAL_LOGIN, rd_kafka_event_error_string(event), text,
                            sizeof text);
        if (refused)
            problem_add(problems, NULL, 0, 0, "%s", text);
        rd_kafka_event_destroy(event);
    }
    rd_kafka_queue_destroy(queue);
}

enum topics_result topics_ensure(const struct config *config, const char *const *names,
                                 size_t count, int timeout_ms, int32_t *ret_partitions,
                                 struct problems *problems, struct problems *warnings)
{
    char *reason = NULL;
    rd_kafka_conf_t *conf = topics_producer_conf(config, &reason);
    if (conf)
        rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_ERROR);
    rd_kafka_t *handle = conf ? topics_handle_new(RD_KAFKA_PRODUCER, conf, &reason) : NULL;
    memset(ret_partitions, 0, count * sizeof *ret_partitions);
    if (handle == NULL) {
        problem_add(problems, config->path, 0, 0, "kafka: %s", reason);
        free(reason);
        return TOPICS_WRONG;
    }
    enum topics_result result =
        ensure_all(handle, config, names, count, timeout_ms, ret_partitions, problems, warnings);
    if (result == TOPICS_UNREACHABLE)
        complain_refused(config, handle, problems);
    rd_kafka_destroy(handle);
    return result;
}
