/* Signatures of every form, and secrets in query and body: nobody without the key gets in. Input:
 * the first byte picks form, encoding and algorithm, then up to three header values, the query and
 * the body, each on a line. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "json.h"
#include "secret.h"
#include "verify.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const names[] = {"x-signature", "x-time", "x-id"};
static const struct message_token message[] = {{TOKEN_HEADER, {"x-id", 4}},
                                               {TOKEN_LITERAL, {".", 1}},
                                               {TOKEN_TIMESTAMP, {0}},
                                               {TOKEN_BODY, {0}}};

/* The secret itself: in a header, in the query, in every item of the body. */
static struct platform static_of(unsigned pick)
{
    struct platform platform = {.schemes = {{.algorithm = STATIC_EQUALITY}}, .scheme_count = 1};
    struct signature_scheme *scheme = &platform.schemes[0];
    unsigned place = pick / 9 % 3;
    if (place == 0) {
        scheme->headers = names;
        scheme->header_count = 1;
        scheme->encoding = pick & 64 ? ENCODING_BASE64 : ENCODING_HEX;
    } else if (place == 1) {
        scheme->query = "token";
    } else {
        scheme->json = "/value/*/state";
    }
    return platform;
}

static struct platform platform_of(unsigned pick)
{
    if (pick % 9 == 8 && pick & 32)
        return static_of(pick);
    struct platform platform = {
        .schemes = {{.algorithm = (enum signature_algorithm)(pick % 3),
                     .headers = names,
                     .header_count = pick & 32 ? 2 : 1,
                     .each_header = (pick & 32) != 0,
                     .form = (enum signature_form)(pick / 3 % 3),
                     .separator = ',',
                     .version = {"v1", 2},
                     .prefix = {"v0=", pick & 128 ? 3 : 0},
                     .prefix_optional = (pick & 64) != 0,
                     .encoding = pick / 9 % 2 ? ENCODING_BASE64 : ENCODING_HEX,
                     .message = message,
                     .message_count = 4}},
        .scheme_count = 1};
    platform.timestamp.from.source = FROM_HEADER;
    platform.timestamp.from.name = names[1];
    if (platform.schemes[0].form == FORM_PAIRS) {
        platform.timestamp.from.source = FROM_PAIR;
        platform.timestamp.from.name = "t";
    }
    return platform;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct platform platform = platform_of(data[0]);
    struct inbound in = {.method = SLICE_LITERAL("POST"), .path = SLICE_LITERAL("/webhooks/x")};
    struct slice rest = {(const char *)data + 1, size - 1};
    for (size_t i = 0; i < 3 && rest.len > 0; i++) {
        const char *newline = memchr(rest.ptr, '\n', rest.len);
        size_t len = newline != NULL ? (size_t)(newline - rest.ptr) : rest.len;
        in.headers[in.header_count++] =
            (struct inbound_header){slice_of(names[i]), {rest.ptr, len}};
        rest = slice_from(rest, len + 1);
    }
    const char *newline = rest.len > 0 ? memchr(rest.ptr, '\n', rest.len) : NULL;
    if (newline != NULL) {
        in.query = (struct slice){rest.ptr, (size_t)(newline - rest.ptr)};
        rest = slice_from(rest, in.query.len + 1);
    }
    in.body = rest;
    static struct json_reader *reader;
    const struct json *json = NULL;
    if (reader == NULL)
        reader = json_reader_new(1 << 16);
    if (json_read(reader, in.body, &json) != OUTCOME_NONE)
        json = NULL;
    const char *reason = NULL;
    struct keyring keys = {.count = 1};
    keys.secrets[0] =
        secret_new(&platform, "s", SLICE_LITERAL("a key that no input holds"), 0, &reason);
    assert(keys.secrets[0] != NULL);
    struct verification found = {0};
    enum outcome outcome =
        verify_signature(&platform, &keys, &in, json, "https://hooks.example.com", 1, &found);
    assert(outcome != OUTCOME_NONE && found.secret == NULL);
    keyring_release(&keys);
    return 0;
}
