/* Every platforms/NAME/samples/NN-name.http through the loader and the steps of the edge: one case
 * each, made at run time, and checks that each folder proves both what it takes and what it
 * refuses. A note that is not known here is an error, so that none is silently without effect. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "delivery.h"
#include "delivery_answer.h"
#include "json.h"
#include "sample.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <glob.h>
#include <stdio.h>

#define CASES_MAX 2000
#define ACCEPT_MIN 4
#define REFUSE_MIN 8

static struct platforms *platforms;
static struct json_reader *reader;
static struct metrics *metrics;

/* What a delivery came to, copied while it lives. */
struct verdict {
    const char *outcome;
    char type[EVENT_TYPE_MAX + 1];
    char id[EVENT_EXTERNAL_ID_MAX + 1];
    struct delivery_answer answer;
};

static void copy_text(char *to, struct slice from)
{
    memcpy(to, from.ptr ? from.ptr : "", from.len);
    to[from.len] = '\0';
}

static void on_done(struct delivery *d, void *context)
{
    struct verdict *verdict = context;
    verdict->outcome = outcome_info(d->outcome)->name;
    if (d->id_known) {
        copy_text(verdict->type, d->event.type);
        copy_text(verdict->id, d->event.external_id);
    }
    delivery_answer(d, &verdict->answer);
}

static bool is_known_note(struct slice key)
{
    static const char *const keys[] = {"expect", "now",         "secret",
                                       "answer", "external_id", "event_type"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (slice_is(key, keys[i]))
            return true;
    }
    return false;
}

static void note_text(const struct sample *sample, const char *key, const char *otherwise, char *to,
                      size_t size)
{
    struct slice value = sample_note(sample, key);
    if (value.ptr == NULL)
        value = slice_of(otherwise);
    assert_true(value.len < size);
    copy_text(to, value);
}

static void read_secrets(const struct platform *platform, const struct sample *sample,
                         struct keyring *ret)
{
    char name[64], path[4096];
    note_text(sample, "secret", "secret", name, sizeof name);
    snprintf(path, sizeof path, "%s/samples/%s", platform->directory, name);
    struct problems problems = {0};
    bool fine = keyring_add_file(ret, platform, &(struct keyring_file){.path = path}, &problems);
    problems_print(&problems);
    problems_release(&problems);
    assert_true(fine);
}

/* The path's last word, when it is one of the secrets. */
static struct slice known_token(const struct inbound *in, const struct keyring *secrets)
{
    struct route route;
    if (route_find(platforms, in, &route) == OUTCOME_NONE) {
        for (size_t i = 0; i < secrets->count; i++) {
            if (secret_equals(secrets->secrets[i], route.endpoint))
                return route.endpoint;
        }
    }
    return (struct slice){"", 0};
}

static void judge(const struct platform *platform, struct sample *sample, struct verdict *verdict)
{
    struct keyring secrets = {0};
    read_secrets(platform, sample, &secrets);
    char now[32];
    note_text(sample, "now", "0", now, sizeof now);
    struct delivery_override override = {
        .secrets = &secrets,
        .workspace = "-",
        .now_wall_us = strtoll(now, NULL, 10) * 1000000,
        .endpoint_token = known_token(&sample->in, &secrets),
    };
    char origin[SAMPLE_ORIGIN_MAX];
    struct delivery_env env = {
        .platforms = platforms,
        .json = reader,
        .metrics = metrics,
        .base_url = sample_origin(sample, origin),
        .body_max = 1 << 20,
        .headers_max = 32768,
        .answer_us = 2500000,
        .override = &override,
    };
    delivery_start(&env, &sample->in, on_done, verdict);
    keyring_release(&secrets);
}

static void lower(char *text)
{
    for (; *text != '\0'; text++) {
        if (*text >= 'A' && *text <= 'Z')
            *text = (char)(*text - 'A' + 'a');
    }
}

static void compare(const struct sample *sample, const struct verdict *verdict)
{
    char outcome[64], text[1024];
    snprintf(outcome, sizeof outcome, "%s", verdict->outcome);
    lower(outcome);
    note_text(sample, "expect", "", text, sizeof text);
    assert_string_equal(outcome, text);
    /* An accepted sample says by what it is known. */
    note_text(sample, "external_id", "", text, sizeof text);
    assert_string_equal(verdict->id, text);
    note_text(sample, "event_type", "", text, sizeof text);
    assert_string_equal(verdict->type, text);
    if (sample_note(sample, "answer").ptr != NULL) {
        note_text(sample, "answer", "", text, sizeof text);
        assert_int_equal(verdict->answer.len, strlen(text));
        assert_memory_equal(verdict->answer.body, text, strlen(text));
    }
}

static const struct platform *platform_of(const char *path)
{
    for (size_t i = 0; i < platforms_count(platforms); i++) {
        const struct platform *platform = platforms_at(platforms, i);
        size_t len = strlen(platform->directory);
        if (strncmp(path, platform->directory, len) == 0 && path[len] == '/')
            return platform;
    }
    return NULL;
}

static void sample_is_judged_as_it_says(void **state)
{
    const char *path = *state;
    const struct platform *platform = platform_of(path);
    assert_non_null(platform);
    size_t len;
    const char *reason = NULL;
    char *bytes = sample_load(path, &len, &reason);
    assert_non_null(bytes);
    struct sample sample;
    struct verdict *verdict = xcalloc(1, sizeof *verdict);
    if (sample_parse(bytes, len, &sample, &reason))
        judge(platform, &sample, verdict);
    else
        verdict->outcome = outcome_info(OUTCOME_BAD_REQUEST)->name;
    for (size_t i = 0; i < sample.note_count; i++)
        assert_true(is_known_note(sample.notes[i].key));
    compare(&sample, verdict);
    free(verdict);
    free(bytes);
}

static void folder_proves_accept_and_refuse(void **state)
{
    const struct platform *platform = *state;
    char pattern[4096];
    snprintf(pattern, sizeof pattern, "%s/samples/*.http", platform->directory);
    glob_t files = {0};
    assert_int_equal(glob(pattern, 0, NULL, &files), 0);
    int accepted = 0, unauthorized = 0, refused = 0;
    for (size_t i = 0; i < files.gl_pathc; i++) {
        size_t len;
        const char *reason;
        struct sample sample;
        char *bytes = sample_load(files.gl_pathv[i], &len, &reason);
        assert_non_null(bytes);
        (void)!sample_parse(bytes, len, &sample, &reason);
        struct slice expect = sample_note(&sample, "expect");
        bool accept = slice_is(expect, "accepted");
        accepted += accept;
        refused += !accept;
        unauthorized += slice_is(expect, "signature_mismatch");
        free(bytes);
    }
    globfree(&files);
    assert_true(accepted >= ACCEPT_MIN);
    assert_true(refused >= REFUSE_MIN);
    assert_true(unauthorized >= 1);
}

static char *shared_directory(void)
{
    const char *source = getenv("HOOKGATE_SOURCE");
    char path[4096];
    snprintf(path, sizeof path, "%s/platforms", source ? source : ".");
    return xstrdup(path);
}

static size_t add_cases(struct CMUnitTest *tests, const char *directory, glob_t *files)
{
    size_t count = 0;
    for (size_t i = 0; i < platforms_count(platforms); i++) {
        struct platform *platform = platforms_at(platforms, i);
        tests[count++] = (struct CMUnitTest){.name = platform->name,
                                             .test_func = folder_proves_accept_and_refuse,
                                             .initial_state = platform};
    }
    for (size_t i = 0; i < files->gl_pathc && count < CASES_MAX; i++)
        tests[count++] = (struct CMUnitTest){.name = files->gl_pathv[i] + strlen(directory) + 1,
                                             .test_func = sample_is_judged_as_it_says,
                                             .initial_state = files->gl_pathv[i]};
    return count;
}

int main(void)
{
    char *directory = shared_directory();
    struct problems problems = {0};
    platforms = platforms_load(directory, NULL, NULL, &problems);
    problems_print(&problems);
    problems_release(&problems);
    if (platforms == NULL)
        return 1;
    reader = json_reader_new(1 << 20);
    metrics = metrics_shard_new();

    char pattern[4096];
    snprintf(pattern, sizeof pattern, "%s/*/samples/*.http", directory);
    glob_t files = {0};
    if (glob(pattern, 0, NULL, &files) != 0)
        return 1;
    struct CMUnitTest *tests = xcalloc(CASES_MAX, sizeof *tests);
    size_t count = add_cases(tests, directory, &files);
    int failed = _cmocka_run_group_tests("samples", tests, count, NULL, NULL);
    free(tests);
    globfree(&files);
    json_reader_free(reader);
    platforms_free(platforms);
    free(directory);
    return failed;
}
