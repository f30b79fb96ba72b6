/* What is read from a verified body, on bodies that are missing, wrong or hostile in one place
 * each. The shipped platforms' samples cover the ordinary ones (test_samples.c). */
/* SPDX-License-Identifier: Apache-2.0 */
#include "extract.h"
#include "json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

static const char rules[] = "name: acme\n"
                            "title: Acme\n"
                            "endpoint_token: authenticates\n"
                            "event_type: [{header: x-event}, /event, {json: /old, means: a.b}]\n"
                            "hold_back_while: {json: /parts/*, is_not: [done]}\n"
                            "events:\n"
                            "  - {type: m.*}\n"
                            "  - {type: a.b, names: [A B], required: [[/id, /key]], "
                            "hold_back_while: {json: /p, is: [yes]}}\n"
                            "  - {type: m.own, id: [[/id, /at]]}\n"
                            "  - {type: h.x, id: [{header: x-id}]}\n"
                            "  - {type: d.x, id: [[/id, body-digest]]}\n"
                            "id: [/id, [/x, /y]]\n"
                            "time: {json: /at, unit: ms}\n"
                            "workspace: {account: [/account, /account2], email: [/mail, /mail2]}\n"
                            "limited: {status: 503}\n";

/* Two types from headers, of which one is signed. */
static const char signing_rules[] =
    "name: acme\n"
    "title: Acme\n"
    "signatures:\n"
    "  - {algorithm: hmac-sha256, header: a-sig, message: \"{header:a-type}.{body}\"}\n"
    "  - {algorithm: static, header: b-sig}\n"
    "event_type: [{header: a-type}, {header: x-type}, /type]\n"
    "events:\n"
    "  - {type: \"*\"}\n"
    "  - {type: n.*, id: [[/n, body-digest]]}\n"
    "  - {type: n.known, id: [/n]}\n"
    "limited: {status: 503}\n";

static struct platforms *platforms;
static struct json_reader *reader;
static struct inbound in;
static struct extract_buffer buffer;
static struct event event;
static const char *detail;
static const struct signature_scheme *matched;

static enum outcome extract(const char *body)
{
    const struct json *json;
    in.body = slice_of(body);
    assert_int_equal(json_read(reader, in.body, &json), OUTCOME_NONE);
    return extract_event(platforms_at(platforms, 0), &in, json, matched, &buffer, &event, &detail);
}

static void assert_id(const char *body, const char *id)
{
    assert_int_equal(extract(body), OUTCOME_NONE);
    assert_int_equal(event.external_id.len, strlen(id));
    assert_memory_equal(event.external_id.ptr, id, strlen(id));
}

static void assert_refused(const char *body, enum outcome outcome, const char *pointer)
{
    assert_int_equal(extract(body), outcome);
    if (pointer == NULL)
        assert_null(detail);
    else
        assert_string_equal(detail, pointer);
}

static void types_are_found(void **state)
{
    (void)state;
    assert_id("{\"event\":\"a.b\",\"id\":1}", "1");
    assert_true(slice_is(event.type, "a.b"));
    assert_id("{\"event\":\"A B\",\"id\":1}", "1");
    assert_true(slice_is(event.type, "a.b"));
    assert_id("{\"old\":{},\"id\":1}", "1");
    assert_true(slice_is(event.type, "a.b"));
    assert_id("{\"event\":\"m.new_1\",\"id\":1}", "1");
    assert_true(slice_is(event.type, "m.new_1"));
    assert_id("{\"event\":\"m.own\",\"id\":1,\"at\":2}", "1:2");

    assert_refused("{\"id\":1}", OUTCOME_FIELD_MISSING, "x-event");
    assert_refused("{\"event\":[],\"id\":1}", OUTCOME_FIELD_MISSING, "x-event");
    assert_refused("{\"event\":null,\"old\":null}", OUTCOME_FIELD_MISSING, "x-event");
    assert_refused("{\"event\":\"A.b\",\"id\":1}", OUTCOME_IGNORED_EVENT_TYPE, NULL);
    assert_refused("{\"event\":\"m.\",\"id\":1}", OUTCOME_IGNORED_EVENT_TYPE, NULL);
    assert_refused("{\"event\":\"m.x y\",\"id\":1}", OUTCOME_IGNORED_EVENT_TYPE, NULL);
    assert_refused("{\"event\":\"m.\\u00e9\",\"id\":1}", OUTCOME_IGNORED_EVENT_TYPE, NULL);
    assert_refused("{\"event\":\"a\\u0000b\"}", OUTCOME_FIELD_MISSING, "/event");
    assert_refused("{\"event\":\"a.b\",\"event\":\"a.b\",\"id\":1}", OUTCOME_JSON_REPEATED_KEY,
                   "/event");
}

static void ids_fall_to_the_next_rule(void **state)
{
    (void)state;
    assert_id("{\"event\":\"m.a\",\"x\":\"1\",\"y\":2}", "1:2");
    assert_id("{\"event\":\"m.a\",\"id\":{},\"x\":\"1\",\"y\":2}", "1:2");
    assert_id("{\"event\":\"m.own\",\"id\":7}", "7"); /* no time: the platform's rule */
    assert_id("{\"event\":\"m.a\",\"id\":18446744073709551616}", "18446744073709551616");
    assert_id("{\"event\":\"m.a\",\"id\":\"\",\"x\":1}", /* of this very text */
              "7bbe965de9c3ae1e10a83a2eab7771efa663aa68504ce430319bf7e6f4aceb2a");
}

/* Two ids that differ in a lost character alone must not become one event. */
static void ids_know_all_their_characters(void **state)
{
    (void)state;
    assert_id("{\"event\":\"m.a\",\"id\":\"i\\ud800\",\"x\":\"1\",\"y\":2}", "1:2");
    assert_id("{\"event\":\"m.a\",\"id\":\"i\\ufffd\",\"x\":\"1\",\"y\":2}", "i\xef\xbf\xbd");
    assert_id("{\"event\":\"m.a\",\"id\":\"i\",\"topic\":\"\\ud800\"}", "i");
    assert_id("{\"event\":\"a.b\",\"key\":\"\\ud800\",\"x\":1,\"y\":2}", "1:2");
}

static void composites_are_unambiguous(void **state)
{
    (void)state;
    assert_id("{\"event\":\"m.a\",\"x\":\"a:b\",\"y\":\"c\"}", "a%3Ab:c");
    assert_id("{\"event\":\"m.a\",\"x\":\"a\",\"y\":\"b:c\"}", "a:b%3Ac");
    assert_id("{\"event\":\"m.a\",\"x\":\"a%3Ab\",\"y\":\"c\"}", "a%253Ab:c");
}

static void header_ids_are_single_and_visible(void **state)
{
    (void)state;
    in.header_count = 1;
    in.headers[0] = (struct inbound_header){SLICE_LITERAL("x-id"), SLICE_LITERAL("d-1")};
    assert_id("{\"event\":\"h.x\",\"id\":1}", "d-1");
    in.headers[1] = in.headers[0];
    in.header_count = 2;
    assert_id("{\"event\":\"h.x\",\"id\":1}", "1");
    in.header_count = 1;
    in.headers[0].value = SLICE_LITERAL("d\xff");
    assert_id("{\"event\":\"h.x\",\"id\":1}", "1");
    in.header_count = 0;
}

static void lengths_are_bounded(void **state)
{
    (void)state;
    char body[2048], text[1024];
    memset(text, 'a', sizeof text);
    snprintf(body, sizeof body, "{\"event\":\"m.a\",\"id\":\"%.512s\"}", text);
    assert_int_equal(extract(body), OUTCOME_NONE);
    assert_int_equal(event.external_id.len, 512);
    snprintf(body, sizeof body, "{\"event\":\"m.a\",\"id\":\"%.513s\"}", text);
    assert_refused(body, OUTCOME_FIELD_TOO_LONG, "/id");
    assert_int_equal(event.external_id.len, 0);
    snprintf(body, sizeof body, "{\"event\":\"m.a\",\"x\":\"%.300s\",\"y\":\"%.300s\"}", text,
             text);
    assert_refused(body, OUTCOME_FIELD_TOO_LONG, "/x");
    snprintf(body, sizeof body, "{\"event\":\"m.%.127s\",\"id\":1}", text);
    assert_refused(body, OUTCOME_FIELD_TOO_LONG, "/event");
    snprintf(body, sizeof body, "{\"event\":\"m.a\",\"id\":1,\"account\":\"%.321s\"}", text);
    assert_refused(body, OUTCOME_FIELD_TOO_LONG, "/account");
    memset(text, ':', sizeof text); /* three bytes each in a composite */
    snprintf(body, sizeof body, "{\"event\":\"m.a\",\"x\":\"%.800s\",\"y\":1}", text);
    assert_refused(body, OUTCOME_FIELD_TOO_LONG, "/x");
}

static void required_fields(void **state)
{
    (void)state;
    assert_refused("{\"event\":\"a.b\"}", OUTCOME_FIELD_MISSING, "/id");
    assert_refused("{\"event\":\"a.b\",\"id\":[1]}", OUTCOME_FIELD_MISSING, "/id");
    assert_refused("{\"event\":\"a.b\",\"id\":\"a\\u0007\"}", OUTCOME_FIELD_MISSING, "/id");
    assert_refused("{\"event\":\"a.b\",\"id\":1,\"id\":1}", OUTCOME_JSON_REPEATED_KEY, "/id");
    assert_int_equal(extract("{\"event\":\"a.b\",\"key\":1}"), OUTCOME_NONE);
}

static void what_is_not_complete_is_held_back(void **state)
{
    (void)state;
    assert_refused("{\"event\":\"a.b\",\"p\":\"YES\"}", OUTCOME_IGNORED_INCOMPLETE, "/p");
    assert_id("{\"event\":\"m.a\",\"p\":\"yes\",\"id\":1}", "1");
    assert_refused("{\"event\":\"m.a\",\"parts\":{\"a\":\"done\",\"b\":\"open\"},\"id\":1}",
                   OUTCOME_IGNORED_INCOMPLETE, "/parts/*");
    assert_id("{\"event\":\"m.a\",\"parts\":{\"a\":\"done\",\"b\":\"Done\"},\"id\":1}", "1");
    assert_id("{\"event\":\"m.a\",\"parts\":{},\"id\":1}", "1");
    assert_refused("{\"event\":\"m.a\",\"parts\":{},\"parts\":{},\"id\":1}",
                   OUTCOME_JSON_REPEATED_KEY, "/parts/*");
}

static void workspace_and_time(void **state)
{
    (void)state;
    assert_id("{\"event\":\"m.a\",\"id\":1,\"account\":{},\"account2\":77,\"mail\":\"nobody\","
              "\"mail2\":\"A.B@Example.COM\",\"at\":\"1739923526572\"}",
              "1");
    assert_true(slice_is(event.account, "77"));
    assert_true(slice_is(event.email, "a.b@example.com"));
    assert_int_equal(event.time_wall_us, INT64_C(1739923526572000));
    assert_id("{\"event\":\"m.a\",\"id\":1,\"mail\":\"@x\",\"mail2\":\"x@\",\"at\":\"today\"}",
              "1");
    assert_int_equal(event.email.len, 0);
    assert_int_equal(event.account.len, 0);
    assert_int_equal(event.time_wall_us, 0);
}

static void add_header(const char *name, const char *value)
{
    in.headers[in.header_count++] = (struct inbound_header){slice_of(name), slice_of(value)};
}

static void assert_key_type(const char *body, const char *key_type)
{
    assert_int_equal(extract(body), OUTCOME_NONE);
    if (!slice_is(event.key_type, key_type))
        fail_msg("%s: '%.*s' instead of '%s'", body, (int)event.key_type.len, event.key_type.ptr,
                 key_type);
}

/* A body that comes again under another type in an unsigned header is a copy. */
static void unsigned_type_is_no_news(void **state)
{
    const struct platform *platform = platforms_at(*state, 0);
    struct platforms *before = platforms;
    platforms = *state;
    matched = &platform->schemes[0];
    assert_key_type("{\"type\":\"n.a\",\"n\":1}", "n.a");
    add_header("x-type", "n.x");
    assert_key_type("{\"type\":\"n.a\",\"n\":1}", "");
    assert_true(slice_is(event.type, "n.x"));
    assert_key_type("{}", ""); /* the digest as the last resort */
    in.headers[0].value = SLICE_LITERAL("n.known");
    assert_key_type("{\"n\":1}", "n.known"); /* else an update would be a copy of the creation */
    in.headers[0].value = SLICE_LITERAL("n.x");
    matched = &platform->schemes[1]; /* who knows a static secret may say anything */
    assert_key_type("{\"n\":1}", "n.x");
    matched = NULL;
    assert_key_type("{\"n\":1}", "n.x");
    matched = &platform->schemes[0];
    in.headers[0] = (struct inbound_header){SLICE_LITERAL("a-type"), SLICE_LITERAL("n.b")};
    assert_key_type("{\"n\":1}", "n.b"); /* signed */
    in.header_count = 0;
    platforms = before;
    matched = NULL;
}

static void any_type_is_the_last_choice(void **state)
{
    struct platforms *before = platforms;
    platforms = *state;
    matched = &platforms_at(platforms, 0)->schemes[0];
    assert_id("{\"type\":\"n.known\",\"n\":7}", "7");
    assert_int_equal(extract("{\"type\":\"n.other\",\"n\":7}"), OUTCOME_NONE);
    assert_int_equal(event.external_id.len, 66);
    assert_int_equal(extract("{\"type\":\"push\"}"), OUTCOME_NONE);
    assert_true(slice_is(event.type, "push"));
    assert_int_equal(extract("{\"type\":\"orders/create\"}"), OUTCOME_NONE);
    assert_true(slice_is(event.type, "orders/create"));
    assert_refused("{\"type\":\"pu sh\"}", OUTCOME_IGNORED_EVENT_TYPE, NULL);
    assert_refused("{\"type\":\"\"}", OUTCOME_FIELD_MISSING, "a-type");
    platforms = before;
    matched = NULL;
}

static int load_signing(void **state)
{
    struct problems problems = {0};
    *state = platforms_load_bytes("acme", signing_rules, sizeof signing_rules - 1, &problems);
    problems_print(&problems);
    return *state == NULL;
}

static int free_signing(void **state)
{
    platforms_free(*state);
    return 0;
}

static int set_up(void **state)
{
    (void)state;
    struct problems problems = {0};
    platforms = platforms_load_bytes("acme", rules, sizeof rules - 1, &problems);
    problems_print(&problems);
    reader = json_reader_new(1 << 16);
    return platforms == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    platforms_free(platforms);
    json_reader_free(reader);
    return 0;
}

/* A replay under svix-… could add a webhook-id of its own, and so pass for a new event. */
static void ids_come_from_the_scheme_that_matched(void **state)
{
    (void)state;
    static const char text[] =
        "name: acme\ntitle: Acme\n"
        "timestamp: {header: webhook-timestamp, unit: s}\n"
        "signatures:\n"
        "  - {algorithm: hmac-sha256, header: webhook-signature, form: list, version: v1,\n"
        "     message: \"{header:webhook-id}.{timestamp}.{body}\"}\n"
        "  - {algorithm: hmac-sha256, header: svix-signature, form: list, version: v1,\n"
        "     message: \"{header:svix-id}.{timestamp}.{body}\", timestamp_header: svix-timestamp}\n"
        "event_type: /type\nevents: [{type: a}]\n"
        "id: [{header: webhook-id}, {header: svix-id}, {header: x-free}]\n"
        "limited: {status: 503}\n";
    struct problems problems = {0};
    struct platforms *loaded = platforms_load_bytes("acme", text, strlen(text), &problems);
    assert_non_null(loaded);
    const struct platform *platform = platforms_at(loaded, 0);
    assert_string_equal(platform->schemes[1].timestamp_header, "svix-timestamp");
    struct inbound request = {.body = SLICE_LITERAL("{\"type\":\"a\"}"),
                              .headers = {{SLICE_LITERAL("webhook-id"), SLICE_LITERAL("new")},
                                          {SLICE_LITERAL("svix-id"), SLICE_LITERAL("old")},
                                          {SLICE_LITERAL("x-free"), SLICE_LITERAL("any")}},
                              .header_count = 3};
    const struct json *json;
    assert_int_equal(json_read(reader, request.body, &json), OUTCOME_NONE);
    static const char *const ids[] = {"new", "old"};
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(extract_event(platform, &request, json, &platform->schemes[i], &buffer,
                                       &event, &detail),
                         OUTCOME_NONE);
        assert_true(slice_is(event.external_id, ids[i]));
    }
    request.headers[1].name = SLICE_LITERAL("svix-di");
    assert_int_equal(
        extract_event(platform, &request, json, &platform->schemes[1], &buffer, &event, &detail),
        OUTCOME_NONE);
    assert_true(slice_is(event.external_id, "any"));
    platforms_free(loaded);
}

/* One bad item spoils a batch's id, and says where. */
static void ids_of_batches_are_checked(void **state)
{
    (void)state;
    static const char text[] = "name: acme\ntitle: Acme\nendpoint_token: authenticates\n"
                               "event_type: {means: a}\nevents: [{type: a}]\n"
                               "id: [/v/*/id]\nlimited: {status: 503}\n";
    struct problems problems = {0};
    struct platforms *shipped = platforms;
    platforms = platforms_load_bytes("acme", text, strlen(text), &problems);
    assert_non_null(platforms);
    assert_refused("{\"v\":[{\"id\":1},{\"id\":2,\"id\":3}]}", OUTCOME_JSON_REPEATED_KEY,
                   "/v/*/id");
    assert_refused("{\"v\":[{\"id\":1},{\"id\":\"a\\nb\"}]}", OUTCOME_FIELD_MISSING, "/v/*/id");
    assert_id("{\"v\":[{\"id\":\"a\"},{\"id\":\"b\\ud800\"}]}", /* of this very text */
              "dba7beff283ca291892df03eadc27a59d253fa9bc6f18587b2ff7a52481fcce7");
    static char body[32768] = "{\"v\":[";
    for (size_t count = 1; count <= PLATFORM_MAX_VALUES + 1; count++) {
        size_t at = strlen(body);
        snprintf(body + at, sizeof body - at, "%s{\"id\":1}", count > 1 ? "," : "");
        if (count < PLATFORM_MAX_VALUES)
            continue;
        at = strlen(body);
        snprintf(body + at, sizeof body - at, "]}");
        if (count == PLATFORM_MAX_VALUES)
            assert_int_equal(extract(body), OUTCOME_NONE);
        else
            assert_refused(body, OUTCOME_FIELD_TOO_LONG, "/v/*/id");
        body[at] = '\0';
    }
    platforms_free(platforms);
    platforms = shipped;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(types_are_found),
        cmocka_unit_test(ids_fall_to_the_next_rule),
        cmocka_unit_test(ids_know_all_their_characters),
        cmocka_unit_test(composites_are_unambiguous),
        cmocka_unit_test(header_ids_are_single_and_visible),
        cmocka_unit_test(lengths_are_bounded),
        cmocka_unit_test(required_fields),
        cmocka_unit_test(what_is_not_complete_is_held_back),
        cmocka_unit_test(workspace_and_time),
        cmocka_unit_test(ids_come_from_the_scheme_that_matched),
        cmocka_unit_test_setup_teardown(unsigned_type_is_no_news, load_signing, free_signing),
        cmocka_unit_test_setup_teardown(any_type_is_the_last_choice, load_signing, free_signing),
        cmocka_unit_test(ids_of_batches_are_checked),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
