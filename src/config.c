/* Configuration: the tables that bind conf/hookgate.yaml to struct config, with every default and
 * every range. Called by the commands at start. Here is what can be said of one value alone;
 * config_check.c holds what several say together, config_platforms.c what other files say.
 * A new key belongs in a table here, in conf/hookgate.yaml and in conf/hookgate.schema.json; it is
 * marked RELOADS when all that use it take it from the present setup.
 * Thread: any, before serving; const afterwards. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "log.h"
#include "rfc3339.h"
#include "secret.h"

#include <stdio.h>
#include <unistd.h>

#define US INT64_C(1)
#define MS (1000 * US)
#define SECOND (1000 * MS)
#define MINUTE (60 * SECOND)
#define HOUR (60 * MINUTE)
#define DAY (24 * HOUR)
#define KIB INT64_C(1024)
#define MIB (1024 * KIB)

/* Sections bind in place: their members' offsets count from the start of struct config. */
#define AT(member) offsetof(struct config, member)
#define SECTION(name, table)                                                                       \
    {                                                                                              \
        name, YAML_STRUCT, 0, .fields = (table)                                                    \
    }
#define RANGE(low, high) .min = (low), .max = (high)
/* Marks what a reload takes; for the rest a restart is needed (config_changes.c). */
#define RELOADS .reloads = true
#define ADDRESS(name, member)                                                                      \
    {                                                                                              \
        name, YAML_TEXT, AT(member.text), RANGE(1, 64), .node_offset_plus1 = 1 + AT(member.node)   \
    }

static const struct yaml_field listen_fields[] = {
    ADDRESS("https", listen.https),
    ADDRESS("plain", listen.plain),
    ADDRESS("admin", listen.admin),
    {"certificate", YAML_TEXT, AT(listen.certificate), RANGE(1, 4095), RELOADS},
    {"key", YAML_TEXT, AT(listen.key), RANGE(1, 4095), RELOADS},
    {"connections", YAML_INTEGER, AT(listen.connections), RANGE(1, 1000000)},
    {"memory", YAML_SIZE, AT(listen.memory), RANGE(32 * MIB, 1024 * 1024 * MIB)},
    {"body", YAML_SIZE, AT(listen.body), RANGE(1 * KIB, 32 * MIB)},
    {"headers", YAML_SIZE, AT(listen.headers), RANGE(4 * KIB, 400 * KIB), RELOADS},
    {"request", YAML_DURATION, AT(listen.request_us), RANGE(1 * SECOND, 1 * MINUTE)},
    {"backlog", YAML_INTEGER, AT(listen.backlog), RANGE(1, 65535)},
    {"trusted_proxies", YAML_TEXTS, AT(listen.trusted_proxies), RANGE(0, 64), RELOADS},
    {NULL},
};

static const struct yaml_field deadline_fields[] = {
    {"answer", YAML_DURATION, AT(deadlines.answer_us), RANGE(1 * SECOND, 2500 * MS)},
    {"gather", YAML_DURATION, AT(deadlines.gather_us), RANGE(10 * MS, 1 * SECOND)},
    {"claim", YAML_DURATION, AT(deadlines.claim_us), RANGE(50 * MS, 2 * SECOND)},
    {"publish", YAML_DURATION, AT(deadlines.publish_us), RANGE(100 * MS, 2 * SECOND)},
    {"commit", YAML_DURATION, AT(deadlines.commit_us), RANGE(50 * MS, 2 * SECOND)},
    {"drain_delay", YAML_DURATION, AT(deadlines.drain_delay_us), RANGE(0, 2 * MINUTE), RELOADS},
    {"stop", YAML_DURATION, AT(deadlines.stop_us), RANGE(3 * SECOND, 5 * MINUTE), RELOADS},
    {NULL},
};

static const struct yaml_field pipeline_fields[] = {
    {"batch", YAML_INTEGER, AT(pipeline.batch), RANGE(1, 4096)},
    {"batch_bytes", YAML_SIZE, AT(pipeline.batch_bytes), RANGE(64 * KIB, 64 * MIB)},
    {"queue", YAML_INTEGER, AT(pipeline.queue), RANGE(1, 65536)},
    {"queue_bytes", YAML_SIZE, AT(pipeline.queue_bytes), RANGE(1 * MIB, 4096 * MIB)},
    {"suspects", YAML_INTEGER, AT(pipeline.suspects), RANGE(1, 4096)},
    {NULL},
};

static const struct yaml_field park_fields[] = {
    {"bytes", YAML_SIZE, AT(park.bytes), RANGE(0, INT64_C(1) << 50)},
    {"age", YAML_DURATION, AT(park.age_us), RANGE(10 * SECOND, 30 * DAY)},
    {"rate", YAML_INTEGER, AT(park.rate), RANGE(1, 100000)},
    {"decide_after", YAML_DURATION, AT(park.decide_after_us), RANGE(5 * SECOND, 10 * MINUTE)},
    {NULL},
};

static const struct yaml_field postgres_fields[] = {
    {"conninfo", YAML_TEXT, AT(postgres.conninfo), .required = true, RANGE(1, 4096)},
    {"password_file", YAML_TEXT, AT(postgres.password_file), RANGE(1, 4095)},
    {"lanes", YAML_INTEGER, AT(postgres.lanes), RANGE(1, 4)},
    {"refresh", YAML_DURATION, AT(postgres.refresh_us), RANGE(100 * MS, 1 * HOUR), RELOADS},
    {"dedup_window", YAML_DURATION, AT(postgres.dedup_window_us), RANGE(90 * MINUTE, 365 * DAY),
     RELOADS},
    {"security_events", YAML_DURATION, AT(postgres.security_events_us), RANGE(1 * DAY, 3650 * DAY),
     RELOADS},
    {"key_file", YAML_TEXT, AT(postgres.key_file), RANGE(1, 4095), RELOADS},
    {NULL},
};

static const struct yaml_field kafka_fields[] = {
    {"brokers", YAML_TEXT, AT(kafka.brokers), .required = true, RANGE(1, 4096)},
    {"topic", YAML_TEXT, AT(kafka.topic), RANGE(1, 249), RELOADS},
    {"create_topics", YAML_FLAG, AT(kafka.create_topics), RELOADS},
    {"partitions", YAML_INTEGER, AT(kafka.partitions), RANGE(1, 1000), RELOADS},
    {"replication", YAML_INTEGER, AT(kafka.replication), RANGE(1, 15), RELOADS},
    {"allow_weak_durability", YAML_FLAG, AT(kafka.allow_weak_durability)},
    {"linger", YAML_DURATION, AT(kafka.linger_us), RANGE(0, 50 * MS)},
    {"settings", YAML_NODE, AT(kafka.settings_node)},
    {"password_file", YAML_TEXT, AT(kafka.password_file), RANGE(1, 4095)},
    {NULL},
};

static const struct yaml_field hold_fields[] = {
    {"topic", YAML_TEXT, AT(hold.topic), RANGE(1, 249)},
    {"markers", YAML_TEXT, AT(hold.markers), RANGE(1, 249)},
    {"age", YAML_DURATION, AT(hold.age_us), RANGE(0, 20 * HOUR)},
    {"bytes", YAML_SIZE, AT(hold.bytes), RANGE(0, 1024 * 1024 * MIB)},
    {"rate", YAML_INTEGER, AT(hold.rate), RANGE(10, 100000)},
    {NULL},
};

static const struct yaml_field platforms_fields[] = {
    {"directory", YAML_TEXT, AT(platforms.directory), .required = true, RANGE(1, 4095), RELOADS,
     .node_offset_plus1 = 1 + AT(platforms.directory_node)},
    {"enabled", YAML_NODE, AT(platforms.enabled_node), RELOADS},
    {NULL},
};

#define LIMIT RANGE(0, 1000000000), RELOADS

static const struct yaml_field standard_fields[] = {
    {"minute", YAML_INTEGER, AT(limits.standard.minute), LIMIT},
    {"hour", YAML_INTEGER, AT(limits.standard.hour), LIMIT},
    {NULL},
};

static const struct yaml_field free_fields[] = {
    {"minute", YAML_INTEGER, AT(limits.free.minute), LIMIT},
    {"hour", YAML_INTEGER, AT(limits.free.hour), LIMIT},
    {NULL},
};

static const struct yaml_field pro_fields[] = {
    {"minute", YAML_INTEGER, AT(limits.pro.minute), LIMIT},
    {"hour", YAML_INTEGER, AT(limits.pro.hour), LIMIT},
    {NULL},
};

static const struct yaml_field enterprise_fields[] = {
    {"minute", YAML_INTEGER, AT(limits.enterprise.minute), LIMIT},
    {"hour", YAML_INTEGER, AT(limits.enterprise.hour), LIMIT},
    {NULL},
};

static const struct yaml_field limits_fields[] = {
    SECTION("default", standard_fields),
    SECTION("free", free_fields),
    SECTION("pro", pro_fields),
    SECTION("enterprise", enterprise_fields),
    {"failed_signatures", YAML_INTEGER, AT(limits.failed_signatures), LIMIT},
    {NULL},
};

/* In the order of enum log_level. */
static const char *const log_levels[] = {"debug", "info", "warning", "error", NULL};

static const struct yaml_field log_fields[] = {
    {"level", YAML_WORD, AT(log_level), .words = log_levels, RELOADS},
    {NULL},
};

static const struct yaml_field process_fields[] = {
    {"allow_root", YAML_FLAG, AT(allow_root)},
    {NULL},
};

const struct yaml_field config_fields[] = {
    {"listen", YAML_STRUCT, 0, .required = true, .fields = listen_fields},
    {"public_url", YAML_TEXT, AT(public_url), .required = true, RANGE(1, 2048), RELOADS},
    {"threads", YAML_NODE, AT(threads_node)},
    SECTION("deadlines", deadline_fields),
    SECTION("pipeline", pipeline_fields),
    SECTION("park", park_fields),
    SECTION("hold", hold_fields),
    {"postgres", YAML_STRUCT, 0, .required = true, .fields = postgres_fields},
    {"kafka", YAML_STRUCT, 0, .required = true, .fields = kafka_fields},
    {"platforms", YAML_STRUCT, 0, .required = true, .fields = platforms_fields},
    SECTION("process", process_fields),
    SECTION("limits", limits_fields),
    SECTION("log", log_fields),
    {NULL},
};

static const char *const loopback[] = {"127.0.0.0/8", "::1"};

static const struct config defaults = {
    .listen = {.admin = {.text = "127.0.0.1:9090"},
               .connections = 10000,
               .memory = 1024 * MIB,
               .body = 1 * MIB,
               .headers = 32 * KIB,
               .request_us = 10 * SECOND,
               .backlog = 1024,
               .trusted_proxies = {loopback, 2}},
    .deadlines = {.answer_us = 2500 * MS,
                  .gather_us = 300 * MS,
                  .claim_us = 400 * MS,
                  .publish_us = 1 * SECOND,
                  .commit_us = 500 * MS,
                  .drain_delay_us = 5 * SECOND,
                  .stop_us = 20 * SECOND},
    .pipeline = {.batch = 256,
                 .batch_bytes = 4 * MIB,
                 .queue = 4096,
                 .queue_bytes = 64 * MIB,
                 .suspects = 64},
    .park = {.bytes = 1024 * MIB, .age_us = 6 * HOUR, .rate = 1000, .decide_after_us = 30 * SECOND},
    .postgres = {.lanes = 1,
                 .refresh_us = 5 * SECOND,
                 .dedup_window_us = 7 * DAY,
                 .security_events_us = 30 * DAY},
    .kafka = {.topic = "webhooks.{platform}",
              .partitions = 4,
              .replication = 3,
              .linger_us = 200 * US},
    .limits = {.standard = {100, 1000},
               .free = {0, 100},
               .pro = {0, 10000},
               .failed_signatures = 300},
    .hold = {.topic = "webhooks.hold",
             .markers = "webhooks.hold.markers",
             .age_us = 12 * HOUR,
             .bytes = 10 * 1024 * MIB,
             .rate = 2000},
    .log_level = LOG_INFO,
};

/* "auto" or a number; the binder has one kind per key, so this one is read here. */
static void read_threads(struct config *config, struct problems *problems)
{
    const struct yaml_node *node = config->threads_node;
    int64_t value = 0;

    if (node == NULL)
        return;
    const char *text = yaml_node_type(node) == YAML_SCALAR ? yaml_node_text(node) : "";
    if (strcmp(text, "auto") == 0)
        return;
    for (const char *p = text; *p >= '0' && *p <= '9' && value <= CONFIG_THREADS_MAX; p++)
        value = 10 * value + (*p - '0');
    if (yaml_node_is_plain(node) && text[0] != '0' && strspn(text, "0123456789") == strlen(text) &&
        value >= 1 && value <= CONFIG_THREADS_MAX)
        config->threads = value;
    else
        yaml_problem(node, problems,
                     "not valid; `auto` or a whole number from 1 to %d, unquoted, "
                     "would be right",
                     CONFIG_THREADS_MAX);
}

static bool is_mapping(const struct yaml_node *node, struct problems *problems)
{
    if (yaml_node_type(node) == YAML_MAPPING)
        return true;
    yaml_problem(node, problems,
                 "a mapping (`key: value` lines) would be right, or leave the key "
                 "out");
    return false;
}

static void read_settings(struct config *config, struct problems *problems)
{
    const struct yaml_node *node = config->kafka.settings_node;

    if (node == NULL || !is_mapping(node, problems))
        return;
    size_t count = yaml_node_count(node);
    struct config_setting *settings = yaml_alloc(config->yaml, count, sizeof *settings);
    for (size_t i = 0; i < count; i++) {
        const struct yaml_node *value = yaml_node_value(node, i);
        if (yaml_node_type(value) != YAML_SCALAR || yaml_node_text(value)[0] == '\0') {
            yaml_problem(value, problems, "one value would be right, as librdkafka takes it");
            continue;
        }
        settings[config->kafka.setting_count++] = (struct config_setting){
            yaml_node_key(node, i), yaml_node_text(value), yaml_node_key_node(node, i)};
    }
    config->kafka.settings = settings;
}

static bool is_platform_name(const char *name)
{
    size_t len = strlen(name);

    return len <= 64 && name[0] >= 'a' && name[0] <= 'z' &&
           strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == len;
}

/* One file: its name, or a mapping. */
static void read_secret_file(const struct config *config, const struct yaml_node *node,
                             struct config_secret_file *ret, struct problems *problems)
{
    static const struct yaml_field fields[] = {
        {"file", YAML_TEXT, offsetof(struct config_secret_file, file), .required = true,
         RANGE(1, 4095), .node_offset_plus1 = 1 + offsetof(struct config_secret_file, file_node)},
        {"not_after", YAML_TEXT, offsetof(struct config_secret_file, not_after), RANGE(1, 64),
         .node_offset_plus1 = 1 + offsetof(struct config_secret_file, not_after_node)},
        {NULL},
    };

    if (yaml_node_type(node) != YAML_SCALAR) {
        (void)yaml_bind(config->yaml, node, fields, ret, problems);
    } else if (yaml_node_text(node)[0] != '\0') {
        ret->file = yaml_node_text(node);
        ret->file_node = node;
    } else {
        yaml_problem(node, problems, "empty; the name of a file would be right");
    }
    if (ret->not_after != NULL && !rfc3339_parse(slice_of(ret->not_after), &ret->not_after_wall_us))
        yaml_problem(ret->not_after_node, problems,
                     "no time; one as in RFC 3339 would be right: 2026-12-01T00:00:00Z");
}

/* One file, or a list of them. */
static void read_secret_files(const struct config *config, struct config_platform *platform,
                              struct problems *problems)
{
    const struct yaml_node *node = platform->secret_files_node;

    if (node == NULL)
        return;
    bool is_list = yaml_node_type(node) == YAML_SEQUENCE;
    size_t count = is_list ? yaml_node_count(node) : 1;
    if (count > SECRETS_MAX) {
        yaml_problem(node, problems, "%zu files; at most %d would be right", count, SECRETS_MAX);
        return;
    }
    platform->secret_files = yaml_alloc(config->yaml, count, sizeof *platform->secret_files);
    platform->secret_file_count = count;
    for (size_t i = 0; i < count; i++)
        read_secret_file(config, is_list ? yaml_node_item(node, i) : node,
                         &platform->secret_files[i], problems);
}

static void read_enabled(struct config *config, struct problems *problems)
{
    static const struct yaml_field fields[] = {
        {"secret_files", YAML_NODE, offsetof(struct config_platform, secret_files_node)},
        {"topic", YAML_TEXT, offsetof(struct config_platform, topic), RANGE(1, 249),
         .node_offset_plus1 = 1 + offsetof(struct config_platform, topic_node)},
        {"fallback_workspace", YAML_TEXT, offsetof(struct config_platform, fallback_workspace),
         RANGE(1, 64)},
        {NULL},
    };
    const struct yaml_node *node = config->platforms.enabled_node;

    if (node == NULL || !is_mapping(node, problems))
        return;
    size_t count = yaml_node_count(node);
    struct config_platform *enabled = yaml_alloc(config->yaml, count, sizeof *enabled);
    for (size_t i = 0; i < count; i++) {
        const struct yaml_node *value = yaml_node_value(node, i);
        enabled[i].name = yaml_node_key(node, i);
        enabled[i].node = yaml_node_key_node(node, i);
        if (!is_platform_name(enabled[i].name))
            yaml_problem(enabled[i].node, problems,
                         "not a platform's name; the name of its folder would be right: a-z, 0-9 "
                         "and '-', a letter first");
        /* `otter:` with nothing behind it is how one names a platform that has no secret. */
        if (yaml_node_is_plain(value) && yaml_node_text(value)[0] == '\0')
            continue;
        (void)yaml_bind(config->yaml, value, fields, &enabled[i], problems);
        read_secret_files(config, &enabled[i], problems);
    }
    config->platforms.enabled = enabled;
    config->platforms.enabled_count = count;
}

static const char *copy_text(const struct yaml *yaml, const char *text, size_t len)
{
    char *copy = yaml_alloc(yaml, len + 1, 1);
    memcpy(copy, text, len);
    return copy;
}

static void set_path(struct config *config, const char *path)
{
    const char *slash = strrchr(path, '/');

    config->path = copy_text(config->yaml, path, strlen(path));
    if (slash == NULL)
        config->directory = ".";
    else
        config->directory =
            copy_text(config->yaml, path, slash == path ? 1 : (size_t)(slash - path));
}

static const char *join_path(const struct config *config, const char *directory, const char *path)
{
    size_t size = strlen(directory) + 1 + strlen(path) + 1;
    char *joined = yaml_alloc(config->yaml, size, 1);

    snprintf(joined, size, "%s/%s", directory, path);
    return joined;
}

/* A relative path in $CREDENTIALS_DIRECTORY when a file is there, else beside the configuration's
 * own file. */
static const char *resolve(const struct config *config, const char *path)
{
    const char *credentials = getenv("CREDENTIALS_DIRECTORY");

    if (path == NULL || path[0] == '/')
        return path;
    if (credentials != NULL && credentials[0] != '\0') {
        const char *there = join_path(config, credentials, path);
        if (access(there, F_OK) == 0)
            return there;
    }
    if (strcmp(config->directory, ".") == 0)
        return path;
    return join_path(config, config->directory, path);
}

/* Once, so that nobody asks the file system again: what is read stays what was checked. */
static void resolve_paths(struct config *config)
{
    const char **paths[] = {&config->listen.certificate,     &config->listen.key,
                            &config->postgres.password_file, &config->postgres.key_file,
                            &config->kafka.password_file,    &config->platforms.directory};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        *paths[i] = resolve(config, *paths[i]);
    for (size_t i = 0; i < config->platforms.enabled_count; i++) {
        struct config_platform *platform = &config->platforms.enabled[i];
        for (size_t j = 0; j < platform->secret_file_count; j++)
            platform->secret_files[j].file = resolve(config, platform->secret_files[j].file);
    }
}

/* Takes `yaml`, which may be NULL. */
static struct config *read_yaml(const char *path, struct yaml *yaml, struct problems *problems)
{
    size_t before = problems_total(problems);

    if (yaml == NULL)
        return NULL;
    struct config *config = xmalloc(sizeof *config);
    *config = defaults;
    config->yaml = yaml;
    set_path(config, path);
    if (yaml_bind(yaml, yaml_root(yaml), config_fields, config, problems) ||
        yaml_node_type(yaml_root(yaml)) == YAML_MAPPING) {
        read_threads(config, problems);
        read_settings(config, problems);
        read_enabled(config, problems);
        resolve_paths(config);
        config_check(config, problems);
    }
    if (problems_total(problems) == before)
        return config;
    config_free(config);
    return NULL;
}

const char *config_default_path(void)
{
    static const char here[] = "conf/hookgate.yaml";

    return access(here, F_OK) == 0 ? here : "/etc/hookgate/hookgate.yaml";
}

struct config *config_read(const char *path, struct problems *problems)
{
    return read_yaml(path, yaml_read_file(path, problems), problems);
}

struct config *config_read_bytes(const char *name, const void *bytes, size_t len,
                                 struct problems *problems)
{
    return read_yaml(name, yaml_read_bytes(name, bytes, len, problems), problems);
}

void config_free(struct config *config)
{
    if (config == NULL)
        return;
    yaml_free(config->yaml);
    free(config);
}

int64_t config_threads(const struct config *config)
{
    if (config->threads != 0)
        return config->threads;
    int64_t most = config->listen.memory / (CONFIG_BODIES_PER_THREAD * config->listen.body);
    int64_t cores = sysconf(_SC_NPROCESSORS_ONLN);
    int64_t threads = cores < most ? cores : most;
    return threads < 1 ? 1 : threads > CONFIG_THREADS_MAX ? CONFIG_THREADS_MAX : threads;
}

const struct config_limits *config_plan(const struct config *config, const char *plan)
{
    return strcmp(plan, "free") == 0         ? &config->limits.free
           : strcmp(plan, "pro") == 0        ? &config->limits.pro
           : strcmp(plan, "enterprise") == 0 ? &config->limits.enterprise
                                             : &config->limits.standard;
}
