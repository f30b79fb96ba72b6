/* `hookgate audit`: whether everything that was answered 2xx since a moment is where it should be.
 */
/* SPDX-License-Identifier: Apache-2.0 */
#include "audit.h"
#include "clock.h"
#include "command.h"
#include "config.h"
#include "freshness.h"
#include "options.h"
#include "platform.h"

#include <stdio.h>
#include <string.h>

#define SECOND INT64_C(1000000)
#define PATIENCE_US (600 * SECOND)

struct options {
    const char *config, *since;
    bool json;
};

static int usage(FILE *out, int status)
{
    fputs("usage: hookgate audit --since TIME [--json] [--config FILE]\n\n"
          "Reads the receipts in Postgres and the records in Kafka, and tells whether every event "
          "that was\nanswered 2xx is in its topic, once.\n\n"
          "  --since TIME   2026-01-31T12:00:00Z, or how long ago: 90s, 10m, 24h, 7d\n"
          "  --json         one JSON object\n"
          "  --config FILE  default conf/hookgate.yaml, then /etc/hookgate/hookgate.yaml\n"
          "  --help         this text\n\n"
          "missing: answered 2xx and found nowhere. doubled: ids with more than one record; a "
          "consumer drops the\nsecond by its ce_id. unclaimed: records that were refused with 503 "
          "and not sent again since.\n\n"
          "Exit status: 0 nothing is missing, 1 something is, or the servers could not be read, 2 "
          "wrong usage or\nconfiguration.\n",
          out);
    return status;
}

/* A moment, or a number with s, m, h or d before now. */
static bool parse_since(const char *text, int64_t now_wall_us, int64_t *ret_wall_us)
{
    if (freshness_parse(slice_of(text), UNIT_RFC3339, ret_wall_us))
        return true;
    size_t digits = strspn(text, "0123456789");
    const char *unit = strchr("smhd", text[digits]);
    if (digits == 0 || digits > 9 || text[digits] == '\0' || unit == NULL ||
        text[digits + 1] != '\0')
        return false;
    const int64_t seconds = *unit == 's' ? 1 : *unit == 'm' ? 60 : *unit == 'h' ? 3600 : 86400;
    *ret_wall_us = now_wall_us - strtoll(text, NULL, 10) * seconds * SECOND;
    return *ret_wall_us > 0;
}

static void print_ids(const char *word, const struct event_id *ids, int64_t count)
{
    for (int64_t i = 0; i < count && i < AUDIT_SAMPLES; i++) {
        char id[EVENT_ID_TEXT];
        event_id_format(ids[i], id);
        printf("%s %s\n", word, id);
    }
    if (count > AUDIT_SAMPLES)
        printf("%s and %lld more\n", word, (long long)count - AUDIT_SAMPLES);
}

static void print_text(const struct audit_report *report)
{
    print_ids("missing", report->missing_ids, report->missing);
    print_ids("doubled", report->doubled_ids, report->doubled);
    if (report->stuck > 0)
        printf("stuck %lld: hookgate stuck list tells why\n", (long long)report->stuck);
    if (report->unclaimed > 0)
        printf("unclaimed %lld: refused with 503 although Kafka took them\n",
               (long long)report->unclaimed);
    if (report->expired > 0)
        printf("expired %lld: older than what their topic keeps\n", (long long)report->expired);
    if (report->filled > 0)
        printf("filled %lld: receipts that had no offset\n", (long long)report->filled);
    printf("acknowledged %lld, in Kafka %lld, missing %lld, doubled %lld, parked %lld, held %lld\n",
           (long long)report->acknowledged, (long long)report->in_kafka, (long long)report->missing,
           (long long)report->doubled, (long long)report->parked, (long long)report->held);
}

static void print_json_ids(const struct event_id *ids, int64_t count)
{
    putchar('[');
    for (int64_t i = 0; i < count && i < AUDIT_SAMPLES; i++) {
        char id[EVENT_ID_TEXT];
        event_id_format(ids[i], id);
        printf("%s\"%s\"", i > 0 ? "," : "", id);
    }
    putchar(']');
}

static void print_json(const struct audit_report *report)
{
    printf("{\"acknowledged\":%lld,\"in_kafka\":%lld,\"missing\":%lld,\"doubled\":%lld,"
           "\"parked\":%lld,\"held\":%lld,\"stuck\":%lld,\"unclaimed\":%lld,\"expired\":%lld,"
           "\"filled\":%lld,\"missing_ids\":",
           (long long)report->acknowledged, (long long)report->in_kafka, (long long)report->missing,
           (long long)report->doubled, (long long)report->parked, (long long)report->held,
           (long long)report->stuck, (long long)report->unclaimed, (long long)report->expired,
           (long long)report->filled);
    print_json_ids(report->missing_ids, report->missing);
    fputs(",\"doubled_ids\":", stdout);
    print_json_ids(report->doubled_ids, report->doubled);
    puts("}");
}

static int audit(const struct options *options, const struct config *config,
                 const struct platforms *platforms, int64_t since_wall_us)
{
    size_t count = platforms_count(platforms);
    const char **topics = xcalloc(count, sizeof *topics);
    for (size_t i = 0; i < count; i++)
        topics[i] = platforms_at(platforms, i)->topic;
    const struct audit_options audit_options = {
        .config = config,
        .topics = topics,
        .topic_count = count,
        .since_wall_us = since_wall_us,
        .deadline_us = clock_mono_us() + PATIENCE_US,
    };
    struct audit_report report;
    bool done = audit_run(&audit_options, &report, stderr);
    free(topics);
    if (!done)
        return 1;
    if (options->json)
        print_json(&report);
    else
        print_text(&report);
    return report.missing > 0;
}

int command_audit(int argc, char **argv)
{
    struct options options = {0};
    const struct command_option known[] = {{"config", .value = &options.config},
                                           {"since", .value = &options.since},
                                           {"json", .flag = &options.json},
                                           {0}};
    int status = options_read(argc, argv, known, usage, NULL);
    if (status >= 0)
        return status;
    int64_t since;
    if (options.since == NULL)
        return options_refuse("audit", usage, "--since is needed, such as --since 10m");
    if (!parse_since(options.since, clock_wall_us(), &since))
        return options_refuse("audit", usage,
                              "--since '%s' is no time; 2026-01-31T12:00:00Z or 10m would be right",
                              options.since);
    struct problems problems = {0};
    struct config *config =
        config_read(options.config ? options.config : config_default_path(), &problems);
    struct platforms *platforms = config ? config_load_platforms(config, &problems) : NULL;
    problems_print(&problems);
    problems_release(&problems);
    status = platforms != NULL ? audit(&options, config, platforms, since) : 2;
    platforms_free(platforms);
    config_free(config);
    return status;
}
