/* Which settings and topics may be used, and what is said of those that may not. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "topics_check.h"
#include "topics_ensure.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

static struct config config;
static struct problems problems, warnings;

static const struct topics_facts good = {.name = "t",
                                         .replicas = 3,
                                         .min_insync_replicas = 2,
                                         .max_message_bytes = (1 << 20) + 65536,
                                         .retention_ms = -1,
                                         .retention_bytes = -1,
                                         .cleanup_policy = "delete"};

static int setup(void **state)
{
    (void)state;
    config = (struct config){
        .listen.body = 1 << 20, .kafka.brokers = "b:9092", .hold = {.topic = "h", .markers = "m"}};
    problems = warnings = (struct problems){0};
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    problems_release(&problems);
    problems_release(&warnings);
    return 0;
}

static void judge(struct topics_facts facts)
{
    topics_judge(&config, &facts, &problems, &warnings);
}

/* One problem, that names the topic, the value and what mends it. */
static void refused(const char *value, const char *mend)
{
    assert_int_equal(warnings.count, 0);
    assert_int_equal(problems.count, 1);
    assert_non_null(strstr(problems.lines[0], "topic t"));
    assert_non_null(strstr(problems.lines[0], value));
    assert_non_null(strstr(problems.lines[0], mend));
}

static void a_durable_topic_is_fine(void **state)
{
    (void)state;
    judge(good);
    assert_int_equal(problems.count + warnings.count, 0);
}

/* A setting that lets records go is refused, of both topics in which events are held, with what
 * mends it; of other topics it is their own. */
static void only_held(struct topics_facts facts, const char *mend)
{
    static const char *const names[] = {"h", "m"};
    size_t before = problems.count;
    judge(facts);
    assert_int_equal(problems.count + warnings.count, before);
    for (size_t i = 0; i < 2; i++) {
        facts.name = names[i];
        judge(facts);
        assert_int_equal(problems.count, before + i + 1);
        assert_non_null(strstr(problems.lines[before + i], mend));
        assert_non_null(strstr(problems.lines[before + i], names[i]));
    }
}

static void what_is_held_must_stay(void **state)
{
    (void)state;
    struct topics_facts facts = good;
    facts.name = "h";
    judge(facts);
    assert_int_equal(problems.count + warnings.count, 0);
    facts = good;
    facts.retention_ms = 604800000;
    only_held(facts, "retention.ms=-1");
    facts = good;
    facts.retention_bytes = 1 << 30;
    only_held(facts, "--add-config retention.bytes=-1");
    facts = good;
    facts.name = "m";
    facts.cleanup_policy = "compact,delete";
    config.kafka.allow_weak_durability = true; /* nothing weak about it: they would be lost */
    judge(facts);
    assert_int_equal(warnings.count, 0);
    assert_non_null(strstr(problems.lines[problems.count - 1], "cleanup.policy is compact,delete"));
    assert_non_null(
        strstr(problems.lines[problems.count - 1], "--add-config cleanup.policy=delete"));
}

static void compaction_is_refused(void **state)
{
    (void)state;
    struct topics_facts facts = good;
    facts.cleanup_policy = "compact";
    judge(facts);
    refused("cleanup.policy is compact", "--add-config cleanup.policy=delete");
    facts.cleanup_policy = "compact,delete";
    config.kafka.allow_weak_durability = true;
    judge(facts);
    assert_int_equal(problems.count, 1);
    assert_int_equal(warnings.count, 1);
}

static void few_in_sync_replicas_are_refused(void **state)
{
    (void)state;
    struct topics_facts facts = good;
    facts.min_insync_replicas = 1;
    judge(facts);
    refused("min.insync.replicas is 1", "--bootstrap-server b:9092 --alter --entity-type topics "
                                        "--entity-name t --add-config min.insync.replicas=2");
}

static void one_replica_is_refused(void **state)
{
    (void)state;
    struct topics_facts facts = good;
    facts.replicas = 1;
    judge(facts);
    refused("one replica", "allow_weak_durability");
}

static void unclean_elections_are_refused(void **state)
{
    (void)state;
    struct topics_facts facts = good;
    facts.unclean_leader_election = true;
    judge(facts);
    refused("is true", "--add-config unclean.leader.election.enable=false");
}

static void small_records_are_refused_also_where_weakness_is_allowed(void **state)
{
    (void)state;
    struct topics_facts facts = good;
    facts.max_message_bytes--;
    config.kafka.allow_weak_durability = true;
    judge(facts);
    refused("max.message.bytes is 1114111", "--add-config max.message.bytes=1114112");
}

static void the_brokers_own_time_is_refused(void **state)
{
    (void)state;
    struct topics_facts facts = good;
    facts.log_append_time = true;
    judge(facts);
    refused("LogAppendTime", "--add-config message.timestamp.type=CreateTime");
}

static void weakness_that_is_allowed_is_a_warning(void **state)
{
    (void)state;
    struct topics_facts facts = good;
    facts.min_insync_replicas = 1;
    facts.unclean_leader_election = true;
    config.kafka.allow_weak_durability = true;
    judge(facts);
    assert_int_equal(problems.count, 0);
    assert_int_equal(warnings.count, 2);
}

/* No complaint when `complaint` is NULL, else exactly this one's beginning. */
static void settings_give(const char *settings, const char *complaint)
{
    char text[1024];
    snprintf(text, sizeof text,
             "listen: {plain: '127.0.0.1:8080'}\npublic_url: https://h\n"
             "postgres: {conninfo: host=db}\nplatforms: {directory: p}\n"
             "kafka: {brokers: 'k:9092', settings: {%s}}\n",
             settings);
    struct problems found = {0};
    struct config *read = config_read_bytes("c.yaml", text, strlen(text), &found);
    assert_non_null(read);
    topics_check_settings(read, &found);
    if (found.count != (complaint != NULL) ||
        (complaint != NULL && strncmp(found.lines[0], complaint, strlen(complaint)) != 0))
        fail_msg("%s: %zu problems, the first: %s", settings, found.count, found.lines[0]);
    problems_release(&found);
    config_free(read);
}

static void settings_are_asked_of_librdkafka(void **state)
{
    (void)state;
    settings_give("", NULL);
    settings_give("security.protocol: ssl, client.rack: a", NULL);
    settings_give("client.rack: a, foo.bar: 1", "c.yaml:5:55: kafka.settings.foo.bar: No such");
    settings_give("retry.backoff.ms: soon", "c.yaml:5:39: kafka.settings.retry.backoff.ms: ");
    settings_give("max.in.flight: 6", "c.yaml:5:38: kafka.settings: `max.in.flight` must be");
    settings_give("security.protocol: ssl, ssl.ca.location: /nothere",
                  "c.yaml:5:38: kafka.settings: ssl.ca.location failed");
}

/* A broker that waits for replicas does not read on meanwhile (topics.c). */
static void no_request_waits_longer_than_its_records(void **state)
{
    (void)state;
    char *reason = NULL;
    rd_kafka_conf_t *conf = topics_producer_conf(&config, &reason);
    assert_non_null(conf);
    char records[32], request[32];
    size_t size = sizeof records;
    assert_int_equal(rd_kafka_conf_get(conf, "message.timeout.ms", records, &size),
                     RD_KAFKA_CONF_OK);
    size = sizeof request;
    assert_int_equal(rd_kafka_conf_get(conf, "request.timeout.ms", request, &size),
                     RD_KAFKA_CONF_OK);
    assert_string_equal(request, records);
    rd_kafka_conf_destroy(conf);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_durable_topic_is_fine),
        TEST(what_is_held_must_stay),
        TEST(compaction_is_refused),
        TEST(few_in_sync_replicas_are_refused),
        TEST(one_replica_is_refused),
        TEST(unclean_elections_are_refused),
        TEST(small_records_are_refused_also_where_weakness_is_allowed),
        TEST(the_brokers_own_time_is_refused),
        TEST(weakness_that_is_allowed_is_a_warning),
        TEST(settings_are_asked_of_librdkafka),
        TEST(no_request_waits_longer_than_its_records),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
