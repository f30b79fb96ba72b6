/* Handshakes: answered to whom they are due, and no answer that could sign an event. The digests
 * were computed with Python's hmac. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "challenge.h"
#include "json.h"
#include "request.h"
#include "secret.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static const char *const headers[] = {"x-signature"};
static const struct challenge_rule zoom_rule = {.kind = CHALLENGE_POST_JSON,
                                                .when = {FROM_JSON, .name = "/event"},
                                                .equals = "endpoint.url_validation",
                                                .token = "/payload/plainToken",
                                                .token_max = 128,
                                                .answer = ANSWER_HMAC_JSON,
                                                .echo_field = "plainToken",
                                                .hmac_field = "encryptedToken"};
static const struct challenge_rule x_rule = {.kind = CHALLENGE_GET_QUERY,
                                             .token = "crc_token",
                                             .token_max = 256,
                                             .unsigned_ok = true,
                                             .answer = ANSWER_HMAC_JSON,
                                             .hmac_field = "response_token",
                                             .hmac_prefix = "sha256=",
                                             .hmac_encoding = ENCODING_BASE64};
static const struct challenge_rule meta_rule = {.kind = CHALLENGE_GET_QUERY,
                                                .token = "hub.challenge",
                                                .token_max = 256,
                                                .unsigned_ok = true,
                                                .verify_key = "hub.verify_token",
                                                .verify_prefix = {"verify_", 7},
                                                .answer = ANSWER_ECHO_TEXT};
static const struct challenge_rule graph_rule = {.kind = CHALLENGE_POST_QUERY,
                                                 .token = "validationToken",
                                                 .token_max = 256,
                                                 .unsigned_ok = true,
                                                 .answer = ANSWER_ECHO_TEXT};
static const struct challenge_rule slack_rule = {.kind = CHALLENGE_POST_JSON,
                                                 .when = {FROM_JSON, .name = "/type"},
                                                 .equals = "url_verification",
                                                 .token = "/challenge",
                                                 .token_max = 256,
                                                 .answer = ANSWER_ECHO_JSON,
                                                 .echo_field = "challenge"};

static struct challenge_answer_body answer;

static enum outcome ask(const struct challenge_rule *rule, const char *method, const char *query,
                        const char *body, bool verified)
{
    struct platform platform = {.schemes = {{.headers = headers, .header_count = 1}},
                                .scheme_count = 1,
                                .challenges = rule,
                                .challenge_count = 1};
    const char *reason = NULL;
    struct keyring *keys = &platform.secrets;
    keys->secrets[keys->count++] = secret_new(&platform, "a", slice_of("expired"), 1, &reason);
    keys->secrets[keys->count++] = secret_new(&platform, "b", slice_of("zoom-secret"), 0, &reason);
    keys->secrets[keys->count++] = secret_new(&platform, "c", slice_of("older"), 0, &reason);
    keys->secrets[keys->count++] = secret_new(&platform, "v", slice_of("verify_me"), 0, &reason);
    keys->secrets[keys->count++] = secret_new(&platform, "w", slice_of("verify_past"), 1, &reason);
    struct verification verification = {.secret = keys->secrets[1]};
    struct json_reader *reader = json_reader_new(10000);
    const struct json *json = NULL;
    if (body != NULL)
        assert_int_equal(json_read(reader, slice_of(body), &json), OUTCOME_NONE);
    struct inbound in = {
        .method = slice_of(method), .query = slice_of(query), .received_wall_us = 1700000000000000};
    answer = (struct challenge_answer_body){0};
    enum outcome outcome =
        challenge_check(&platform, keys, &in, json, verified ? &verification : NULL, &answer);
    json_reader_free(reader);
    keyring_release(keys);
    return outcome;
}

static void expect_answer(const char *type, const char *body)
{
    assert_string_equal(answer.content_type, type);
    if (!slice_is((struct slice){answer.body, answer.len}, body))
        fail_msg("answered %.*s", (int)answer.len, answer.body);
}

#define ZOOM(token) "{\"payload\":{\"plainToken\":" token "},\"event\":\"endpoint.url_validation\"}"

static void test_zoom(void **state)
{
    (void)state;
    static const char body[] = ZOOM("\"qgg8vlvZRS6UYooatFL8Aw\"");
    assert_int_equal(ask(&zoom_rule, "POST", "", body, true), OUTCOME_CHALLENGED);
    expect_answer("application/json",
                  "{\"plainToken\":\"qgg8vlvZRS6UYooatFL8Aw\",\"encryptedToken\":"
                  "\"b17f0320a1322a509340a1a835b3d9edbc491f0b0790ed2d20d0604d39dfe922\"}");
    assert_int_equal(ask(&zoom_rule, "POST", "", body, false), OUTCOME_NONE);
    assert_int_equal(answer.len, 0);
    assert_int_equal(ask(&zoom_rule, "POST", "", "{\"event\":\"meeting.ended\"}", true),
                     OUTCOME_NONE);
    assert_int_equal(ask(&zoom_rule, "POST", "",
                         "{\"event\":\"endpoint.url_validation\",\"event\":\"x\"}", true),
                     OUTCOME_NONE);
    struct challenge_rule careless = zoom_rule;
    careless.unsigned_ok = true; /* the loader refuses it; here it must not sign either */
    assert_int_equal(ask(&careless, "POST", "", body, false), OUTCOME_NONE);
}

static void test_tokens_that_would_sign_events(void **state)
{
    (void)state;
    static const char *const bodies[] = {ZOOM("\"v0:1700000000:x\""),
                                         ZOOM("\"{}\""),
                                         ZOOM("\"a b\""),
                                         ZOOM("\"a.b\""),
                                         ZOOM("\"a\\u0000b\""),
                                         ZOOM("\"\\u00e9\""),
                                         ZOOM("\"a\\nb\""),
                                         ZOOM("\"\""),
                                         ZOOM("null"),
                                         ZOOM("[\"a\"]"),
                                         "{\"event\":\"endpoint.url_validation\"}",
                                         ZOOM("\"a\",\"plainToken\":\"b\"")};
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++)
        if (ask(&zoom_rule, "POST", "", bodies[i], true) != OUTCOME_CHALLENGE_REFUSED)
            fail_msg("%s is not refused", bodies[i]);
    for (int len = 127; len <= 130; len++) {
        char body[400];
        snprintf(body, sizeof body, ZOOM("\"%0*d\""), len, 7);
        assert_int_equal(ask(&zoom_rule, "POST", "", body, true),
                         len <= 128 ? OUTCOME_CHALLENGED : OUTCOME_CHALLENGE_REFUSED);
    }
}

static void test_hmac_by_get(void **state)
{
    (void)state;
    assert_int_equal(ask(&x_rule, "GET", "a=b&crc_token=crc-123", NULL, false), OUTCOME_CHALLENGED);
    expect_answer("application/json",
                  "{\"response_token\":\"sha256=aXwEtL1YiQo1T/BYudtRjF0q16wQVCL6TZFJu9jBjLU=\"}");
    assert_int_equal(ask(&x_rule, "POST", "crc_token=crc-123", NULL, false), OUTCOME_NONE);
    assert_int_equal(ask(&x_rule, "GET", "", NULL, false), OUTCOME_NONE);
    static const char *const refused[] = {"crc_token",
                                          "crc_token=",
                                          "crc_token=%7b%7d",
                                          "crc_token=v0:1:x",
                                          "crc_token=a&crc_token=a",
                                          "crc_token=%",
                                          "crc_token=%4",
                                          "crc_token=%zz",
                                          "crc_token=a+b",
                                          "crc_token=%00"};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (ask(&x_rule, "GET", refused[i], NULL, false) != OUTCOME_CHALLENGE_REFUSED)
            fail_msg("%s is not refused", refused[i]);
}

static void test_verify_key(void **state)
{
    (void)state;
#define HUB(key) "hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=" key
    assert_int_equal(ask(&meta_rule, "GET", HUB("verify_me"), NULL, false), OUTCOME_CHALLENGED);
    expect_answer("text/plain", "1158201444");
    /* A key is no verify token, even when somebody knows it. */
    static const char *const wrong[] = {"hub.challenge=1",  HUB(""),
                                        HUB("verify_mE"),   HUB("verify_"),
                                        HUB("verify_me1"),  HUB("verify_past"),
                                        HUB("zoom-secret"), HUB("verify_me&hub.verify_token=x")};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(ask(&meta_rule, "GET", wrong[i], NULL, false),
                         OUTCOME_CHALLENGE_UNVERIFIED);
}

static void test_echoes(void **state)
{
    (void)state;
    assert_int_equal(
        ask(&graph_rule, "POST", "validationToken=Validation%3a+Testing%20x", NULL, false),
        OUTCOME_CHALLENGED);
    expect_answer("text/plain", "Validation: Testing x");
    assert_int_equal(ask(&graph_rule, "POST", "validationToken=a%0d%0ab", NULL, false),
                     OUTCOME_CHALLENGE_REFUSED);
    assert_int_equal(ask(&slack_rule, "POST", "",
                         "{\"type\":\"url_verification\",\"challenge\":\"a\\\"<b>\\\\\"}", true),
                     OUTCOME_CHALLENGED);
    expect_answer("application/json", "{\"challenge\":\"a\\\"<b>\\\\\"}");
    static char query[5000] = "validationToken=";
    memset(query + strlen(query), 'x', sizeof query - 1 - strlen("validationToken="));
    assert_int_equal(ask(&graph_rule, "POST", query, NULL, false), OUTCOME_CHALLENGE_REFUSED);
}

static bool likely(const struct challenge_rule *rule, const char *method, const char *query,
                   const char *body)
{
    struct platform platform = {.challenges = rule, .challenge_count = 1};
    struct inbound in = request_of(slice_of(body));
    in.method = slice_of(method);
    in.query = slice_of(query);
    return challenge_is_likely(&platform, &in);
}

static void a_guess_costs_no_parsing(void **state)
{
    (void)state;
    char big[2048] = "endpoint.url_validation";
    memset(big + strlen(big), ' ', sizeof big - strlen(big) - 1);
    assert_true(likely(&zoom_rule, "POST", "", "{\"event\":\"endpoint.url_validation\"}"));
    assert_false(likely(&zoom_rule, "POST", "", "{\"event\":\"meeting.started\"}"));
    assert_false(likely(&zoom_rule, "POST", "", big));
    assert_false(likely(&zoom_rule, "POST", "", ""));
    assert_true(likely(&meta_rule, "GET", "hub.mode=subscribe", ""));
    assert_false(likely(&meta_rule, "POST", "", "{}"));
    assert_true(likely(&graph_rule, "POST", "validationToken=a", ""));
    assert_false(likely(&graph_rule, "POST", "", "{}"));
    struct platform none = {.challenge_count = 0};
    struct inbound in = request_of(slice_of("{}"));
    assert_false(challenge_is_likely(&none, &in));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zoom),        cmocka_unit_test(test_tokens_that_would_sign_events),
        cmocka_unit_test(test_hmac_by_get), cmocka_unit_test(test_verify_key),
        cmocka_unit_test(test_echoes),      cmocka_unit_test(a_guess_costs_no_parsing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
