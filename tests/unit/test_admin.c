/* The private listener's answers, asked through a fake exchange. The registry of platforms is this
 * file's own, so that no folder and no configuration is needed. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "admin.h"

#include "obj.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <yyjson.h>
/* cmocka.h needs those before it */
#include <cmocka.h>

struct exchange {
    unsigned answers;
    int status;
    char type[64], allow[64], cache[64];
    char *body;
    size_t len;
};

void exchange_answer(struct exchange *x, const struct exchange_answer *answer)
{
    x->answers++;
    x->status = answer->status;
    snprintf(x->type, sizeof(x->type), "%s", answer->content_type);
    for (size_t i = 0; i < answer->header_count; i++) {
        const struct exchange_header *header = &answer->headers[i];
        if (strcmp(header->name, "allow") == 0)
            snprintf(x->allow, sizeof(x->allow), "%s", header->value);
        if (strcmp(header->name, "cache-control") == 0)
            snprintf(x->cache, sizeof(x->cache), "%s", header->value);
    }
    x->body = xstrndup(answer->body.ptr, answer->body.len);
    x->len = answer->body.len;
}

static const char *const aliases[] = {"events"};
static struct event_rule events[] = {{.type = "meeting.ended"}, {.type = "odd\"\\\x01"}};
static const struct challenge_rule challenge = {.kind = CHALLENGE_POST_JSON};
static const struct platform registry[] = {
    {.name = "zoom",
     .aliases = aliases,
     .alias_count = 1,
     .events = events,
     .event_count = 2,
     .challenges = &challenge,
     .challenge_count = 1},
    {.name = "otter"},
};

const struct platform *platforms_find(const struct platforms *platforms, struct slice name)
{
    (void)platforms;
    for (size_t i = 0; i < sizeof(registry) / sizeof(registry[0]); i++)
        if (slice_is(name, registry[i].name))
            return &registry[i];
    return NULL;
}

static size_t reason_count;
static size_t not_ready(void *context, const char **ret_reasons, size_t max)
{
    assert_ptr_equal(context, &reason_count);
    size_t n = reason_count < max ? reason_count : max;
    for (size_t i = 0; i < n; i++)
        ret_reasons[i] = i == 0 ? "kafka: \"slow\"" : "postgres: lost";
    return n;
}

static void reload(void *context, struct exchange *x)
{
    assert_ptr_equal(context, &reason_count);
    exchange_answer(x, &(struct exchange_answer){
                           .status = 409, .content_type = "text/plain", .body = {"refused", 7}});
}

static struct admin admin = {.public_url = "https://hooks.example.com",
                             .not_ready = not_ready,
                             .reload = reload,
                             .context = &reason_count};

/* Answered once, never to be kept by a cache. */
static struct exchange ask(const char *method, const char *path)
{
    struct exchange x = {0};
    static struct inbound in;
    in = (struct inbound){.method = slice_of(method), .path = slice_of(path)};
    admin_handle(&x, &in, &admin);
    assert_int_equal(x.answers, 1);
    assert_string_equal(x.cache, "no-store");
    return x;
}

static yyjson_doc *ask_json(const char *method, const char *path, int status)
{
    struct exchange x = ask(method, path);
    assert_int_equal(x.status, status);
    assert_string_equal(x.type, "application/json");
    yyjson_doc *doc = yyjson_read(x.body, x.len, 0);
    if (doc == NULL)
        fail_msg("not JSON: %s", x.body);
    free(x.body);
    return doc;
}

static yyjson_val *at(yyjson_doc *doc, const char *pointer)
{
    return yyjson_doc_ptr_get(doc, pointer);
}

static void assert_text(yyjson_doc *doc, const char *pointer, const char *text)
{
    assert_non_null(yyjson_get_str(at(doc, pointer)));
    assert_string_equal(yyjson_get_str(at(doc, pointer)), text);
}

static void test_metrics(void **state)
{
    (void)state;
    struct exchange x = ask("GET", "/metrics");
    assert_int_equal(x.status, 200);
    assert_string_equal(x.type, "text/plain; version=0.0.4; charset=utf-8");
    assert_non_null(strstr(x.body, "hookgate_build_info{version="));
    assert_int_equal(x.body[x.len - 1], '\n');
    free(x.body);
}

static void test_live(void **state)
{
    (void)state;
    reason_count = 1; /* not ready, yet alive */
    yyjson_doc_free(ask_json("GET", "/livez", 200));
    reason_count = 0;
}

static void test_ready(void **state)
{
    (void)state;
    reason_count = 0;
    yyjson_doc *doc = ask_json("GET", "/readyz", 200);
    assert_true(yyjson_get_bool(at(doc, "/ready")));
    yyjson_doc_free(doc);
    reason_count = 2;
    doc = ask_json("HEAD", "/readyz", 503);
    assert_true(yyjson_is_false(at(doc, "/ready")));
    assert_int_equal(yyjson_arr_size(at(doc, "/reasons")), 2);
    assert_text(doc, "/reasons/0", "kafka: \"slow\"");
    yyjson_doc_free(doc);
    reason_count = 1000;
    doc = ask_json("GET", "/readyz", 503);
    assert_int_equal(yyjson_arr_size(at(doc, "/reasons")), ADMIN_MAX_REASONS);
    yyjson_doc_free(doc);
    reason_count = 0;
}

static void test_endpoint_url(void **state)
{
    (void)state;
    yyjson_doc *doc = ask_json("GET", "/webhooks/zoom/endpoint-url", 200);
    assert_text(doc, "/platform", "zoom");
    assert_text(doc, "/url", "https://hooks.example.com/webhooks/zoom");
    assert_text(doc, "/endpoint_url", "https://hooks.example.com/webhooks/zoom/{endpoint}");
    assert_text(doc, "/aliases/0", "https://hooks.example.com/webhooks/zoom/events");
    assert_int_equal(yyjson_arr_size(at(doc, "/events")), 2);
    assert_text(doc, "/events/0", "meeting.ended");
    assert_text(doc, "/events/1", "odd\"\\\x01");
    assert_true(yyjson_is_false(at(doc, "/validated")));
    assert_true(yyjson_is_null(at(doc, "/last_validated_at")));
    assert_text(doc, "/validation_scope", "process");
    yyjson_doc_free(doc);
}

static void test_no_public_url(void **state)
{
    (void)state;
    admin.public_url = NULL;
    yyjson_doc *doc = ask_json("GET", "/webhooks/otter/endpoint-url", 200);
    admin.public_url = "https://hooks.example.com";
    assert_text(doc, "/url", "/webhooks/otter");
    assert_int_equal(yyjson_arr_size(at(doc, "/aliases")), 0);
    assert_non_null(at(doc, "/validated"));
    assert_true(yyjson_is_null(at(doc, "/validated"))); /* it has no challenge */
    yyjson_doc_free(doc);
}

static void *note(void *unused)
{
    (void)unused;
    for (int i = 0; i < 1000; i++)
        admin_note_challenge(&registry[0]);
    return NULL;
}

static void test_validated(void **state)
{
    (void)state;
    pthread_t threads[4];
    time_t before = time(NULL);
    for (size_t i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, note, NULL);
    for (size_t i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    yyjson_doc *doc = ask_json("GET", "/webhooks/zoom/endpoint-url", 200);
    assert_true(yyjson_get_bool(at(doc, "/validated")));
    struct tm tm = {0};
    const char *text = yyjson_get_str(at(doc, "/last_validated_at"));
    assert_non_null(text);
    const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
    assert_non_null(rest);
    assert_string_equal(rest, "Z");
    assert_in_range(timegm(&tm), before, time(NULL));
    yyjson_doc_free(doc);
}

/* More platforms than there are slots: nothing breaks, the excess is not remembered. */
static void test_many_platforms(void **state)
{
    (void)state;
    char name[32];
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof(name), "p%d", i);
        admin_note_challenge(&(struct platform){.name = name});
    }
    yyjson_doc *doc = ask_json("GET", "/webhooks/zoom/endpoint-url", 200);
    assert_true(yyjson_get_bool(at(doc, "/validated")));
    yyjson_doc_free(doc);
}

static void test_not_found(void **state)
{
    (void)state;
    static const char *const paths[] = {"",
                                        "/",
                                        "/metrics/",
                                        "/metricsx",
                                        "/METRICS",
                                        "//metrics",
                                        "/webhooks/",
                                        "/webhooks/zoom",
                                        "/webhooks/zoom/",
                                        "/webhooks//endpoint-url",
                                        "/webhooks/endpoint-url",
                                        "/webhooks/nobody/endpoint-url",
                                        "/webhooks/zoom/endpoint-url/",
                                        "/webhooks/zoom/x/endpoint-url",
                                        "/webhooks/../metrics",
                                        "/webhooks/zoo%6d/endpoint-url"};
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        yyjson_doc *doc = ask_json("POST", paths[i], 404);
        assert_text(doc, "/error/code", "not_found");
        assert_non_null(at(doc, "/error/message"));
        yyjson_doc_free(doc);
    }
}

static void test_methods(void **state)
{
    (void)state;
    static const char *const paths[] = {"/metrics", "/livez", "/readyz",
                                        "/webhooks/zoom/endpoint-url"};
    static const char *const methods[] = {"POST", "PUT", "DELETE", "get", "", "OPTIONS"};
    for (size_t p = 0; p < 4; p++)
        for (size_t m = 0; m < 6; m++) {
            struct exchange x = ask(methods[m], paths[p]);
            assert_int_equal(x.status, 405);
            assert_string_equal(x.allow, "GET, HEAD");
            assert_non_null(strstr(x.body, "\"method_not_allowed\""));
            free(x.body);
        }
}

/* By POST alone: a browser or a crawler that looks around must not begin one. */
static void test_reload(void **state)
{
    (void)state;
    struct exchange x = {0};
    const struct inbound in = {.method = slice_of("POST"), .path = slice_of("/reload")};
    admin_handle(&x, &in, &admin);
    assert_int_equal(x.answers, 1);
    assert_int_equal(x.status, 409);
    free(x.body);
    x = ask("GET", "/reload");
    assert_int_equal(x.status, 405);
    assert_string_equal(x.allow, "POST");
    free(x.body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_metrics),        cmocka_unit_test(test_live),
        cmocka_unit_test(test_ready),          cmocka_unit_test(test_endpoint_url),
        cmocka_unit_test(test_no_public_url),  cmocka_unit_test(test_validated),
        cmocka_unit_test(test_many_platforms), cmocka_unit_test(test_not_found),
        cmocka_unit_test(test_methods),        cmocka_unit_test(test_reload),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
