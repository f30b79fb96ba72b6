/* VERIFY: the step that decides whether a request is authentic, and its mirror image that signs.
 * Called by delivery.c on the event loop for every request, so nothing is copied and nothing but
 * OpenSSL's own contexts is allocated (ed25519 alone needs the message in one piece). The body is
 * bytes here, or the document that delivery.c has parsed where the secret itself stands in it.
 * Thread: any. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "verify.h"

#include "candidates.h"
#include "codec.h"
#include "json.h"
#include "message.h"
#include "secret.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#define DIGEST_MAX 64
#define SECRET_TEXT_MAX SECRET_BYTES_MAX

struct request {
    const struct platform *platform;
    const struct keyring *secrets;
    const struct inbound *in;
    const struct json *json; /* NULL when nothing is to be read before the credential matched */
    const char *base_url;
    int64_t now_wall_us;
    size_t *tries; /* left under public keys */
};

static size_t digest_size(enum signature_algorithm algorithm)
{
    switch (algorithm) {
    case HMAC_SHA256:
        return 32;
    case HMAC_SHA1:
        return 20;
    case HMAC_SHA512:
    case ED25519:
        return 64;
    case STATIC_EQUALITY:
        break;
    }
    return 0;
}

static size_t scheme_index(const struct platform *platform, const struct signature_scheme *scheme)
{
    return (size_t)(scheme - platform->schemes);
}

static bool decode_exactly(enum signature_encoding encoding, struct slice text, unsigned char *out,
                           size_t size)
{
    size_t len;
    bool fine = encoding == ENCODING_HEX ? codec_decode_hex(text, CODEC_LOWER_HEX, out, size, &len)
                                         : codec_decode_base64(text, out, size, &len);
    return fine && len == size;
}

static void mac_of(const struct secret_key *key, const struct message *message,
                   unsigned char digest[DIGEST_MAX])
{
    size_t len;
    EVP_MAC_CTX *ctx = EVP_MAC_CTX_dup(key->mac); /* keyed: neither look-up nor key set-up */
    if (ctx == NULL)
        abort();
    for (size_t i = 0; i < message->count; i++) {
        const void *bytes = message->parts[i].ptr;
        if (!EVP_MAC_update(ctx, bytes, message->parts[i].len))
            abort();
    }
    if (!EVP_MAC_final(ctx, digest, &len, DIGEST_MAX))
        abort();
    EVP_MAC_CTX_free(ctx);
}

/* Ed25519 hashes the message twice, so it must lie in one piece. */
static unsigned char *join(const struct message *message, size_t *ret_len)
{
    size_t len = 0;
    for (size_t i = 0; i < message->count; i++)
        len += message->parts[i].len;
    unsigned char *whole = xmalloc(len), *to = whole;
    for (size_t i = 0; i < message->count; i++) {
        memcpy(to, message->parts[i].ptr, message->parts[i].len);
        to += message->parts[i].len;
    }
    *ret_len = len;
    return whole;
}

static bool is_signed_by(EVP_PKEY *public_key, const unsigned char signature[DIGEST_MAX],
                         const unsigned char *whole, size_t len)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    if (ctx == NULL || EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, public_key) != 1)
        abort();
    bool fine = EVP_DigestVerify(ctx, signature, DIGEST_MAX, whole, len) == 1;
    EVP_MD_CTX_free(ctx);
    return fine;
}

/* What the candidates of one scheme decode to. */
struct digests {
    unsigned char bytes[PLATFORM_MAX_CANDIDATES][DIGEST_MAX];
    size_t count, size;
};

static bool any_mac_matches(const struct secret_key *key, const struct digests *digests,
                            const struct message *message)
{
    unsigned char ours[DIGEST_MAX];
    bool match = false;
    mac_of(key, message, ours);
    for (size_t i = 0; i < digests->count; i++)
        match |= CRYPTO_memcmp(ours, digests->bytes[i], digests->size) == 0;
    OPENSSL_cleanse(ours, sizeof ours); /* it would sign this message */
    return match;
}

/* Each try hashes the whole message, so anybody could have it hashed as often as he likes. */
static bool any_signature_matches(const struct request *request, const struct secret_key *key,
                                  const struct digests *digests, const unsigned char *whole,
                                  size_t len)
{
    for (size_t i = 0; i < digests->count; i++) {
        if (*request->tries == 0)
            return false;
        *request->tries -= 1;
        if (is_signed_by(key->public_key, digests->bytes[i], whole, len))
            return true;
    }
    return false;
}

/* The live secrets with a key for the scheme, one after the other: NULL at the end. */
static const struct secret *next_secret(const struct request *request,
                                        const struct signature_scheme *scheme, size_t *at,
                                        const struct secret_key **ret_key)
{
    size_t index = scheme_index(request->platform, scheme);
    while (*at < request->secrets->count) {
        const struct secret *secret = request->secrets->secrets[(*at)++];
        const struct secret_key *key = secret_key_for(secret, index);
        bool usable = key->mac != NULL || key->public_key != NULL || key->bytes.ptr != NULL;
        if (usable && secret_is_live(secret, request->now_wall_us)) {
            *ret_key = key;
            return secret;
        }
    }
    return NULL;
}

static bool has_key(const struct request *request, const struct signature_scheme *scheme)
{
    size_t at = 0;
    const struct secret_key *key;
    return next_secret(request, scheme, &at, &key) != NULL;
}

static const struct secret *find_signer(const struct request *request,
                                        const struct signature_scheme *scheme,
                                        const struct digests *digests,
                                        const struct message *message)
{
    size_t len = 0, at = 0;
    unsigned char *whole = scheme->algorithm == ED25519 ? join(message, &len) : NULL;
    const struct secret_key *key;
    const struct secret *secret;
    while ((secret = next_secret(request, scheme, &at, &key)) != NULL)
        if (whole != NULL ? any_signature_matches(request, key, digests, whole, len)
                          : any_mac_matches(key, digests, message))
            break;
    free(whole);
    return secret;
}

static bool static_equals(const struct signature_scheme *scheme, const struct secret_key *key,
                          struct slice text)
{
    unsigned char decoded[SECRET_TEXT_MAX];
    if (scheme->encoding == ENCODING_BASE64) {
        size_t len;
        if (!codec_decode_base64(text, decoded, sizeof decoded, &len))
            return false;
        text = (struct slice){(const char *)decoded, len};
    }
    bool equal =
        text.len == key->bytes.len && CRYPTO_memcmp(text.ptr, key->bytes.ptr, text.len) == 0;
    OPENSSL_cleanse(decoded, sizeof decoded);
    return equal;
}

static enum outcome judge_static(const struct request *request,
                                 const struct signature_scheme *scheme,
                                 const struct candidates *found, struct verification *ret)
{
    size_t at = 0, texts = 0;
    const struct secret_key *key;
    const struct secret *secret;
    for (size_t i = 0; i < found->count; i++)
        texts += found->texts[i].len > 0;
    if (texts == 0)
        return OUTCOME_SIGNATURE_MALFORMED;
    while ((secret = next_secret(request, scheme, &at, &key)) != NULL)
        for (size_t i = 0; i < found->count; i++)
            if (static_equals(scheme, key, found->texts[i])) {
                ret->secret = secret;
                return OUTCOME_NONE;
            }
    return OUTCOME_SIGNATURE_MISMATCH;
}

static enum outcome judge_digests(const struct request *request,
                                  const struct signature_scheme *scheme,
                                  const struct candidates *found, struct verification *ret)
{
    struct digests digests;
    digests.count = 0;
    digests.size = digest_size(scheme->algorithm);
    for (size_t i = 0; i < found->count; i++)
        if (decode_exactly(scheme->encoding, found->texts[i], digests.bytes[digests.count],
                           digests.size))
            digests.count++;
    if (digests.count == 0)
        return OUTCOME_SIGNATURE_MALFORMED;
    struct message message;
    enum outcome outcome = message_build(request->platform, scheme, request->in, request->base_url,
                                         ret->timestamp, &message);
    if (outcome != OUTCOME_NONE)
        return outcome;
    ret->secret = find_signer(request, scheme, &digests, &message);
    return ret->secret != NULL ? OUTCOME_NONE : OUTCOME_SIGNATURE_MISMATCH;
}

/* Every value must be a live secret: one that isn't would come in with the others. */
struct value_check {
    const struct request *request;
    const struct signature_scheme *scheme;
    const struct secret *first;
    size_t count;
    bool all;
};

static void on_value(struct slice text, void *context)
{
    struct value_check *check = context;
    const struct secret_key *key;
    const struct secret *secret = NULL;
    size_t at = 0;
    if (check->count++ == PLATFORM_MAX_VALUES)
        check->all = false;
    if (!check->all)
        return;
    while ((secret = next_secret(check->request, check->scheme, &at, &key)) != NULL)
        if (static_equals(check->scheme, key, text))
            break;
    if (secret == NULL)
        check->all = false;
    else if (check->first == NULL)
        check->first = secret;
}

static enum outcome judge_values(const struct request *request,
                                 const struct signature_scheme *scheme, struct verification *ret)
{
    struct value_check check = {.request = request, .scheme = scheme, .all = true};
    enum json_found found = json_every_text_at(request->json, scheme->json, on_value, &check);
    if (found != JSON_FOUND)
        return OUTCOME_SIGNATURE_MALFORMED;
    ret->secret = check.all ? check.first : NULL;
    return ret->secret != NULL ? OUTCOME_NONE : OUTCOME_SIGNATURE_MISMATCH;
}

static enum outcome judge(const struct request *request, const struct signature_scheme *scheme,
                          struct verification *ret)
{
    struct verification verification = {.scheme = scheme};
    struct candidates found;
    enum outcome outcome;
    if (!has_key(request, scheme))
        return OUTCOME_NO_SECRET;
    if (scheme->json != NULL) {
        outcome = judge_values(request, scheme, &verification);
    } else {
        if (!candidates_collect(request->platform, scheme, request->in, &found))
            return OUTCOME_SIGNATURE_MALFORMED;
        verification.timestamp = found.timestamp;
        const char *header = message_timestamp_header(request->platform, scheme);
        if (header != NULL)
            inbound_header_find(request->in, header, &verification.timestamp);
        outcome = scheme->algorithm == STATIC_EQUALITY
                      ? judge_static(request, scheme, &found, &verification)
                      : judge_digests(request, scheme, &found, &verification);
    }
    if (outcome == OUTCOME_NONE)
        *ret = verification;
    return outcome;
}

/* Of two schemes that share a header and both say no, the reason that came further is told. */
static int weight(enum outcome outcome)
{
    return outcome == OUTCOME_SIGNATURE_MISMATCH    ? 3
           : outcome == OUTCOME_TIMESTAMP_MISSING   ? 2
           : outcome == OUTCOME_SIGNATURE_MALFORMED ? 1
                                                    : 0;
}

enum outcome verify_signature(const struct platform *platform, const struct keyring *secrets,
                              const struct inbound *in, const struct json *json,
                              const char *base_url, int64_t now_wall_us, struct verification *ret)
{
    size_t tries = VERIFY_PUBLIC_TRIES;
    struct request request = {platform, secrets, in, json, base_url, now_wall_us, &tries};
    if (candidates_are_ambiguous(platform, in))
        return OUTCOME_SIGNATURE_REPEATED;
    const struct signature_scheme *end = platform->schemes + platform->scheme_count;
    const struct signature_scheme *first = platform->schemes;
    while (first < end && !candidates_present(first, in, json))
        first++;
    if (first == end)
        return OUTCOME_SIGNATURE_MISSING;

    enum outcome worst = OUTCOME_NO_SECRET;
    for (const struct signature_scheme *scheme = first; scheme < end; scheme++) {
        if (!candidates_share_place(first, scheme, in))
            continue;
        enum outcome outcome = judge(&request, scheme, ret);
        if (outcome == OUTCOME_NONE)
            return outcome;
        if (weight(outcome) > weight(worst))
            worst = outcome;
    }
    return worst;
}

static bool append(char *value, size_t size, size_t *at, struct slice text)
{
    if (text.len >= size - *at)
        return false;
    if (text.len > 0)
        memcpy(value + *at, text.ptr, text.len);
    *at += text.len;
    value[*at] = '\0';
    return true;
}

static bool append_encoded(char *value, size_t size, size_t *at, const unsigned char *bytes,
                           size_t len, enum signature_encoding encoding)
{
    size_t written;
    bool fine = encoding == ENCODING_HEX
                    ? codec_encode_hex(bytes, len, value + *at, size - *at, &written)
                    : codec_encode_base64(bytes, len, value + *at, size - *at, &written);
    if (fine)
        *at += written;
    return fine;
}

/* What stands before the digest: t=<timestamp>,v1= or v1, and the prefix. */
static bool append_front(const struct platform *platform, const struct signature_scheme *scheme,
                         struct slice timestamp, char *value, size_t size, size_t *at)
{
    bool fine = true;
    if (scheme->form == FORM_PAIRS) {
        const struct value_rule *time = &platform->timestamp.from;
        if (time->source == FROM_PAIR)
            fine = append(value, size, at, slice_of(time->name)) &&
                   append(value, size, at, SLICE_LITERAL("=")) &&
                   append(value, size, at, timestamp) &&
                   append(value, size, at, (struct slice){&scheme->separator, 1});
        fine = fine && append(value, size, at, scheme->version) &&
               append(value, size, at, SLICE_LITERAL("="));
    } else if (scheme->form == FORM_LIST) {
        fine =
            append(value, size, at, scheme->version) && append(value, size, at, SLICE_LITERAL(","));
    }
    return fine && append(value, size, at, scheme->prefix);
}

bool verify_sign(const struct platform *platform, const struct signature_scheme *scheme,
                 const struct secret *secret, const struct inbound *in, const char *base_url,
                 struct slice timestamp, char *value, size_t value_size)
{
    const struct secret_key *key = secret_key_for(secret, scheme_index(platform, scheme));
    size_t at = 0;
    if (value_size == 0 || !append_front(platform, scheme, timestamp, value, value_size, &at))
        return false;
    if (scheme->algorithm == STATIC_EQUALITY && key->bytes.ptr != NULL) {
        const void *bytes = key->bytes.ptr;
        return scheme->encoding == ENCODING_BASE64
                   ? append_encoded(value, value_size, &at, bytes, key->bytes.len, ENCODING_BASE64)
                   : append(value, value_size, &at, key->bytes);
    }
    struct message message;
    if (key->mac == NULL ||
        message_build(platform, scheme, in, base_url, timestamp, &message) != OUTCOME_NONE)
        return false;
    unsigned char digest[DIGEST_MAX];
    mac_of(key, &message, digest);
    return append_encoded(value, value_size, &at, digest, digest_size(scheme->algorithm),
                          scheme->encoding);
}

bool verify_digest(const struct platform *platform, const struct secret *secret, struct slice text,
                   enum signature_encoding encoding, char *value, size_t value_size)
{
    for (size_t i = 0; i < platform->scheme_count; i++) {
        const struct secret_key *key = secret_key_for(secret, i);
        if (key->mac == NULL)
            continue;
        struct message message = {.parts = {text}, .count = 1};
        unsigned char digest[DIGEST_MAX];
        size_t at = 0;
        mac_of(key, &message, digest);
        return value_size > 0 &&
               append_encoded(value, value_size, &at, digest,
                              digest_size(platform->schemes[i].algorithm), encoding);
    }
    return false;
}
