/* The questions and judgements behind topics_check.h. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "topics_check.h"

#include "config.h"

#include <inttypes.h>

/* How to set a topic's setting with Kafka's own tool. */
#define MEND                                                                                       \
    "kafka-configs.sh --bootstrap-server %s --alter --entity-type topics --entity-name %s "        \
    "--add-config %s=%s"

static void judge_durability(const struct config *config, const struct topics_facts *facts,
                             struct problems *to)
{
    const char *brokers = config->kafka.brokers, *name = facts->name;
    if (facts->replicas < 2)
        problem_add(to, NULL, 0, 0,
                    "Kafka topic %s has one replica: what it acknowledged is lost with its broker; "
                    "make it anew with --replication-factor 3, or kafka-reassign-partitions.sh "
                    "(or set kafka.allow_weak_durability: true)",
                    name);
    else if (facts->min_insync_replicas < 2)
        problem_add(to, NULL, 0, 0,
                    "Kafka topic %s: min.insync.replicas is %" PRId64
                    ": what it acknowledged may be lost with one broker; " MEND
                    " (or set kafka.allow_weak_durability: true)",
                    name, facts->min_insync_replicas, brokers, name, "min.insync.replicas", "2");
    if (facts->replicas >= 2 && facts->unclean_leader_election)
        problem_add(to, NULL, 0, 0,
                    "Kafka topic %s: unclean.leader.election.enable is true: what it acknowledged "
                    "may be lost in an election; " MEND
                    " (or set kafka.allow_weak_durability: true)",
                    name, brokers, name, "unclean.leader.election.enable", "false");
}

/* Events of a meeting share a key, so that they share a partition. */
static void judge_compaction(const struct config *config, const struct topics_facts *facts,
                             struct problems *to)
{
    if (strstr(facts->cleanup_policy, "compact") != NULL)
        problem_add(to, NULL, 0, 0,
                    "Kafka topic %s: cleanup.policy is %s: of the events with one key Kafka would "
                    "keep the last one alone; " MEND " (or set kafka.allow_weak_durability: true)",
                    facts->name, facts->cleanup_policy, config->kafka.brokers, facts->name,
                    "cleanup.policy", "delete");
}

/* What is held has no receipt yet: nothing but its taking over may end it. */
static void judge_keeping(const struct config *config, const struct topics_facts *facts,
                          struct problems *problems)
{
    char ms[32], bytes[32];
    snprintf(ms, sizeof ms, "%" PRId64, facts->retention_ms);
    snprintf(bytes, sizeof bytes, "%" PRId64, facts->retention_bytes);
    const struct {
        const char *setting, *value, *wanted;
    } rules[] = {
        {"retention.ms", ms, "-1"},
        {"retention.bytes", bytes, "-1"},
        {"cleanup.policy", facts->cleanup_policy, "delete"},
    };
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        if (strcmp(rules[i].value, rules[i].wanted) != 0)
            problem_add(problems, NULL, 0, 0,
                        "Kafka topic %s: %s is %s, but what is held there must stay until it is "
                        "taken over; " MEND,
                        facts->name, rules[i].setting, rules[i].value, config->kafka.brokers,
                        facts->name, rules[i].setting, rules[i].wanted);
    }
}

void topics_judge(const struct config *config, const struct topics_facts *facts,
                  struct problems *problems, struct problems *warnings)
{
    const char *brokers = config->kafka.brokers, *name = facts->name;
    struct problems *weak = config->kafka.allow_weak_durability ? warnings : problems;
    judge_durability(config, facts, weak);
    int64_t wanted = config->listen.body + TOPICS_RECORD_OVERHEAD;
    char text[32];
    snprintf(text, sizeof text, "%" PRId64, wanted);
    if (facts->max_message_bytes < wanted)
        problem_add(problems, NULL, 0, 0,
                    "Kafka topic %s: max.message.bytes is %" PRId64 ", but listen.body and 64KiB "
                    "for the headers need %s; " MEND " (or lower listen.body)",
                    name, facts->max_message_bytes, text, brokers, name, "max.message.bytes", text);
    if (config_is_held(config, name))
        judge_keeping(config, facts, problems);
    else
        judge_compaction(config, facts, weak);
    if (facts->log_append_time)
        problem_add(
            problems, NULL, 0, 0,
            "Kafka topic %s: message.timestamp.type is LogAppendTime, but records that were "
            "in flight when Kafka failed are looked for by their own time; " MEND,
            name, brokers, name, "message.timestamp.type", "CreateTime");
}

static const char *value_of(const rd_kafka_ConfigEntry_t *entry)
{
    const char *value = rd_kafka_ConfigEntry_value(entry);
    return value ? value : "";
}

static void read_entry(const rd_kafka_ConfigEntry_t *entry, struct topics_facts *facts)
{
    const char *name = rd_kafka_ConfigEntry_name(entry);
    if (strcmp(name, "min.insync.replicas") == 0)
        facts->min_insync_replicas = strtoll(value_of(entry), NULL, 10);
    else if (strcmp(name, "max.message.bytes") == 0)
        facts->max_message_bytes = strtoll(value_of(entry), NULL, 10);
    else if (strcmp(name, "retention.ms") == 0)
        facts->retention_ms = strtoll(value_of(entry), NULL, 10);
    else if (strcmp(name, "retention.bytes") == 0)
        facts->retention_bytes = strtoll(value_of(entry), NULL, 10);
    else if (strcmp(name, "cleanup.policy") == 0)
        facts->cleanup_policy = value_of(entry);
    else if (strcmp(name, "unclean.leader.election.enable") == 0)
        facts->unclean_leader_election = strcmp(value_of(entry), "true") == 0;
    else if (strcmp(name, "message.timestamp.type") == 0)
        facts->log_append_time = strcmp(value_of(entry), "LogAppendTime") == 0;
}

static void judge_resource(const struct config *config, const rd_kafka_ConfigResource_t *resource,
                           int replicas, struct problems *problems, struct problems *warnings)
{
    struct topics_facts facts = {
        .name = rd_kafka_ConfigResource_name(resource), .replicas = replicas, .cleanup_policy = ""};
    if (rd_kafka_ConfigResource_error(resource) != RD_KAFKA_RESP_ERR_NO_ERROR) {
        const char *why = rd_kafka_ConfigResource_error_string(resource);
        problem_add(
            config->kafka.allow_weak_durability ? warnings : problems, NULL, 0, 0,
            "Kafka topic %s: its settings can't be read: %s; grant DescribeConfigs on it (or "
            "set kafka.allow_weak_durability: true)",
            facts.name, why ? why : "no reason told");
        return;
    }
    size_t count;
    const rd_kafka_ConfigEntry_t **entries = rd_kafka_ConfigResource_configs(resource, &count);
    for (size_t i = 0; i < count; i++)
        read_entry(entries[i], &facts);
    topics_judge(config, &facts, problems, warnings);
}

static bool judge_answer(const struct config *config, rd_kafka_event_t *event, int replicas,
                         struct problems *problems, struct problems *warnings)
{
    const rd_kafka_DescribeConfigs_result_t *result =
        event ? rd_kafka_event_DescribeConfigs_result(event) : NULL;
    if (result == NULL || rd_kafka_event_error(event) != RD_KAFKA_RESP_ERR_NO_ERROR)
        return false;
    size_t count;
    const rd_kafka_ConfigResource_t **resources =
        rd_kafka_DescribeConfigs_result_resources(result, &count);
    if (count != 1)
        return false;
    judge_resource(config, resources[0], replicas, problems, warnings);
    return true;
}

bool topics_check(rd_kafka_t *handle, const struct config *config, const char *name, int replicas,
                  int timeout_ms, struct problems *problems, struct problems *warnings)
{
    rd_kafka_ConfigResource_t *asked = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, name);
    char text[256];
    rd_kafka_AdminOptions_t *options =
        rd_kafka_AdminOptions_new(handle, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS);
    rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, text, sizeof text);
    rd_kafka_queue_t *queue = rd_kafka_queue_new(handle);
    rd_kafka_DescribeConfigs(handle, &asked, 1, options, queue);
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, timeout_ms + 1000);
    bool good = judge_answer(config, event, replicas, problems, warnings);
    if (event)
        rd_kafka_event_destroy(event);
    rd_kafka_queue_destroy(queue);
    rd_kafka_AdminOptions_destroy(options);
    rd_kafka_ConfigResource_destroy(asked);
    return good;
}
