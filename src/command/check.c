/* `hookgate check`: says whether the gateway would start with this configuration and these
 * platforms, without a network. All that is wrong is told at once, on standard error; what is right
 * is a short table on standard output. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "../config.h"
#include "../platform.h"
#include "command.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>

struct options {
    const char *config;    /* NULL = the default */
    const char *platforms; /* NULL = what the configuration says */
    bool syntax;
};

static int usage(FILE *out, int status)
{
    fputs("usage: hookgate check [--config FILE] [--platforms DIR] [--syntax]\n\n"
          "Validates the configuration, the files that it names and the platforms.\n\n"
          "  --config FILE    default conf/hookgate.yaml, then /etc/hookgate/hookgate.yaml\n"
          "  --platforms DIR  instead of the configuration's platforms.directory\n"
          "  --syntax         look at the configuration alone, not at the files that it names\n"
          "  --help           this text\n\n"
          "Exit status: 0 fine, 2 something is wrong.\n",
          out);
    return status;
}

/* -1 = go on, else the exit status. */
static int parse(int argc, char **argv, struct options *options)
{
    static const struct option known[] = {
        {"config", required_argument, NULL, 'c'},
        {"platforms", required_argument, NULL, 'p'},
        {"syntax", no_argument, NULL, 's'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int letter;

    opterr = 0;
    while ((letter = getopt_long(argc, argv, ":h", known, NULL)) != -1) {
        switch (letter) {
        case 'c':
            options->config = optarg;
            break;
        case 'p':
            options->platforms = optarg;
            break;
        case 's':
            options->syntax = true;
            break;
        case 'h':
            return usage(stdout, 0);
        case ':':
            fprintf(stderr, "hookgate check: '%s' needs a value\n", argv[optind - 1]);
            return usage(stderr, 2);
        default:
            fprintf(stderr, "hookgate check: there is no option '%s'\n", argv[optind - 1]);
            return usage(stderr, 2);
        }
    }
    if (optind == argc)
        return -1;
    fprintf(stderr, "hookgate check: '%s' is one argument too many\n", argv[optind]);
    return usage(stderr, 2);
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

static void print_platforms(struct platforms *platforms)
{
    printf("\n%-16s%8s  %s\n", "platform", "secrets", "topic");
    for (size_t i = 0; i < platforms_count(platforms); i++) {
        const struct platform *platform = platforms_at(platforms, i);
        printf("%-16s%8zu  %s\n", platform->name, platform->secrets.count, platform->topic);
    }
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
    }
    if (options->syntax) {
        fine = !problems_any(problems);
        if (fine)
            print_config(config);
    } else {
        bool found = !problems_any(problems); /* what --platforms names */
        fine = config_check_files(config, problems);
        struct platforms *platforms = found ? config_load_platforms(config, problems) : NULL;
        fine = fine && platforms != NULL && !problems_any(problems);
        if (fine) {
            print_config(config);
            print_platforms(platforms);
        }
        platforms_free(platforms);
    }
    config_free(config);
    return fine;
}

int command_check(int argc, char **argv)
{
    struct options options = {0};
    struct problems problems = {0};

    int status = parse(argc, argv, &options);
    if (status != -1)
        return status;
    bool fine = check(&options, &problems);
    problems_print(&problems);
    problems_release(&problems);
    return fine ? 0 : 2;
}
