/* `hookgate verify`: judges one raw request by the very steps of the edge, without a server, and
 * prints what came of it as one JSON object. For people who connect a platform, and for tests. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "clock.h"
#include "command.h"
#include "delivery.h"
#include "delivery_answer.h"
#include "json.h"
#include "options.h"
#include "sample.h"

#include <errno.h>
#include <stdio.h>

#define BODY_MAX (1u << 20) /* listen.body, as it is unless configured */
#define TEXT_MAX 16384
#define WORKSPACE_MAX 256

struct arguments {
    const char *platform, *secret_file, *workspace, *platforms, *request;
    int64_t now_wall_us;
};

static int usage(FILE *out, int status)
{
    fputs(
        "usage: hookgate verify PLATFORM --secret-file FILE [OPTION …] REQUEST.http|-\n\n"
        "Judges a raw HTTP/1.1 request (request line, header lines, an empty line, and the body "
        "to the\nend of the file) as the gateway would, and prints one JSON object.\n\n"
        "  --secret-file FILE  the signing secret; several lines are several secrets; for a\n"
        "                      platform whose address is the secret, the path's token\n"
        "  --at UNIX           the time of arrival in seconds (default: now)\n"
        "  --workspace NAME    the workspace in the dedup key (default: -)\n"
        "  --platforms DIR     default: platforms/ here, then the installed one\n\n"
        "Exit status: 0 authentic, 1 not authentic, 2 wrong usage, unknown platform or unreadable "
        "file.\n",
        out);
    return status;
}

static void put_text(FILE *out, const char *key, struct slice text)
{
    char quoted[TEXT_MAX];
    size_t len = 0;
    if (text.len > 0 && json_quote(quoted, sizeof quoted, &len, text))
        fprintf(out, ",\"%s\":%.*s", key, (int)len, quoted);
    else
        fprintf(out, ",\"%s\":null", key);
}

static void put_check(FILE *out, bool *first, const char *name, bool ok, const char *reason)
{
    fprintf(out, "%s{\"check\":\"%s\",\"ok\":%s", *first ? "" : ",", name, ok ? "true" : "false");
    put_text(out, "reason", slice_of(reason ? reason : ""));
    fputc('}', out);
    *first = false;
}

/* Why a step was content, where that says something. */
static const char *content_reason(const struct delivery *d, enum delivery_step step)
{
    if (step == DELIVERY_VERIFY)
        return d->verification.secret ? "it matches a secret of the file"
                                      : "the endpoint token is the credential";
    if (step == DELIVERY_FRESHNESS && d->platform->timestamp.from.source == FROM_NOTHING)
        return "the platform signs no timestamp";
    return NULL;
}

/* A handshake that comes unsigned is answered where others' signatures are looked at. */
static bool is_handshake(enum outcome outcome)
{
    return outcome == OUTCOME_CHALLENGED || outcome == OUTCOME_CHALLENGE_REFUSED ||
           outcome == OUTCOME_CHALLENGE_UNVERIFIED;
}

static void put_checks(FILE *out, const struct delivery *d)
{
    static const char *const names[DELIVERY_STEP_COUNT] = {
        [DELIVERY_ROUTE] = "route",         [DELIVERY_VERIFY] = "signature",
        [DELIVERY_FRESHNESS] = "freshness", [DELIVERY_CHALLENGE] = "challenge",
        [DELIVERY_EXTRACT] = "extract",     [DELIVERY_WORKSPACE] = "workspace",
        [DELIVERY_LIMIT] = "limit"};
    bool first = true;
    for (enum delivery_step step = 0; step <= d->step && step < DELIVERY_RECORD; step++) {
        enum outcome outcome = d->checks[step];
        /* Told only where there is something to tell. */
        if (names[step] == NULL ||
            ((step == DELIVERY_ROUTE || step == DELIVERY_CHALLENGE || step == DELIVERY_LIMIT) &&
             outcome == OUTCOME_NONE))
            continue; /* a gateway's load is nothing that this command has */
        if (outcome == OUTCOME_NONE)
            put_check(out, &first, names[step], true, content_reason(d, step));
        else
            put_check(out, &first, names[is_handshake(outcome) ? DELIVERY_CHALLENGE : step],
                      outcome == OUTCOME_CHALLENGED, outcome_info(outcome)->sentence);
    }
}

/* The four parts with '/' between them; '/', '%' and control characters inside one are
 * percent-escaped. */
static void put_dedup_key(FILE *out, const struct delivery *d)
{
    const struct slice parts[] = {d->workspace, slice_of(d->platform->name), d->event.key_type,
                                  d->event.external_id};
    char text[3 * (WORKSPACE_MAX + EVENT_TYPE_MAX + EVENT_EXTERNAL_ID_MAX + 64) + 4];
    size_t len = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (i > 0)
            text[len++] = '/';
        for (size_t k = 0; k < parts[i].len; k++) {
            unsigned char c = (unsigned char)parts[i].ptr[k];
            if (c == '/' || c == '%' || c < 0x20 || c == 0x7f)
                len += (size_t)snprintf(text + len, sizeof text - len, "%%%02X", c);
            else
                text[len++] = (char)c;
        }
    }
    put_text(out, "dedup_key", (struct slice){text, len});
}

static void put_answer(FILE *out, const struct delivery *d)
{
    struct delivery_answer answer;
    delivery_answer(d, &answer);
    fprintf(out, ",\"answer\":{\"status\":%d", answer.status);
    if (strncmp(answer.content_type, "application/json", strlen("application/json")) == 0)
        fprintf(out, ",\"body\":%.*s}", (int)answer.len, answer.body);
    else {
        put_text(out, "body", (struct slice){answer.body, answer.len});
        fputc('}', out);
    }
}

struct report {
    FILE *out;
    const char *platform;
    bool authentic;
};

static void put_head(const struct report *report)
{
    fprintf(report->out, "{\"platform\":\"%s\",\"authentic\":%s,\"checks\":[", report->platform,
            report->authentic ? "true" : "false");
}

static void on_done(struct delivery *d, void *context)
{
    struct report *report = context;
    report->authentic = d->step >= DELIVERY_FRESHNESS &&
                        d->checks[DELIVERY_VERIFY] == OUTCOME_NONE &&
                        d->checks[DELIVERY_FRESHNESS] == OUTCOME_NONE;
    put_head(report);
    put_checks(report->out, d);
    fputc(']', report->out);
    put_text(report->out, "event_type", d->event.type);
    put_text(report->out, "external_id",
             d->id_known ? d->event.external_id : (struct slice){"", 0});
    if (d->id_known) {
        char id[EVENT_ID_TEXT];
        event_id_format(d->id, id);
        put_dedup_key(report->out, d);
        put_text(report->out, "event_id", slice_of(id));
    } else {
        fputs(",\"dedup_key\":null,\"event_id\":null", report->out);
    }
    put_answer(report->out, d);
    fputs("}\n", report->out);
}

/* What never became a request: the answer is that of the edge's HTTP layer. */
static void report_malformed(struct report *report, const char *reason)
{
    struct delivery d = {.outcome = OUTCOME_BAD_REQUEST};
    bool first = true;
    put_head(report);
    put_check(report->out, &first, "request", false, reason);
    fputs("],\"event_type\":null,\"external_id\":null,\"dedup_key\":null,\"event_id\":null",
          report->out);
    put_answer(report->out, &d);
    fputs("}\n", report->out);
}

/* The path's token, when it is one of the secrets; else nothing, which no token equals. */
static struct slice known_token(const struct platforms *platforms, const struct inbound *in,
                                const struct keyring *secrets)
{
    struct route route;
    if (route_find(platforms, in, &route) == OUTCOME_NONE && route.endpoint.len > 0) {
        for (size_t i = 0; i < secrets->count; i++) {
            if (secret_equals(secrets->secrets[i], route.endpoint))
                return route.endpoint;
        }
    }
    return (struct slice){"", 0};
}

static int judge(const struct arguments *args, const struct platforms *platforms,
                 const struct keyring *secrets)
{
    size_t len;
    const char *reason = NULL;
    char *bytes = sample_load(args->request, &len, &reason);
    if (bytes == NULL) {
        fprintf(stderr, "hookgate verify: %s: %s\n", args->request, reason);
        return 2;
    }
    struct report report = {.out = stdout, .platform = args->platform};
    struct sample *sample = xcalloc(1, sizeof *sample);
    if (sample_parse(bytes, len, sample, &reason)) {
        sample->in.received_wall_us = args->now_wall_us;
        struct delivery_override override = {
            .secrets = secrets,
            .workspace = args->workspace,
            .now_wall_us = args->now_wall_us,
            .endpoint_token = known_token(platforms, &sample->in, secrets),
        };
        char origin[SAMPLE_ORIGIN_MAX];
        struct delivery_env env = {
            .platforms = platforms,
            .json = json_reader_new(BODY_MAX),
            .metrics = metrics_shard_new(),
            .base_url = sample_origin(sample, origin),
            .body_max = BODY_MAX,
            .headers_max = SIZE_MAX,
            .answer_us = 2500000,
            .override = &override,
        };
        delivery_start(&env, &sample->in, on_done, &report);
        json_reader_free(env.json);
    } else {
        report_malformed(&report, reason);
    }
    free(sample);
    free(bytes);
    return report.authentic ? 0 : 1;
}

static bool read_time(const char *text, int64_t *ret_wall_us)
{
    char *end;
    errno = 0;
    long long seconds = strtoll(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || seconds > 253402300799)
        return false;
    *ret_wall_us = seconds * 1000000;
    return true;
}

/* -1, or the exit status with which to end now. */
static int read_arguments(int argc, char **argv, struct arguments *ret)
{
    const char *at = NULL;
    const struct command_option known[] = {{"secret-file", .value = &ret->secret_file},
                                           {"at", .value = &at},
                                           {"workspace", .value = &ret->workspace},
                                           {"platforms", .value = &ret->platforms},
                                           {0}};
    int words, status = options_read(argc, argv, known, usage, &words);
    if (status >= 0)
        return status;
    if (at != NULL && !read_time(at, &ret->now_wall_us))
        return options_refuse("verify", usage, "--at takes whole seconds of Unix time");
    if (words != 2 || ret->secret_file == NULL)
        return options_refuse("verify", usage, "it needs PLATFORM, --secret-file and REQUEST");
    if (strlen(ret->workspace) > WORKSPACE_MAX)
        return options_refuse("verify", usage, "--workspace is longer than %d bytes",
                              WORKSPACE_MAX);
    ret->platform = argv[argc - 2];
    ret->request = argv[argc - 1];
    return -1;
}

int command_verify(int argc, char **argv)
{
    struct arguments args = {
        .workspace = "-", .platforms = options_platforms(), .now_wall_us = clock_wall_us()};
    int status = read_arguments(argc, argv, &args);
    if (status >= 0)
        return status;

    struct problems problems = {0};
    const char *const only[] = {args.platform, NULL};
    struct platforms *platforms = platforms_load(args.platforms, NULL, only, &problems);
    struct keyring secrets = {0};
    if (platforms != NULL &&
        keyring_add_file(&secrets, platforms_at(platforms, 0),
                         &(struct keyring_file){.path = args.secret_file}, &problems))
        status = judge(&args, platforms, &secrets);
    else
        status = 2;
    problems_print(&problems);
    problems_release(&problems);
    keyring_release(&secrets);
    platforms_free(platforms);
    if (fflush(stdout) != 0)
        status = 2;
    return status;
}
