/* The whole path of a webhook: a raw request through the step table with every shipped platform, a
 * directory and sightings. It runs twice. With the samples' secrets each outcome must fit the step
 * it came from; with secrets that no input can know nothing may be recorded but what an endpoint's
 * token lets in. Runs in the source directory. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "delivery.h"
#include "delivery_answer.h"
#include "directory.h"
#include "json.h"
#include "log.h"
#include "sample.h"
#include "secret.h"
#include "sighting.h"

#include <stdio.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

#define TOKEN "fuzz-token-0123456789" /* of each platform's endpoint */
#define BODY_MAX (1u << 20)

static struct platforms *platforms;
static struct json_reader *reader;
static struct metrics *metrics;
static struct directory *directory;
static struct sighting_book *book;
static struct sightings *seen;
static struct integration *integrations[64];
static struct keyring known[64], unknown[64];

/* Accounts and addresses are those of the samples. */
static void add_integration(size_t index, const char *platform)
{
    static const char *const accounts[] = {"AAAAAABBBB", "x1yCzABCDEfg23HiJKl4mN"};
    static const char *const emails[] = {"ana@example.com"}, *const domains[] = {"example.org"};
    char id[37];
    snprintf(id, sizeof id, "00000000-0000-4000-8000-%012zu", index);
    integrations[index] = directory_add(directory, &(struct directory_row){.integration_id = id,
                                                                           .workspace = "w",
                                                                           .platform = platform,
                                                                           .status = "connected",
                                                                           .token = TOKEN,
                                                                           .accounts = accounts,
                                                                           .account_count = 2,
                                                                           .emails = emails,
                                                                           .email_count = 1,
                                                                           .domains = domains,
                                                                           .domain_count = 1});
    assert(integrations[index] != NULL);
}

/* The samples' own, and one that each platform's schemes can decode and nobody signs with. */
static void add_secrets(size_t index)
{
    const struct platform *platform = platforms_at(platforms, index);
    char path[4096];
    struct problems problems = {0};
    snprintf(path, sizeof path, "%s/samples/secret", platform->directory);
    if (!keyring_add_file(&known[index], platform, &(struct keyring_file){.path = path}, &problems))
        known[index].count = 0; /* Otter has none */
    problems_release(&problems);
    static const char *const others[] = {
        "nobody can know this", "whsec_bm9ib2R5IGNhbiBrbm93IHRoaXMgb25l",
        "bm9ib2R5IGNhbiBrbm93IHRoaXMgb25l", "6e6f626f64792063616e206b6e6f772074686973206f6e65"};
    const char *reason;
    for (size_t i = 0; i < 4 && unknown[index].count == 0; i++) {
        struct secret *secret = secret_new(platform, "unknown", slice_of(others[i]), 0, &reason);
        if (secret != NULL)
            unknown[index].secrets[unknown[index].count++] = secret;
    }
    assert(unknown[index].count == 1);
}

static void prepare(void)
{
    struct problems problems = {0};
    log_set_level(LOG_ERROR);
    platforms = platforms_load("platforms", NULL, NULL, &problems);
    problems_print(&problems);
    assert(platforms != NULL && platforms_count(platforms) <= sizeof known / sizeof *known);
    reader = json_reader_new(BODY_MAX);
    metrics = metrics_shard_new();
    book = sighting_book_new(64, metrics);
    seen = sightings_new(64, metrics);
    directory = directory_new(NULL);
    for (size_t i = 0; i < platforms_count(platforms); i++) {
        add_secrets(i);
        add_integration(i, platforms_at(platforms, i)->name);
    }
}

struct verdict {
    bool done, may_match;
};

static void check_answer(const struct delivery *d)
{
    struct delivery_answer answer;
    delivery_answer(d, &answer);
    assert(answer.len > 0 && answer.len <= sizeof answer.body);
    assert(answer.status == 200 || (answer.status >= 400 && answer.status <= 503));
    assert((answer.status == 503 || answer.status == 429) == (answer.retry_after_s > 0));
}

static bool let_in_by_token(const struct delivery *d)
{
    return d->platform->token_authenticates && d->route.endpoint.len > 0;
}

static void on_done(struct delivery *d, void *context)
{
    struct verdict *verdict = context;
    assert(!verdict->done);
    verdict->done = true;
    check_answer(d);
    /* Nothing unverified is parsed or known by more than its platform. */
    if (d->step <= DELIVERY_VERIFY)
        assert(d->json == NULL && d->event.type.len == 0 && !d->id_known);
    else
        assert(let_in_by_token(d) || (d->verification.secret != NULL && verdict->may_match));
    if (d->outcome == OUTCOME_ACCEPTED)
        assert(d->workspace.len == 1 && d->event.external_id.len > 0 && d->event.type.len > 0);
}

/* The pipeline behind: takes it at once. */
static void record(struct delivery_env *env, struct delivery *d)
{
    (void)env;
    assert(d->in == NULL && d->id_known && d->integration != NULL);
    delivery_finish(d, OUTCOME_ACCEPTED, NULL);
}

static void run(const struct sample *sample, struct keyring *secrets, bool may_match)
{
    for (size_t i = 0; i < platforms_count(platforms); i++)
        platforms_at(platforms, i)->secrets = integrations[i]->secrets = secrets[i];
    struct delivery_env env = {
        .platforms = platforms,
        .directory = directory,
        .json = reader,
        .metrics = metrics,
        .sightings = book,
        .base_url = "https://hooks.example.com",
        .body_max = BODY_MAX,
        .headers_max = 32768,
        .answer_us = 2500000,
        .record = record,
    };
    struct verdict verdict = {.may_match = may_match};
    delivery_start(&env, &sample->in, on_done, &verdict);
    assert(verdict.done);
    sighting_book_turn(book);
    sighting_book_read(book, seen);
    assert(sightings_count(seen) <= 1);
    sightings_clear(seen);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    if (platforms == NULL)
        prepare();
    char *bytes = xmalloc(size + 1);
    if (size > 0)
        memcpy(bytes, data, size);
    bytes[size] = '\0';
    struct sample *sample = xmalloc(sizeof *sample);
    const char *reason;
    if (sample_parse(bytes, size, sample, &reason)) {
        struct slice now = sample_note(sample, "now");
        sample->in.received_wall_us =
            now.ptr != NULL && now.len < 12 ? strtoll(now.ptr, NULL, 10) * 1000000 : 0;
        memcpy(sample->in.peer, "192.0.2.1", sizeof "192.0.2.1");
        run(sample, known, true);
        run(sample, unknown, false);
    }
    free(sample);
    free(bytes);
    return 0;
}
