/* Routes: exact paths and nothing that merely looks like one. Platforms are faked at link time. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "request.h"
#include "route.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static const char *const aliases[] = {"recording-completed", "x"};
static const char *const types[] = {"application/json", "application/cloudevents+json"};
static const struct challenge_rule get_challenge[] = {{.kind = CHALLENGE_GET_QUERY}};
static const struct challenge_rule post_challenge[] = {{.kind = CHALLENGE_POST_JSON}};
static const struct platform zoom = {.name = "zoom",
                                     .aliases = aliases,
                                     .alias_count = 2,
                                     .challenges = post_challenge,
                                     .challenge_count = 1};
static const struct platform meta = {.name = "meta",
                                     .challenges = get_challenge,
                                     .challenge_count = 1,
                                     .content_types = types,
                                     .content_type_count = 2};

const struct platform *platforms_find(const struct platforms *platforms, struct slice name)
{
    (void)platforms;
    return slice_is(name, "zoom") ? &zoom : slice_is(name, "meta") ? &meta : NULL;
}

static enum outcome find(const char *method, const char *path, struct route *ret)
{
    struct inbound in = {.method = slice_of(method), .path = slice_of(path)};
    return route_find(NULL, &in, ret);
}

static void test_shared_route_and_aliases(void **state)
{
    (void)state;
    static const char *const paths[] = {"/webhooks/zoom", "/webhooks/zoom/recording-completed",
                                        "/webhooks/zoom/x"};
    for (size_t i = 0; i < 3; i++) {
        struct route route;
        assert_int_equal(find("POST", paths[i], &route), OUTCOME_NONE);
        assert_ptr_equal(route.platform, &zoom);
        assert_int_equal(route.endpoint.len, 0);
    }
}

static void test_endpoint_tokens(void **state)
{
    (void)state;
    struct route route;
    char path[256];
    assert_int_equal(find("POST", "/webhooks/zoom/abcDEF0123_-4567", &route), OUTCOME_NONE);
    assert_true(slice_is(route.endpoint, "abcDEF0123_-4567"));
    for (int len = 14; len <= 131; len++) {
        snprintf(path, sizeof path, "/webhooks/zoom/%0*d", len, 7);
        bool fits = len >= 16 && len <= 128;
        assert_int_equal(find("POST", path, &route), fits ? OUTCOME_NONE : OUTCOME_UNKNOWN_ROUTE);
        assert_int_equal(route.endpoint.len, fits ? len : 0);
        assert_ptr_equal(route.platform, &zoom);
    }
}

static void test_other_paths(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        enum outcome outcome;
    } cases[] = {
        {"", OUTCOME_UNKNOWN_ROUTE},
        {"/", OUTCOME_UNKNOWN_ROUTE},
        {"/webhooks", OUTCOME_UNKNOWN_ROUTE},
        {"/webhooks/", OUTCOME_UNKNOWN_ROUTE},
        {"/webhooks//zoom", OUTCOME_UNKNOWN_ROUTE},
        {"//webhooks/zoom", OUTCOME_UNKNOWN_ROUTE},
        {"/Webhooks/zoom", OUTCOME_UNKNOWN_ROUTE},
        {"http://h/webhooks/zoom", OUTCOME_UNKNOWN_ROUTE},
        {"/webhooks/zoom/", OUTCOME_UNKNOWN_ROUTE},
        {"/webhooks/zoom/x/", OUTCOME_UNKNOWN_ROUTE},
        {"/webhooks/zoom/X", OUTCOME_UNKNOWN_ROUTE},
        {"/webhooks/zoom/../admin", OUTCOME_UNKNOWN_ROUTE},
        {"/webhooks/zoom/0123456789abcdef/", OUTCOME_UNKNOWN_ROUTE},
        {"/webhooks/zoom/0123456789abcde%66", OUTCOME_UNKNOWN_ROUTE},
        {"/webhooks/zoom/0123456789abcdef.json", OUTCOME_UNKNOWN_ROUTE},
        {"/webhooks/zoom/0123456789\xc3\xa9"
         "abcdef",
         OUTCOME_UNKNOWN_ROUTE},
        {"/webhooks/zoom/0123456789abcdef?x", OUTCOME_UNKNOWN_ROUTE},
        {"/webhooks/./zoom", OUTCOME_UNKNOWN_PLATFORM},
        {"/webhooks/%7Aoom", OUTCOME_UNKNOWN_PLATFORM},
        {"/webhooks/ZOOM", OUTCOME_UNKNOWN_PLATFORM},
        {"/webhooks/zoom;a=b", OUTCOME_UNKNOWN_PLATFORM},
        {"/webhooks/other/0123456789abcdef", OUTCOME_UNKNOWN_PLATFORM},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct route route;
        assert_int_equal(find("POST", cases[i].path, &route), cases[i].outcome);
        assert_int_equal(route.endpoint.len, 0);
    }
    struct route route;
    struct inbound in = {.method = SLICE_LITERAL("POST"), .path = {"/webhooks/zoom\0", 15}};
    assert_int_equal(route_find(NULL, &in, &route), OUTCOME_UNKNOWN_PLATFORM);
}

static void test_methods(void **state)
{
    (void)state;
    static const char *const other[] = {"HEAD", "PUT", "OPTIONS", "post", "POSTS", ""};
    struct route route;
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
        assert_int_equal(find(other[i], "/webhooks/zoom", &route), OUTCOME_METHOD_NOT_ALLOWED);
        assert_ptr_equal(route.platform, &zoom);
        assert_int_equal(find(other[i], "/webhooks/meta", &route), OUTCOME_METHOD_NOT_ALLOWED);
    }
    assert_int_equal(find("GET", "/webhooks/zoom", &route), OUTCOME_METHOD_NOT_ALLOWED);
    assert_int_equal(find("GET", "/webhooks/meta", &route), OUTCOME_NONE);
    assert_int_equal(find("GET", "/webhooks/none", &route), OUTCOME_UNKNOWN_PLATFORM);
}

static enum outcome check(const struct platform *platform, const char *name, const char *value)
{
    struct inbound in = request_of(SLICE_LITERAL("{}"));
    if (name != NULL)
        request_add(&in, name, slice_of(value));
    return route_check_headers(platform, &in);
}

static void test_content_types(void **state)
{
    (void)state;
    assert_int_equal(check(&zoom, NULL, NULL), OUTCOME_NONE);
    assert_int_equal(check(&zoom, "content-type", "application/json"), OUTCOME_NONE);
    assert_int_equal(check(&zoom, "content-type", "Application/JSON; charset=utf-8"), OUTCOME_NONE);
    assert_int_equal(check(&zoom, "content-type", "application/json ;x"), OUTCOME_NONE);
    static const char *const wrong[] = {"",
                                        "text/plain",
                                        "application/jsonx",
                                        "application/json, text/plain",
                                        ";",
                                        "application/cloudevents+json"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(check(&zoom, "content-type", wrong[i]), OUTCOME_CONTENT_TYPE);
    assert_int_equal(check(&meta, "content-type", "application/cloudevents+json"), OUTCOME_NONE);

    struct inbound in = request_of(SLICE_LITERAL("{}"));
    request_add(&in, "content-type", SLICE_LITERAL("application/json"));
    request_add(&in, "content-type", SLICE_LITERAL("text/html"));
    assert_int_equal(route_check_headers(&zoom, &in), OUTCOME_CONTENT_TYPE);
}

static void test_codings_and_folded_lines(void **state)
{
    (void)state;
    assert_int_equal(check(&zoom, "content-encoding", "identity"), OUTCOME_NONE);
    assert_int_equal(check(&zoom, "content-encoding", "Identity"), OUTCOME_NONE);
    assert_int_equal(check(&zoom, "content-encoding", "gzip"), OUTCOME_COMPRESSED);
    assert_int_equal(check(&zoom, "content-encoding", "identity, br"), OUTCOME_COMPRESSED);
    assert_int_equal(check(&zoom, "", "folded"), OUTCOME_BAD_REQUEST);
    struct inbound in = request_of(SLICE_LITERAL("{}"));
    request_add(&in, "content-encoding", SLICE_LITERAL("identity"));
    request_add(&in, "content-encoding", SLICE_LITERAL("gzip"));
    assert_int_equal(route_check_headers(&zoom, &in), OUTCOME_COMPRESSED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shared_route_and_aliases),
        cmocka_unit_test(test_endpoint_tokens),
        cmocka_unit_test(test_other_paths),
        cmocka_unit_test(test_methods),
        cmocka_unit_test(test_content_types),
        cmocka_unit_test(test_codings_and_folded_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
