/* `hookgate check`: says whether the gateway would start with this configuration and these
 * platforms, without a network. All that is wrong is told at once, on standard error; what is right
 * is a short table on standard output. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "command.h"
#include "config.h"
#include "edge_tls.h"
#include "options.h"
#include "platform.h"
#include "topics_ensure.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

struct options {
    const char *config;    /* NULL = the default */
    const char *platforms; /* NULL = what the configuration says */
    bool syntax;
};

static int usage(FILE *out, int status)
{
    fputs("usage: hookgate check [--config FILE] [--platforms DIR] [--syntax]\n\n"
          "Validates the configuration, the files that it names and all platforms of the folder, "
          "those too\nthat are not enabled.\n\n"
          "  --config FILE    default conf/hookgate.yaml, then /etc/hookgate/hookgate.yaml\n"
          "  --platforms DIR  instead of the configuration's platforms.directory\n"
          "  --syntax         look at the configuration alone: at no other file, and at no "
          "platform\n"
          "  --help           this text\n\n"
          "Exit status: 0 fine, 2 something is wrong.\n",
          out);
    return status;
}

static void print_listener(const char *name, const char *address, const char *note)
{
    printf("  %-12s%-24s%s\n", name, address != NULL ? address : "-", note);
}

static void print_config(const struct config *config)
{
    char threads[24] = "one per core";

    if (config->threads > 0)
        snprintf(threads, sizeof threads, "%lld", (long long)config->threads);
    printf("%s is fine\n\nlisteners\n", config->path);
    print_listener("https", config->listen.https.text, "webhooks, TLS");
    print_listener("plain", config->listen.plain.text, "webhooks, for a proxy");
    print_listener("admin", config->listen.admin.text, "metrics and health");
    printf("\n  %-12s%s\n  %-12s%s\n  %-12s%s\n", "public URL", config->public_url, "threads",
           threads, "Kafka", config->kafka.brokers);
}

/* Those that serve would load, then the others of the folder. */
static void print_platforms(struct platforms *enabled, struct platforms *all)
{
    printf("\n%-16s%-14s%8s  %s\n", "platform", "state", "secrets", "topic");
    for (size_t i = 0; i < platforms_count(enabled); i++) {
        const struct platform *platform = platforms_at(enabled, i);
        printf("%-16s%-14s%8zu  %s\n", platform->name, "enabled", platform->secrets.count,
               platform->topic);
    }
    for (size_t i = 0; i < platforms_count(all); i++) {
        const struct platform *platform = platforms_at(all, i);
        if (platforms_find(enabled, slice_of(platform->name)) == NULL)
            printf("%-16s%-14s%8s  %s\n", platform->name, "only checked", "-", "-");
    }
}

static bool is_told(const struct problems *problems, const char *line)
{
    for (size_t i = 0; i < problems->count; i++) {
        if (strcmp(problems->lines[i], line) == 0)
            return true;
    }
    return false;
}

/* The folders that are not enabled, too: who writes one wants to know before enabling it. A folder
 * that is enabled was loaded before; what is wrong there is told once. */
static struct platforms *load_all(const struct config *config, struct problems *problems)
{
    struct problems found = {0};
    struct platforms *all =
        platforms_load(config->platforms.directory, config->platforms.directory_node, NULL, &found);
    for (size_t i = 0; i < found.count; i++) {
        if (!is_told(problems, found.lines[i]))
            problem_add(problems, NULL, 0, 0, "%s", found.lines[i]);
    }
    problems->dropped += found.dropped;
    problems_release(&found);
    return all;
}

/* What serve does next with the files that are there. */
static void check_use(const struct config *config, struct problems *problems)
{
    topics_check_settings(config, problems);
    if (config->listen.https.text != NULL && !problems_any(problems))
        edge_tls_unref(edge_tls_new(config->listen.certificate, config->listen.key, problems));
}

/* True when all is fine; `found` says whether the folder of platforms is there. */
static bool check_files(const struct config *config, bool found, struct problems *problems)
{
    bool fine = config_check_files(config, problems);
    check_use(config, problems);
    if (!found)
        return false;
    struct platforms *enabled = config_load_platforms(config, problems);
    struct platforms *all = load_all(config, problems);

    fine = fine && enabled != NULL && all != NULL && !problems_any(problems);
    if (fine) {
        print_config(config);
        print_platforms(enabled, all);
    }
    platforms_free(enabled);
    platforms_free(all);
    return fine;
}

/* True when all is fine. */
static bool check(const struct options *options, struct problems *problems)
{
    const char *path = options->config != NULL ? options->config : config_default_path();
    char directory[PATH_MAX];
    bool fine;

    struct config *config = config_read(path, problems);
    if (config == NULL)
        return false;
    if (options->platforms != NULL) {
        /* A path of the command line is relative to here, not to the configuration. */
        if (realpath(options->platforms, directory) == NULL)
            problem_add(problems, options->platforms, 0, 0, "can't be found: %s", strerror(errno));
        else
            config->platforms.directory = directory;
        config->platforms.directory_node = NULL;
    }
    if (options->syntax) {
        fine = !problems_any(problems);
        if (fine)
            print_config(config);
    } else {
        fine = check_files(config, !problems_any(problems), problems);
    }
    config_free(config);
    return fine;
}

int command_check(int argc, char **argv)
{
    struct options options = {0};
    struct problems problems = {0};

    const struct command_option known[] = {{"config", .value = &options.config},
                                           {"platforms", .value = &options.platforms},
                                           {"syntax", .flag = &options.syntax},
                                           {0}};
    int status = options_read(argc, argv, known, usage, NULL);
    if (status >= 0)
        return status;
    if (options.syntax && options.platforms != NULL)
        return options_refuse("check", usage,
                              "--syntax looks at no platform, so --platforms can't go with it");
    bool fine = check(&options, &problems);
    problems_print(&problems);
    problems_release(&problems);
    return fine ? 0 : 2;
}
