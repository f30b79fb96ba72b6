/* The command line of `hookgate send`, and its help. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "send_options.h"

#include "clock.h"
#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <sys/random.h>

#define CONCURRENCY_MAX 4096

static int usage(FILE *out, int status)
{
    fputs(
        "usage: hookgate send PLATFORM --url URL --secret-file FILE [OPTION …]\n\n"
        "Posts fresh, unique, signed events made from the platform's samples. A URL without a path "
        "gets\n/webhooks/PLATFORM; one with a path (an endpoint's) is used as it is.\n\n"
        "  --secret-file FILE      its first line signs; may be left out where the endpoint's "
        "token\n"
        "                          is the credential\n"
        "  --event TYPE            events of this type only\n"
        "  --account ID            account id in the body; --email ADDRESS likewise\n"
        "  --count N | --seconds S how many (default 1) or how long\n"
        "  --rate R                so many a second, at moments that are fixed beforehand\n"
        "  --concurrency C         connections (default 1; 16 with --rate or --seconds)\n"
        "  --size BYTES            bodies of exactly this size, where the sample is smaller\n"
        "  --duplicate-rate P      share of requests that repeat one of the last 1,000 events\n"
        "  --bad-signature-rate P  share of requests with one wrong bit in the signature\n"
        "  --acked FILE            append the external id of each event answered accepted or\n"
        "                          duplicate, as the answer comes\n"
        "  --timeout S             for each request (default 5)\n"
        "  --ca FILE               authority of the server's certificate, else $HOOKGATE_CA, else\n"
        "                          the system's; without --ca a loopback server needs none\n"
        "  --platforms DIR         default platforms/ of the working directory, then the "
        "installed\n"
        "  --seed N                the same seed makes the same ids\n"
        "  --json                  one JSON object at the end\n\n"
        "Exit status 0: every event was answered accepted or duplicate, every bad signature 401.\n",
        out);
    return status;
}

static bool parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *ret)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || *text < '0' || *text > '9' || *end != '\0' || value < min || value > max)
        return false;
    *ret = value;
    return true;
}

static bool parse_real(const char *text, double min, double max, double *ret)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= min && value <= max))
        return false;
    *ret = value;
    return true;
}

enum {
    URL = 256,
    SECRET_FILE,
    EVENT,
    ACCOUNT,
    EMAIL,
    COUNT,
    SECONDS,
    RATE,
    CONCURRENCY,
    SIZE,
    DUPLICATE_RATE,
    BAD_RATE,
    ACKED,
    TIMEOUT,
    CA,
    PLATFORMS,
    SEED,
    JSON,
    HELP
};

static const struct option long_options[] = {
    {"url", required_argument, NULL, URL},
    {"secret-file", required_argument, NULL, SECRET_FILE},
    {"event", required_argument, NULL, EVENT},
    {"account", required_argument, NULL, ACCOUNT},
    {"email", required_argument, NULL, EMAIL},
    {"count", required_argument, NULL, COUNT},
    {"seconds", required_argument, NULL, SECONDS},
    {"rate", required_argument, NULL, RATE},
    {"concurrency", required_argument, NULL, CONCURRENCY},
    {"size", required_argument, NULL, SIZE},
    {"duplicate-rate", required_argument, NULL, DUPLICATE_RATE},
    {"bad-signature-rate", required_argument, NULL, BAD_RATE},
    {"acked", required_argument, NULL, ACKED},
    {"timeout", required_argument, NULL, TIMEOUT},
    {"ca", required_argument, NULL, CA},
    {"platforms", required_argument, NULL, PLATFORMS},
    {"seed", required_argument, NULL, SEED},
    {"json", no_argument, NULL, JSON},
    {"help", no_argument, NULL, HELP},
    {0},
};

static bool take_option(struct send_options *options, int option, const char *value)
{
    switch (option) {
    case URL:
        return (options->url = value) != NULL;
    case SECRET_FILE:
        return (options->secret_file = value) != NULL;
    case EVENT:
        return *(options->forge.event = value) != '\0';
    case ACCOUNT:
        return *(options->forge.account = value) != '\0';
    case EMAIL:
        return *(options->forge.email = value) != '\0';
    case COUNT:
        return parse_number(value, 1, UINT64_MAX / 2, &options->count);
    case SECONDS:
        return parse_real(value, 0.001, 1e7, &options->seconds);
    case RATE:
        return parse_real(value, 0.001, 1e6, &options->rate);
    case CONCURRENCY:
        return parse_number(value, 1, CONCURRENCY_MAX, &options->concurrency);
    case SIZE:
        return parse_number(value, 0, 64u << 20, &options->size);
    case DUPLICATE_RATE:
        return parse_real(value, 0, 1, &options->duplicate_rate);
    case BAD_RATE:
        return parse_real(value, 0, 1, &options->bad_rate);
    case ACKED:
        return (options->acked = value) != NULL;
    case TIMEOUT:
        return parse_real(value, 0.001, 3600, &options->timeout);
    case CA:
        return (options->ca = value) != NULL;
    case PLATFORMS:
        return (options->platforms = value) != NULL;
    case SEED:
        return options->has_seed = parse_number(value, 0, UINT64_MAX, &options->forge.seed);
    case JSON:
        return options->json = true;
    default:
        return false;
    }
}

int send_options_parse(int argc, char **argv, struct send_options *options)
{
    opterr = 0;
    for (int option; (option = getopt_long(argc, argv, ":h", long_options, NULL)) != -1;) {
        if (option == HELP || option == 'h')
            return usage(stdout, 0);
        if (option == ':')
            return options_refuse("send", usage, "%s needs a value", argv[optind - 1]);
        if (option == '?')
            return options_refuse("send", usage, "there is no option '%s'", argv[optind - 1]);
        if (!take_option(options, option, optarg)) {
            fprintf(stderr, "hookgate send: --%s can't be '%s'\n", long_options[option - URL].name,
                    optarg);
            return 2;
        }
    }
    const char *problem = NULL;
    if (argc - optind != 1)
        problem = "it needs one PLATFORM";
    else if (options->url == NULL)
        problem = "it needs --url";
    else if (options->count > 0 && options->seconds > 0)
        problem = "either --count or --seconds";
    if (problem != NULL)
        return options_refuse("send", usage, "%s", problem);
    options->platform = argv[optind];
    bool load = options->rate > 0 || options->seconds > 0;
    if (options->count == 0 && options->seconds <= 0)
        options->count = 1;
    if (options->concurrency == 0)
        options->concurrency = load ? 16 : 1;
    options->forge.size = options->size;
    if (!options->has_seed && getrandom(&options->forge.seed, sizeof options->forge.seed, 0) < 0)
        options->forge.seed = (uint64_t)clock_wall_us();
    return -1;
}
