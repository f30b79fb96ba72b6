/* What the forge makes is what the gateway accepts: for the shipped platforms and for folders with
 * schemes that those don't use. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "extract.h"
#include "forge.h"
#include "freshness.h"
#include "json.h"
#include "verify.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define NOW_US INT64_C(1750000000123456)

struct bench {
    char directory[256];
    struct problems problems;
    struct platforms *platforms;
    const struct platform *platform;
    struct keyring keyring;
    struct forge_options options;
    struct forge *forge;
    struct json_reader *json;
    const struct signature_scheme *matched; /* of the last that verified */
    struct slice timestamp;                 /* likewise */
};

static const char *const shipped[] = {
    "zoom",        "fireflies",         "otter",  "support-rag", "rag-assistant", "loki",
    "hr-platform", "standard-webhooks", "stripe", "slack",       "github"};
#define SHIPPED (sizeof shipped / sizeof *shipped)

static void load(struct bench *bench, const char *directory, const char *name, const char *secret)
{
    const char *only[] = {name, NULL};
    bench->platforms = platforms_load(directory, NULL, only, &bench->problems);
    problems_print(&bench->problems);
    assert_non_null(bench->platforms);
    bench->platform = platforms_find(bench->platforms, slice_of(name));
    const char *reason = NULL;
    bench->keyring.secrets[0] = secret_new(bench->platform, "test", slice_of(secret), 0, &reason);
    bench->keyring.count = 1;
    assert_non_null(bench->keyring.secrets[0]);
    bench->options = (struct forge_options){.seed = 7,
                                            .target = "/webhooks/x?a=b",
                                            .authority = "hooks.example.com",
                                            .origin = "https://hooks.example.com"};
    bench->json = json_reader_new(1 << 20);
}

static void load_shipped(struct bench *bench, const char *name)
{
    char directory[1024];
    snprintf(directory, sizeof directory, "%s/platforms", getenv("HOOKGATE_SOURCE"));
    load(bench, directory, name,
         strcmp(name, "standard-webhooks") == 0 ? "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
                                                : "a secret of the test");
}

static void start(struct bench *bench)
{
    bench->forge =
        forge_new(bench->platform, bench->keyring.secrets[0], &bench->options, &bench->problems);
    problems_print(&bench->problems);
    assert_non_null(bench->forge);
}

static void remove_folder(const struct bench *bench)
{
    static const char *const names[] = {"/other/samples/10.http", "/other/platform.yaml",
                                        "/other/samples", "/other", ""};
    char path[512];
    for (size_t i = 0; i < 5; i++) {
        snprintf(path, sizeof path, "%s%s", bench->directory, names[i]);
        assert_int_equal(remove(path), 0);
    }
}

static void release(struct bench *bench)
{
    forge_free(bench->forge);
    json_reader_free(bench->json);
    keyring_release(&bench->keyring);
    platforms_free(bench->platforms);
    problems_release(&bench->problems);
    if (bench->directory[0] != '\0')
        remove_folder(bench);
}

static int begin(void **state)
{
    *state = xcalloc(1, sizeof(struct bench));
    return 0;
}

static int end(void **state)
{
    release(*state);
    free(*state);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

static enum outcome verify(struct bench *bench, const struct forged *forged)
{
    struct verification verification = {.scheme = NULL};
    enum outcome outcome = verify_signature(bench->platform, &bench->keyring, forged->in, NULL,
                                            bench->options.origin, NOW_US, &verification);
    bench->matched = verification.scheme;
    bench->timestamp = verification.timestamp;
    return outcome;
}

/* What stands in the body or was signed as the time is the present. */
static void assert_fresh(struct bench *bench, const struct forged *forged)
{
    const struct json *json;
    assert_int_equal(json_read(bench->json, forged->in->body, &json), OUTCOME_NONE);
    struct platform strict = *bench->platform;
    strict.timestamp.past_us = strict.timestamp.future_us = 1000000;
    assert_int_equal(freshness_check(&strict, bench->timestamp, json, NOW_US), OUTCOME_NONE);
}

/* Type and external id as one text. */
static void identify(struct bench *bench, const struct forged *forged, char *key, size_t size)
{
    const struct json *json;
    struct extract_buffer buffer = {.len = 0};
    struct event event = {0};
    const char *detail = NULL;
    assert_int_equal(json_read(bench->json, forged->in->body, &json), OUTCOME_NONE);
    assert_int_equal(
        extract_event(bench->platform, forged->in, json, bench->matched, &buffer, &event, &detail),
        OUTCOME_NONE);
    snprintf(key, size, "%.*s %.*s", (int)event.type.len, event.type.ptr,
             (int)event.external_id.len, event.external_id.ptr);
}

static int compare(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* All at one moment, which is the hardest. */
static void expect_unique_and_signed(struct bench *bench)
{
    enum { MANY = 3000, KEY = 700 };
    char *keys = xcalloc(MANY, KEY);
    struct forged forged;
    for (size_t i = 0; i < MANY; i++) {
        forge_make(bench->forge, NOW_US, 0, &forged);
        assert_false(forged.repeated);
        assert_int_equal(verify(bench, &forged), OUTCOME_NONE);
        assert_fresh(bench, &forged);
        identify(bench, &forged, keys + i * KEY, KEY);
    }
    qsort(keys, MANY, KEY, compare);
    for (size_t i = 1; i < MANY; i++)
        assert_string_not_equal(keys + (i - 1) * KEY, keys + i * KEY);
    free(keys);
}

static void shipped_platforms_are_unique_and_signed(void **state)
{
    (void)state;
    for (size_t i = 0; i < SHIPPED; i++) {
        struct bench bench = {.forge = NULL};
        load_shipped(&bench, shipped[i]);
        start(&bench);
        assert_false(problems_any(&bench.problems)); /* what is not fit is left out silently */
        expect_unique_and_signed(&bench);
        release(&bench);
    }
}

static void bad_signatures_are_mismatches(void **state)
{
    struct bench *bench = *state;
    load_shipped(bench, "zoom");
    start(bench);
    struct forged forged;
    for (int i = 0; i < 200; i++) {
        forge_make(bench->forge, NOW_US, FORGE_BAD_SIGNATURE, &forged);
        assert_int_equal(verify(bench, &forged), OUTCOME_SIGNATURE_MISMATCH);
    }
    forge_make(bench->forge, NOW_US, FORGE_REPEAT, &forged);
    assert_false(forged.repeated); /* the bad ones never came in */
    assert_int_equal(verify(bench, &forged), OUTCOME_NONE);
}

static void repeats_are_equal_in_key_and_signed_anew(void **state)
{
    (void)state;
    for (size_t i = 0; i < SHIPPED; i++) {
        struct bench bench = {.forge = NULL};
        load_shipped(&bench, shipped[i]);
        start(&bench);
        struct forged forged;
        char keys[50][700], key[700];
        for (int j = 0; j < 50; j++) {
            forge_make(bench.forge, NOW_US, 0, &forged);
            assert_int_equal(verify(&bench, &forged), OUTCOME_NONE);
            identify(&bench, &forged, keys[j], sizeof keys[j]);
        }
        for (int j = 0; j < 200; j++) {
            int k = 0;
            forge_make(bench.forge, NOW_US + 5000000, FORGE_REPEAT, &forged);
            assert_true(forged.repeated);
            assert_int_equal(verify(&bench, &forged), OUTCOME_NONE);
            struct slice stamp = SLICE_LITERAL("1750000005");
            inbound_header_find(forged.in, "x-zm-request-timestamp", &stamp);
            assert_true(slice_is(stamp, "1750000005")); /* of now, not of the first time */
            identify(&bench, &forged, key, sizeof key);
            while (k < 50 && strcmp(key, keys[k]) != 0)
                k++;
            assert_true(k < 50);
        }
        release(&bench);
    }
}

static void sizes_are_exact(void **state)
{
    (void)state;
    static const size_t sizes[] = {1500, 6500, 6501, 100000};
    for (size_t i = 0; i < 4; i++) {
        struct bench bench = {.forge = NULL};
        load_shipped(&bench, "zoom");
        bench.options.size = sizes[i];
        bench.options.event = "recording.completed";
        start(&bench);
        struct forged forged;
        char key[700], wanted[64];
        for (int j = 0; j < 10; j++) {
            forge_make(bench.forge, NOW_US, 0, &forged);
            assert_int_equal(forged.in->body.len, sizes[i]);
            assert_int_equal(verify(&bench, &forged), OUTCOME_NONE);
            identify(&bench, &forged, key, sizeof key);
        }
        snprintf(wanted, sizeof wanted, "\r\ncontent-length: %zu\r\n", sizes[i]);
        assert_non_null(memmem(forged.head.ptr, forged.head.len, wanted, strlen(wanted)));
        release(&bench);
    }
}

/* Each size from the sample's own on, where no member fits yet. */
static void small_paddings_are_exact(void **state)
{
    struct bench *bench = *state;
    load_shipped(bench, "fireflies");
    bench->options.event = "meeting.summarized";
    start(bench);
    struct forged forged;
    forge_make(bench->forge, NOW_US, 0, &forged);
    size_t own = forged.in->body.len;
    for (size_t more = 1; more < 40; more++) {
        forge_free(bench->forge);
        bench->options.size = own + more;
        start(bench);
        char key[700];
        forge_make(bench->forge, NOW_US, 0, &forged);
        assert_int_equal(forged.in->body.len, own + more);
        identify(bench, &forged, key, sizeof key);
    }
}

static void account_type_and_time_are_written(void **state)
{
    struct bench *bench = *state;
    load_shipped(bench, "zoom");
    bench->options.account = "acc-\"1";
    bench->options.event = "recording.completed";
    start(bench);
    struct forged forged;
    forge_make(bench->forge, NOW_US, 0, &forged);
    const struct json *json;
    struct slice text = {"", 0};
    assert_int_equal(json_read(bench->json, forged.in->body, &json), OUTCOME_NONE);
    assert_int_equal(json_text_at(json, "/payload/account_id", &text), JSON_FOUND);
    assert_true(slice_is(text, "acc-\"1"));
    assert_int_equal(json_text_at(json, "/event", &text), JSON_FOUND);
    assert_true(slice_is(text, "recording.completed"));
    assert_int_equal(json_text_at(json, "/event_ts", &text), JSON_FOUND);
    assert_true(slice_is(text, "1750000000123"));
    assert_int_equal(json_text_at(json, "/payload/object/uuid", &text), JSON_FOUND);
    assert_int_equal(text.len, 24);
    assert_memory_equal(text.ptr + 22, "==", 2);
    assert_int_equal(inbound_header_find(forged.in, "x-zm-request-timestamp", &text), 1);
    assert_true(slice_is(text, "1750000000"));
}

/* `send --account` reaches the workspace that the platform's rules look for, in every sample. */
static void accounts_are_written_where_they_are_read(void **state)
{
    (void)state;
    for (size_t i = 0; i < SHIPPED; i++) {
        struct bench bench = {.forge = NULL};
        load_shipped(&bench, shipped[i]);
        bench.options.account = "acc-1";
        if (bench.platform->account_count > 0)
            start(&bench);
        for (int j = 0; bench.forge != NULL && j < 100; j++) {
            struct forged forged;
            const struct json *json;
            struct extract_buffer buffer = {.len = 0};
            struct event event = {0};
            const char *detail = NULL;
            forge_make(bench.forge, NOW_US, 0, &forged);
            assert_int_equal(verify(&bench, &forged), OUTCOME_NONE);
            assert_int_equal(json_read(bench.json, forged.in->body, &json), OUTCOME_NONE);
            assert_int_equal(extract_event(bench.platform, forged.in, json, bench.matched, &buffer,
                                           &event, &detail),
                             OUTCOME_NONE);
            assert_true(slice_is(event.account, "acc-1"));
        }
        release(&bench);
    }
}

static void unknown_type_is_written(void **state)
{
    struct bench *bench = *state;
    load_shipped(bench, "zoom");
    bench->options.event = "phone.rang";
    start(bench);
    struct forged forged;
    forge_make(bench->forge, NOW_US, 0, &forged);
    assert_int_equal(verify(bench, &forged), OUTCOME_NONE);
    assert_non_null(memmem(forged.in->body.ptr, forged.in->body.len, "\"phone.rang\"", 12));
}

static void seed_decides(void **state)
{
    (void)state;
    char keys[3][700];
    for (size_t i = 0; i < 3; i++) {
        struct bench bench = {.forge = NULL};
        load_shipped(&bench, "zoom");
        bench.options.seed = i == 2 ? 8 : 7;
        start(&bench);
        struct forged forged;
        forge_make(bench.forge, NOW_US, 0, &forged);
        identify(&bench, &forged, keys[i], sizeof keys[i]);
        release(&bench);
    }
    assert_string_equal(keys[0], keys[1]);
    assert_string_not_equal(keys[0], keys[2]);
}

/* --- folders of other kinds ------------------------------------------------------------------- */

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void load_folder(struct bench *bench, const char *yaml, const char *sample,
                        const char *secret)
{
    char path[512];
    snprintf(bench->directory, sizeof bench->directory, "/tmp/test_forge.XXXXXX");
    assert_non_null(mkdtemp(bench->directory));
    snprintf(path, sizeof path, "%s/other", bench->directory);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/other/samples", bench->directory);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/other/platform.yaml", bench->directory);
    write_file(path, yaml);
    snprintf(path, sizeof path, "%s/other/samples/10.http", bench->directory);
    write_file(path, sample);
    load(bench, bench->directory, "other", secret);
}

static void pairs_with_a_time(void **state)
{
    struct bench *bench = *state;
    load_folder(bench,
                "name: other\ntitle: Other\ndocs: https://example.com/\nsignatures:\n"
                "  - algorithm: hmac-sha256\n    header: x-pairs\n    form: pairs\n"
                "    version: v1\n    message: \"{timestamp}.{body}\"\n"
                "timestamp: {pair: t, unit: s, tolerance: 300s}\n"
                "event_type: /type\nevents:\n  - type: paid\nid: [/id]\n"
                "limited: {status: 503, retry_after: 60s}\n",
                "# expect: accepted\nPOST /webhooks/other HTTP/1.1\nX-Pairs: t=1,v1=00\n\n"
                "{\"id\":\"evt_1\",\"type\":\"paid\",\"n\":1.50e3}\n",
                "whsec_text");
    start(bench);
    expect_unique_and_signed(bench);
    struct forged forged;
    forge_make(bench->forge, NOW_US, 0, &forged);
    assert_non_null(memmem(forged.in->body.ptr, forged.in->body.len, "\"id\":\"evt_", 10));
    assert_non_null(memmem(forged.in->body.ptr, forged.in->body.len, "1.50e3", 6));
    assert_non_null(memmem(forged.head.ptr, forged.head.len, "t=1750000000,v1=", 16));
}

static void list_with_a_signed_header_id(void **state)
{
    struct bench *bench = *state;
    load_folder(bench,
                "name: other\ntitle: Other\ndocs: https://example.com/\nsignatures:\n"
                "  - algorithm: hmac-sha256\n    header: webhook-signature\n    form: list\n"
                "    version: v1\n    encoding: base64\n    key: whsec\n"
                "    message: \"{header:webhook-id}.{timestamp}.{body}\"\n"
                "timestamp: {header: webhook-timestamp, unit: s, tolerance: 300s}\n"
                "event_type: /type\nevents:\n  - type: note.made\nid: [{header: webhook-id}]\n"
                "limited: {status: 503, retry_after: 60s}\n",
                "# expect: accepted\nPOST /webhooks/other HTTP/1.1\n"
                "Webhook-Id: msg_2mKqP0\nWebhook-Timestamp: 1\nWebhook-Signature: v1,AA==\n\n"
                "{\"type\":\"note.made\"}",
                "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    start(bench);
    expect_unique_and_signed(bench);
    struct forged forged;
    forge_make(bench->forge, NOW_US, FORGE_BAD_SIGNATURE, &forged);
    assert_int_equal(verify(bench, &forged), OUTCOME_SIGNATURE_MISMATCH);
}

/* A type that has no entry of its own is made by the rules of "*". */
static void any_type_by_its_own_id(void **state)
{
    struct bench *bench = *state;
    load_folder(bench,
                "name: other\ntitle: Other\nsignatures:\n"
                "  - {algorithm: hmac-sha256, header: x-sig, message: \"{body}\"}\n"
                "event_type: /type\nevents: [{type: \"*\", id: [/own]}]\nid: [/id]\n"
                "limited: {status: 503}\n",
                "# expect: accepted\nPOST /webhooks/other HTTP/1.1\n\n"
                "{\"id\":\"a\",\"own\":\"b\",\"type\":\"paid\"}",
                "text");
    start(bench);
    expect_unique_and_signed(bench);
}

#define OTHER(signature, id)                                                                       \
    "name: other\ntitle: Other\nsignatures: {" signature "}\nevent_type: {means: any}\n"           \
    "events: [{type: any}]\nid: [" id "]\nlimited: {status: 503}\n"
#define SIGNED "algorithm: hmac-sha256, header: x-sig, message: \"{body}\""

/* The address carries the secret, so there is nothing to sign. */
static void secret_in_the_query(void **state)
{
    struct bench *bench = *state;
    load_folder(bench, OTHER("algorithm: static, query: token", "/id"),
                "# expect: accepted\nPOST /webhooks/other?token=x HTTP/1.1\n\n{\"id\":7}", "text");
    bench->options.target = "/webhooks/other?token=text";
    start(bench);
    expect_unique_and_signed(bench);
}

/* The secret itself goes into the header, for Basic in base64. */
static void secret_in_a_header(void **state)
{
    (void)state;
    static const char *const signatures[] = {
        OTHER("algorithm: static, header: authorization, prefix: \"Bearer \"", "/id"),
        OTHER("algorithm: static, header: authorization, prefix: \"Basic \", encoding: base64",
              "/id")};
    static const char *const values[] = {"Bearer user:pass", "Basic dXNlcjpwYXNz"};
    for (size_t i = 0; i < 2; i++) {
        struct bench bench = {.forge = NULL};
        load_folder(&bench, signatures[i],
                    "# expect: accepted\nPOST /webhooks/other HTTP/1.1\n\n{\"id\":7}", "user:pass");
        start(&bench);
        expect_unique_and_signed(&bench);
        struct forged forged;
        struct slice value = {"", 0};
        forge_make(bench.forge, NOW_US, 0, &forged);
        assert_int_equal(inbound_header_find(forged.in, "authorization", &value), 1);
        assert_true(slice_is(value, values[i]));
        release(&bench);
    }
}

static void batch_of_several_events(void **state)
{
    struct bench *bench = *state;
    load_folder(bench, OTHER(SIGNED, "/*/id"),
                "# expect: accepted\nPOST /webhooks/other HTTP/1.1\n\n[{\"id\":1},{\"id\":2}]",
                "text");
    start(bench);
    expect_unique_and_signed(bench);
}

static void arrival_makes_unique(void **state)
{
    struct bench *bench = *state;
    load_folder(bench, OTHER(SIGNED, "arrival"),
                "# expect: accepted\nPOST /webhooks/other HTTP/1.1\n\n{}", "text");
    start(bench);
}

/* Neither an id nor a time: the body's digest is the key. */
static void nothing_but_the_digest(void **state)
{
    struct bench *bench = *state;
    load_folder(bench,
                "name: other\ntitle: Other\ndocs: https://example.com/\nsignatures:\n"
                "  - algorithm: hmac-sha256\n    header: x-signature\n    message: \"{body}\"\n"
                "event_type: /type\nevents:\n  - type: ping\n"
                "limited: {status: 503, retry_after: 60s}\n",
                "# expect: accepted\nPOST /webhooks/other HTTP/1.1\n\n{\"type\":\"ping\"}",
                "secret");
    start(bench);
    expect_unique_and_signed(bench);
}

static void numbers_stay_numbers(void **state)
{
    struct bench *bench = *state;
    load_folder(bench,
                "name: other\ntitle: Other\ndocs: https://example.com/\nsignatures:\n"
                "  - algorithm: hmac-sha256\n    header: x-signature\n    message: \"{body}\"\n"
                "event_type: /type\nevents:\n  - type: ping\nid: [[/a~1b/0/id, /t]]\n"
                "time: {json: /t, unit: rfc3339}\n"
                "limited: {status: 503, retry_after: 60s}\n",
                "# expect: accepted\nPOST /webhooks/other HTTP/1.1\n\n"
                "{\"type\":\"ping\",\"t\":\"2020-01-01T00:00:00.5Z\",\"a/b\":[{\"id\":42}]}",
                "secret");
    start(bench);
    expect_unique_and_signed(bench);
    struct forged forged;
    forge_make(bench->forge, NOW_US, 0, &forged);
    const char *id = memmem(forged.in->body.ptr, forged.in->body.len, "\"id\":", 5);
    assert_non_null(id);
    assert_int_equal(strspn(id + 5, "0123456789"), 15);
    assert_non_null(
        memmem(forged.in->body.ptr, forged.in->body.len, "\"2025-06-15T15:06:40.123Z\"", 26));
}

static void no_fit_sample_is_a_problem(void **state)
{
    struct bench *bench = *state;
    load_folder(bench,
                "name: other\ntitle: Other\ndocs: https://example.com/\nsignatures:\n"
                "  - algorithm: hmac-sha256\n    header: x-signature\n    message: \"{body}\"\n"
                "event_type: /type\nevents:\n  - type: ping\n"
                "limited: {status: 503, retry_after: 60s}\n",
                "# expect: bad_json\nPOST /webhooks/other HTTP/1.1\n\n{", "secret");
    assert_null(
        forge_new(bench->platform, bench->keyring.secrets[0], &bench->options, &bench->problems));
    assert_true(problems_any(&bench->problems));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shipped_platforms_are_unique_and_signed),
        TEST(bad_signatures_are_mismatches),
        cmocka_unit_test(repeats_are_equal_in_key_and_signed_anew),
        cmocka_unit_test(sizes_are_exact),
        TEST(small_paddings_are_exact),
        TEST(account_type_and_time_are_written),
        cmocka_unit_test(accounts_are_written_where_they_are_read),
        TEST(unknown_type_is_written),
        cmocka_unit_test(seed_decides),
        TEST(pairs_with_a_time),
        TEST(list_with_a_signed_header_id),
        TEST(any_type_by_its_own_id),
        TEST(secret_in_the_query),
        cmocka_unit_test(secret_in_a_header),
        TEST(batch_of_several_events),
        TEST(arrival_makes_unique),
        TEST(nothing_but_the_digest),
        TEST(numbers_stay_numbers),
        TEST(no_fit_sample_is_a_problem),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
