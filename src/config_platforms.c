/* The platforms of the configuration: the folders, with what the configuration adds to them:
 * application secrets, topics, series of metrics. Called by setup.c, at start and at each reload,
 * and by commands. All that is wrong is told at once. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "metrics.h"
#include "platform.h"

#include <stdio.h>
#include <unistd.h>

#define TOPIC_BYTES 1024

/* The names to load, NULL-terminated and owned by the document; those without a folder are left out
 * and complained about where they stand. */
static const char *const *existing_names(const struct config *config, const char *directory,
                                         struct problems *problems)
{
    size_t count = 0;
    const char **names =
        yaml_alloc(config->yaml, config->platforms.enabled_count + 1, sizeof *names);

    for (size_t i = 0; i < config->platforms.enabled_count; i++) {
        const struct config_platform *enabled = &config->platforms.enabled[i];
        char path[4352];
        snprintf(path, sizeof path, "%s/%s/platform.yaml", directory, enabled->name);
        if (access(path, F_OK) == 0)
            names[count++] = enabled->name;
        else
            yaml_problem(enabled->node, problems,
                         "there is no %s; a folder of that directory would "
                         "be right",
                         path);
    }
    return names;
}

static const struct config_platform *find_enabled(const struct config *config, const char *name)
{
    for (size_t i = 0; i < config->platforms.enabled_count; i++) {
        if (strcmp(config->platforms.enabled[i].name, name) == 0)
            return &config->platforms.enabled[i];
    }
    return NULL;
}

/* The template with every {platform} filled in; NULL when the result is no topic. */
static const char *fill_topic(const struct config *config, const char *name)
{
    static const char hole[] = "{platform}";
    char *topic = yaml_alloc(config->yaml, TOPIC_BYTES, 1);
    size_t len = 0, name_len = strlen(name);

    for (const char *p = config->kafka.topic; *p != '\0';) {
        bool is_hole = strncmp(p, hole, sizeof hole - 1) == 0;
        size_t more = is_hole ? name_len : 1;
        if (len + more >= TOPIC_BYTES)
            return NULL;
        memcpy(topic + len, is_hole ? name : p, more);
        len += more;
        p += is_hole ? sizeof hole - 1 : 1;
    }
    topic[len] = '\0';
    return config_is_topic(topic) ? topic : NULL;
}

static void set_topic(const struct config *config, const struct config_platform *enabled,
                      struct platform *platform, struct problems *problems)
{
    platform->topic = enabled != NULL && enabled->topic != NULL
                          ? enabled->topic
                          : fill_topic(config, platform->name);
    if (platform->topic == NULL)
        yaml_problem(config_place(config, "kafka", "topic"), problems,
                     "'%s' gives no topic for platform %s; 1 to 249 letters, digits, '.', '_' and "
                     "'-' would be right",
                     config->kafka.topic, platform->name);
}

/* Where a platform's topic comes to be one of the two of `hold`. */
static const struct yaml_node *where_held(const struct config *config, const char *topic,
                                          const struct config_platform *enabled)
{
    const struct yaml_node *root = yaml_root(config->yaml), *hold = yaml_node_get(root, "hold");
    const char *key = strcmp(topic, config->hold.topic) == 0 ? "topic" : "markers";
    const struct yaml_node *node = hold != NULL ? yaml_node_get(hold, key) : NULL;

    if (enabled != NULL && enabled->topic_node != NULL)
        return enabled->topic_node;
    if (node != NULL)
        return node;
    return enabled != NULL ? enabled->node : yaml_node_get(root, "platforms");
}

void config_check_held(const struct config *config, const struct platforms *platforms,
                       struct problems *problems)
{
    for (size_t i = 0; i < platforms_count(platforms); i++) {
        const struct platform *platform = platforms_at(platforms, i);
        if (platform->topic == NULL || !config_is_held(config, platform->topic))
            continue;
        const struct config_platform *enabled = find_enabled(config, platform->name);
        yaml_problem(where_held(config, platform->topic, enabled), problems,
                     "%s would be both the topic of platform %s and one of `hold`, from which all "
                     "is deleted that was not held; different topics would be right",
                     platform->topic, platform->name);
    }
}

/* A platform without any is fine: there is nothing to verify with on its shared route, so that
 * answers 401, and its endpoints have secrets of their own. */
static void add_secrets(const struct config_platform *enabled, struct platform *platform,
                        struct problems *problems)
{
    if (enabled == NULL)
        return;
    for (size_t i = 0; i < enabled->secret_file_count; i++) {
        const struct keyring_file file = {
            .path = enabled->secret_files[i].file,
            .where = enabled->secret_files[i].file_node,
            .strict = true,
            .not_after_wall_us = enabled->secret_files[i].not_after_wall_us,
        };
        (void)keyring_add_file(&platform->secrets, platform, &file, problems);
    }
}

static void set_series(struct platform *platform)
{
    static const char *const states[SECRET_STATE_COUNT] = {
        [SECRET_CURRENT] = "current", [SECRET_NEXT] = "next", [SECRET_RETIRING] = "retiring"};
    for (size_t i = 0; i < platform->secrets.count; i++) {
        struct secret *secret = platform->secrets.secrets[i];
        secret_set_series(secret,
                          metrics_signature(platform->name, "application", secret_label(secret)));
    }
    for (size_t i = 0; i < SECRET_STATE_COUNT; i++)
        platform->state_series[i] = metrics_signature(platform->name, "integration", states[i]);
    platform->token_series = metrics_signature(platform->name, "endpoint_token", "");
    platform->other_series = metrics_series(platform->name, "other");
    for (size_t i = 0; i < platform->event_count; i++)
        platform->events[i].series = metrics_series(platform->name, platform->events[i].type);
}

struct platforms *config_load_platforms(const struct config *config, struct problems *problems)
{
    size_t before = problems_total(problems);
    const char *directory = config->platforms.directory;
    const char *const *names = NULL;

    if (config->platforms.enabled_count > 0)
        names = existing_names(config, directory, problems);
    if (names != NULL && names[0] == NULL)
        return NULL;
    struct platforms *platforms =
        platforms_load(directory, config->platforms.directory_node, names, problems);
    if (platforms == NULL)
        return NULL;
    for (size_t i = 0; i < platforms_count(platforms); i++) {
        struct platform *platform = platforms_at(platforms, i);
        const struct config_platform *enabled = find_enabled(config, platform->name);
        set_topic(config, enabled, platform, problems);
        platform->fallback_workspace = enabled ? enabled->fallback_workspace : NULL;
        add_secrets(enabled, platform, problems);
        set_series(platform);
    }
    config_check_held(config, platforms, problems);
    if (problems_total(problems) == before)
        return platforms;
    platforms_free(platforms);
    return NULL;
}
