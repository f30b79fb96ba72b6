/* Handshakes asked by anybody: an answer is never longer than its bound, never holds a control
 * character, and never signs what an event's message could be; by POST nothing is signed for who
 * has not signed. Input: the method's first letter, the query, and the body, each on a line. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "challenge.h"
#include "json.h"
#include "secret.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const headers[] = {"x-signature"};
static const struct challenge_rule rules[] = {
    {.kind = CHALLENGE_GET_QUERY,
     .when = {.name = "mode"},
     .equals = "subscribe",
     .token = "challenge",
     .token_max = 64,
     .unsigned_ok = true,
     .verify_key = "verify",
     .verify_prefix = {"verify_", 7}},
    {.kind = CHALLENGE_GET_QUERY,
     .token = "crc",
     .token_max = 64,
     .unsigned_ok = true,
     .answer = ANSWER_HMAC_JSON,
     .echo_field = "echo",
     .hmac_field = "digest",
     .hmac_prefix = "sha256="},
    {.kind = CHALLENGE_POST_QUERY, .token = "crc", .token_max = 256, .unsigned_ok = true},
    {.kind = CHALLENGE_POST_JSON,
     .when = {FROM_JSON, .name = "/a"},
     .token = "/a",
     .token_max = 64,
     .unsigned_ok = true,
     .answer = ANSWER_ECHO_JSON,
     .echo_field = "a"},
    {.kind = CHALLENGE_POST_JSON,
     .when = {FROM_JSON, .name = "/event"},
     .token = "/event",
     .token_max = 64,
     .answer = ANSWER_HMAC_JSON,
     .hmac_field = "digest",
     .hmac_prefix = ""},
};

static struct slice take_line(struct slice *rest)
{
    const char *newline = rest->len > 0 ? memchr(rest->ptr, '\n', rest->len) : NULL;
    struct slice line = {rest->ptr, newline != NULL ? (size_t)(newline - rest->ptr) : rest->len};
    *rest = slice_from(*rest, line.len + 1);
    return line;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct json_reader *reader;
    if (reader == NULL)
        reader = json_reader_new(1 << 16);
    const struct platform platform = {
        .schemes = {{.headers = headers, .header_count = 1}},
        .scheme_count = 1,
        .challenges = rules,
        .challenge_count = sizeof rules / sizeof *rules,
    };
    struct slice rest = {(const char *)data, size}, method = take_line(&rest);
    struct inbound in = {.path = SLICE_LITERAL("/webhooks/x"), .query = take_line(&rest)};
    in.method =
        method.len > 0 && method.ptr[0] == 'G' ? SLICE_LITERAL("GET") : SLICE_LITERAL("POST");
    in.body = rest;
    const struct json *json = NULL;
    if (json_read(reader, in.body, &json) != OUTCOME_NONE)
        json = NULL;
    const char *reason;
    struct keyring keys = {.count = 1};
    keys.secrets[0] = secret_new(&platform, "s", SLICE_LITERAL("no input holds it"), 0, &reason);
    assert(keys.secrets[0] != NULL);
    static struct challenge_answer_body answer;
    answer.len = 0;
    enum outcome outcome = challenge_check(&platform, &keys, &in, json, NULL, &answer);
    struct slice body = {answer.body, answer.len};
    assert(outcome == OUTCOME_NONE || outcome == OUTCOME_CHALLENGED ||
           outcome == OUTCOME_CHALLENGE_REFUSED || outcome == OUTCOME_CHALLENGE_UNVERIFIED);
    if (outcome == OUTCOME_CHALLENGED) {
        assert(body.len > 0 && body.len <= sizeof answer.body);
        for (size_t i = 0; i < body.len; i++)
            assert((unsigned char)body.ptr[i] >= 0x20 && (unsigned char)body.ptr[i] < 0x7f);
        bool json_answer = strcmp(answer.content_type, "application/json") == 0;
        bool digest = json_answer && memmem(body.ptr, body.len, "\"digest\":", 9) != NULL;
        assert(!digest || slice_is(in.method, "GET"));
        assert(!digest || memchr(body.ptr + 1, '{', body.len - 1) == NULL);
    }
    keyring_release(&keys);
    return 0;
}
