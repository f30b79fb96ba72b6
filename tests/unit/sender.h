/* A sender of webhooks for tests of the vocabulary: a platform.yaml as text, requests put together
 * by hand and signed by OpenSSL's one-shot functions (not by the code under test), judged by the
 * steps of the edge. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "clock.h"
#include "codec.h"
#include "delivery.h"
#include "delivery_answer.h"
#include "json.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <time.h>

#define NOW INT64_C(1739923528)
#define PUBLIC_URL "https://hooks.example.com"

struct post_header {
    const char *name;
    char value[1024];
};

/* A request as the vendor would send it. */
struct post {
    const char *method, *path, *query;
    struct post_header headers[12];
    size_t header_count;
    char body[2048];
    size_t body_len;
    int64_t now; /* the sender's clock in seconds */
};

struct sender {
    struct platforms *platforms;
    const struct platform *platform;
    struct keyring keys;
    struct slice token;          /* of an endpoint, where the path is the credential */
    struct admission *admission; /* NULL = nothing is refused for overload */
    int64_t age_us;              /* what a request lies in the kernel before it is read */
    /* What the last delivery came to. */
    enum delivery_step step;
    int64_t left_us; /* until its answer is due */
    enum outcome outcome;
    char type[EVENT_TYPE_MAX + 1], id[EVENT_EXTERNAL_ID_MAX + 1];
    struct delivery_answer answer;
};

static inline struct sender *sender_open(const char *yaml, const char *const *secrets)
{
    struct sender *sender = xcalloc(1, sizeof *sender);
    struct problems problems = {0};
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(yaml + strlen("name: "), "\n"),
             yaml + strlen("name: "));
    sender->platforms = platforms_load_bytes(name, yaml, strlen(yaml), &problems);
    problems_print(&problems);
    problems_release(&problems);
    assert_non_null(sender->platforms);
    sender->platform = platforms_at(sender->platforms, 0);
    for (; *secrets != NULL; secrets++) {
        const char *reason = NULL;
        struct secret *secret =
            secret_new(sender->platform, *secrets, slice_of(*secrets), 0, &reason);
        if (secret == NULL)
            fail_msg("%s: %s", *secrets, reason);
        sender->keys.secrets[sender->keys.count++] = secret;
    }
    return sender;
}
#define SENDER(yaml, ...) sender_open(yaml, (const char *const[]){__VA_ARGS__, NULL})

static inline void sender_close(struct sender *sender)
{
    keyring_release(&sender->keys);
    platforms_free(sender->platforms);
    free(sender);
}

static inline void sender_copy(char *to, struct slice from)
{
    if (from.len > 0)
        memcpy(to, from.ptr, from.len);
    to[from.len] = '\0';
}

static inline void sender_on_done(struct delivery *d, void *context)
{
    struct sender *sender = context;
    sender->outcome = d->outcome;
    sender->step = d->step;
    sender->left_us = d->deadline_us - clock_mono_us();
    sender_copy(sender->type, d->event.type);
    sender_copy(sender->id, d->id_known ? d->event.external_id : (struct slice){"", 0});
    delivery_answer(d, &sender->answer);
}

/* What the gateway says to the request when its own clock shows `at` seconds. */
static inline enum outcome sender_post_at(struct sender *sender, const struct post *post,
                                          int64_t at)
{
    static struct json_reader *reader;
    static struct metrics *metrics;
    if (reader == NULL) {
        reader = json_reader_new(1 << 20);
        metrics = metrics_shard_new();
    }
    struct inbound in = {.method = slice_of(post->method),
                         .path = slice_of(post->path),
                         .query = slice_of(post->query ? post->query : ""),
                         .body = {post->body, post->body_len},
                         .received_wall_us = at * 1000000,
                         .age_us = sender->age_us};
    for (size_t i = 0; i < post->header_count; i++)
        in.headers[in.header_count++] = (struct inbound_header){slice_of(post->headers[i].name),
                                                                slice_of(post->headers[i].value)};
    struct delivery_override override = {.secrets = &sender->keys,
                                         .workspace = "-",
                                         .now_wall_us = at * 1000000,
                                         .endpoint_token = sender->token};
    struct delivery_env env = {.platforms = sender->platforms,
                               .json = reader,
                               .metrics = metrics,
                               .base_url = PUBLIC_URL,
                               .body_max = 1 << 20,
                               .headers_max = 32768,
                               .answer_us = 2500000,
                               .admission = sender->admission,
                               .override = &override};
    delivery_start(&env, &in, sender_on_done, sender);
    return sender->outcome;
}

static inline enum outcome sender_post(struct sender *sender, const struct post *post)
{
    return sender_post_at(sender, post, NOW);
}

static inline void expect_outcome(const char *what, enum outcome got, enum outcome want)
{
    if (got != want)
        fail_msg("%s: %s, not %s", what, outcome_info(got)->name, outcome_info(want)->name);
}

static inline void expect_answer(const struct sender *sender, const char *content_type,
                                 const char *body)
{
    assert_int_equal(sender->answer.status, 200);
    assert_string_equal(sender->answer.content_type, content_type);
    if (!slice_is((struct slice){sender->answer.body, sender->answer.len}, body))
        fail_msg("answered %.*s", (int)sender->answer.len, sender->answer.body);
}

/* The header of this name; the post must have it. */
static inline struct post_header *post_header(struct post *post, const char *name)
{
    struct post_header *header = post->headers;
    while (strcmp(header->name, name) != 0)
        assert(++header < post->headers + post->header_count);
    return header;
}

static inline void post_add(struct post *post, const char *name, const char *fmt, ...)
    PRINTF_LIKE(3, 4);
static inline void post_add(struct post *post, const char *name, const char *fmt, ...)
{
    assert_true(post->header_count < sizeof post->headers / sizeof *post->headers);
    struct post_header *header = &post->headers[post->header_count++];
    header->name = name;
    va_list args;
    va_start(args, fmt);
    vsnprintf(header->value, sizeof header->value, fmt, args);
    va_end(args);
}

/* Bounded strcpy() for header values and other texts. */
#define set_text(to, size, ...) assert_true(snprintf(to, size, __VA_ARGS__) < (int)(size))
#define post_set(post, index, ...)                                                                 \
    set_text((post)->headers[index].value, sizeof(post)->headers[index].value, __VA_ARGS__)

static inline void post_body(struct post *post, const char *fmt, ...) PRINTF_LIKE(2, 3);
static inline void post_body(struct post *post, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    post->body_len = (size_t)vsnprintf(post->body, sizeof post->body, fmt, args);
    va_end(args);
    assert_true(post->body_len < sizeof post->body);
}

/* 2025-02-19T00:05:28Z */
static inline const char *rfc3339(int64_t seconds)
{
    static char text[32];
    time_t at = (time_t)seconds;
    struct tm tm;
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&at, &tm));
    return text;
}

static inline const char *encoded(const unsigned char *bytes, size_t len, bool base64)
{
    static char text[200];
    if (base64)
        EVP_EncodeBlock((unsigned char *)text, bytes, (int)len);
    else
        for (size_t i = 0; i < len; i++)
            snprintf(text + 2 * i, sizeof text - 2 * i, "%02x", bytes[i]);
    return text;
}

/* HMAC of a message that is written like printf writes; the text lives until the next call. */
static inline const char *mac(const EVP_MD *md, const void *key, size_t key_len, bool base64,
                              const char *fmt, ...) PRINTF_LIKE(5, 6);
static inline const char *mac(const EVP_MD *md, const void *key, size_t key_len, bool base64,
                              const char *fmt, ...)
{
    static char message[4096];
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned len;
    va_list args;
    va_start(args, fmt);
    int message_len = vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    assert_true(message_len >= 0 && message_len < (int)sizeof message);
    assert_non_null(HMAC(md, key, (int)key_len, (const unsigned char *)message, (size_t)message_len,
                         digest, &len));
    return encoded(digest, len, base64);
}
#define HEX256(key, ...) mac(EVP_sha256(), key, strlen(key), false, __VA_ARGS__)
#define B64_256(key, ...) mac(EVP_sha256(), key, strlen(key), true, __VA_ARGS__)

/* The one Ed25519 key of the tests. */
static inline EVP_PKEY *ed25519_key(void)
{
    const unsigned char seed[32] = "a seed of thirty-two bytes, yes";
    EVP_PKEY *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, sizeof seed);
    assert_non_null(key);
    return key;
}

static inline const char *ed25519_public(bool base64)
{
    unsigned char public[32];
    size_t len = sizeof public;
    EVP_PKEY *key = ed25519_key();
    assert_int_equal(EVP_PKEY_get_raw_public_key(key, public, &len), 1);
    EVP_PKEY_free(key);
    return encoded(public, len, base64);
}

static inline const char *ed25519_signature(const char *text, bool base64)
{
    unsigned char signature[64];
    size_t len = sizeof signature;
    EVP_PKEY *key = ed25519_key();
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    assert_int_equal(EVP_DigestSignInit(ctx, NULL, NULL, NULL, key), 1);
    assert_int_equal(
        EVP_DigestSign(ctx, signature, &len, (const unsigned char *)text, strlen(text)), 1);
    EVP_MD_CTX_free(ctx);
    EVP_PKEY_free(key);
    return encoded(signature, len, base64);
}
