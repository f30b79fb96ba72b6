/* Signing secrets: decoded once as each scheme of the platform demands, keyed contexts prepared, so
 * that a request costs no key set-up. Called by keyring.c (files), directory_rows.c (rows) and the
 * commands; verify.c reads the keys. Thread: made on any, then read by all at once; the bytes are
 * cleansed on release and never logged. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "secret.h"

#include "codec.h"
#include "platform.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <pthread.h>
#include <stdio.h>

#define SECRET_MAGIC 0x73656372u
#define ED25519_KEY_SIZE 32

struct secret {
    unsigned magic;
    char *label;
    char *raw; /* the bytes as given */
    size_t raw_len;
    int64_t not_after_wall_us;
    int series;
    size_t key_count;
    struct secret_key keys[PLATFORM_MAX_SCHEMES];
};

static pthread_once_t hmac_once = PTHREAD_ONCE_INIT;
static EVP_MAC *hmac; /* fetched once: a fetch takes a lock and a look-up by name */

static void fetch_hmac(void)
{
    hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    if (hmac == NULL)
        abort();
}

static EVP_MAC_CTX *new_mac(enum signature_algorithm algorithm, const unsigned char *key,
                            size_t len)
{
    pthread_once(&hmac_once, fetch_hmac);
    char digest[8];
    snprintf(digest, sizeof digest, "%s",
             algorithm == HMAC_SHA1     ? "SHA1"
             : algorithm == HMAC_SHA512 ? "SHA512"
                                        : "SHA256");
    OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
                           OSSL_PARAM_construct_end()};
    EVP_MAC_CTX *ctx = EVP_MAC_CTX_new(hmac);
    if (ctx == NULL || !EVP_MAC_init(ctx, key, len, params))
        abort();
    return ctx;
}

/* The reason why `text` is no key of this decoding, or NULL and the key's bytes. */
static const char *decode(enum key_decoding decoding, struct slice text,
                          unsigned char out[SECRET_BYTES_MAX], size_t *ret_len)
{
    *ret_len = 0;
    switch (decoding) {
    case KEY_TEXT:
        memcpy(out, text.ptr, text.len);
        *ret_len = text.len;
        break;
    case KEY_WHSEC:
        if (slice_starts(text, SLICE_LITERAL("whsec_")))
            text = slice_from(text, sizeof "whsec_" - 1);
        else if (slice_starts(text, SLICE_LITERAL("whpk_")))
            text = slice_from(text, sizeof "whpk_" - 1);
        if (!codec_decode_base64(text, out, SECRET_BYTES_MAX, ret_len))
            return "it is not whsec_ or whpk_ with base64 (standard alphabet, padded) after it";
        break;
    case KEY_BASE64:
        if (!codec_decode_base64(text, out, SECRET_BYTES_MAX, ret_len))
            return "it is not base64 (standard alphabet, padded)";
        break;
    case KEY_HEX:
        if (!codec_decode_hex(text, CODEC_ANY_HEX, out, SECRET_BYTES_MAX, ret_len))
            return "it is not hex digits in pairs";
        break;
    }
    return *ret_len > 0 ? NULL : "the key is empty";
}

/* whpk_ alone marks a public key; whsec_, or no mark, is an HMAC's. */
static bool is_other_kind(const struct signature_scheme *scheme, struct slice text)
{
    return scheme->key == KEY_WHSEC &&
           slice_starts(text, SLICE_LITERAL("whpk_")) != (scheme->algorithm == ED25519);
}

/* A verify token comes back to us in addresses, so it must never be a key. */
static bool is_verify_token(const struct platform *platform, struct slice text)
{
    for (size_t i = 0; i < platform->challenge_count; i++) {
        struct slice prefix = platform->challenges[i].verify_prefix;
        if (prefix.len > 0 && slice_starts(text, prefix))
            return true;
    }
    return false;
}

/* The reason why not, or NULL. */
static const char *prepare(const struct signature_scheme *scheme, struct slice text,
                           struct secret_key *key)
{
    unsigned char bytes[SECRET_BYTES_MAX];
    size_t len;
    const char *reason = decode(scheme->key, text, bytes, &len);
    if (reason == NULL) {
        switch (scheme->algorithm) {
        case HMAC_SHA256:
        case HMAC_SHA1:
        case HMAC_SHA512:
            key->mac = new_mac(scheme->algorithm, bytes, len);
            break;
        case ED25519:
            if (len == ED25519_KEY_SIZE)
                key->public_key = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, bytes, len);
            if (key->public_key == NULL)
                reason = "it is not an ed25519 public key of 32 bytes";
            break;
        case STATIC_EQUALITY: {
            char *copy = xmalloc(len);
            memcpy(copy, bytes, len);
            key->bytes = (struct slice){copy, len};
            break;
        }
        }
    }
    OPENSSL_cleanse(bytes, sizeof bytes);
    return reason;
}

struct secret *secret_new(const struct platform *platform, const char *label, struct slice bytes,
                          int64_t not_after_wall_us, const char **ret_reason)
{
    if (bytes.len == 0 || bytes.len > SECRET_BYTES_MAX) {
        *ret_reason = bytes.len == 0 ? "it is empty" : "it is longer than 1024 bytes";
        return NULL;
    }
    struct secret *secret = xcalloc(1, sizeof *secret);
    secret->magic = SECRET_MAGIC;
    secret->label = xstrdup(label);
    secret->raw = xmalloc(bytes.len);
    memcpy(secret->raw, bytes.ptr, bytes.len);
    secret->raw_len = bytes.len;
    secret->not_after_wall_us = not_after_wall_us;
    secret->key_count = platform->scheme_count;
    if (is_verify_token(platform, bytes))
        return secret;
    size_t usable = 0;
    const char *reason = NULL;
    for (size_t i = 0; i < platform->scheme_count && reason == NULL; i++) {
        if (is_other_kind(&platform->schemes[i], bytes))
            continue;
        reason = prepare(&platform->schemes[i], bytes, &secret->keys[i]);
        usable++;
    }
    if (reason == NULL && usable == 0 && platform->scheme_count > 0)
        reason = "no signature scheme of the platform takes this kind of key";
    if (reason != NULL) {
        *ret_reason = reason;
        secret_free(secret);
        return NULL;
    }
    return secret;
}

static void cleanse_free(const char *ptr, size_t len)
{
    char *bytes = (char *)(uintptr_t)ptr; /* it is ours: made by xmalloc above */
    if (bytes != NULL)
        OPENSSL_cleanse(bytes, len);
    free(bytes);
}

void secret_free(struct secret *secret)
{
    if (secret == NULL)
        return;
    CHECK_OBJ(secret, SECRET_MAGIC);
    for (size_t i = 0; i < secret->key_count; i++) {
        EVP_MAC_CTX_free(secret->keys[i].mac); /* cleanses what it holds */
        EVP_PKEY_free(secret->keys[i].public_key);
        cleanse_free(secret->keys[i].bytes.ptr, secret->keys[i].bytes.len);
    }
    cleanse_free(secret->raw, secret->raw_len);
    free(secret->label);
    secret->magic = 0;
    free(secret);
}

const char *secret_label(const struct secret *secret)
{
    CHECK_OBJ(secret, SECRET_MAGIC);
    return secret->label;
}

void secret_set_series(struct secret *secret, int series)
{
    CHECK_OBJ(secret, SECRET_MAGIC);
    secret->series = series;
}

int secret_series(const struct secret *secret)
{
    CHECK_OBJ(secret, SECRET_MAGIC);
    return secret->series;
}

bool secret_is_live(const struct secret *secret, int64_t now_wall_us)
{
    CHECK_OBJ(secret, SECRET_MAGIC);
    return secret->not_after_wall_us == 0 || secret->not_after_wall_us >= now_wall_us;
}

bool secret_equals(const struct secret *secret, struct slice text)
{
    CHECK_OBJ(secret, SECRET_MAGIC);
    return text.len == secret->raw_len && CRYPTO_memcmp(text.ptr, secret->raw, text.len) == 0;
}

const struct secret_key *secret_key_for(const struct secret *secret, size_t scheme)
{
    CHECK_OBJ(secret, SECRET_MAGIC);
    assert(scheme < secret->key_count);
    return &secret->keys[scheme];
}

void keyring_release(struct keyring *keyring)
{
    for (size_t i = 0; i < keyring->count; i++)
        secret_free(keyring->secrets[i]);
    *keyring = (struct keyring){0};
}
