/* The identity of an event: the same four facts give the same id on every instance and for every
 * retry, so that a consumer can drop what comes twice. Called once per delivery. Thread: any. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "event.h"

#include "codec.h"
#include "obj.h"

#include <openssl/evp.h>
#include <pthread.h>

#define SHA256_SIZE 32

static pthread_once_t sha256_once = PTHREAD_ONCE_INIT;
static EVP_MD *sha256; /* fetched once: a fetch takes a lock and a look-up by name */

static void fetch_sha256(void)
{
    sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    if (sha256 == NULL)
        abort();
}

/* The length goes first, so that ("ab", "c") and ("a", "bc") differ. */
static void add_part(EVP_MD_CTX *ctx, struct slice part)
{
    assert(part.len <= UINT32_MAX);
    unsigned char len[4] = {(unsigned char)(part.len >> 24), (unsigned char)(part.len >> 16),
                            (unsigned char)(part.len >> 8), (unsigned char)part.len};
    if (!EVP_DigestUpdate(ctx, len, sizeof len) || !EVP_DigestUpdate(ctx, part.ptr, part.len))
        abort();
}

struct event_id event_id_of(struct slice workspace, struct slice platform, struct slice type,
                            struct slice external_id)
{
    pthread_once(&sha256_once, fetch_sha256);
    unsigned char digest[SHA256_SIZE];
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    if (ctx == NULL || !EVP_DigestInit_ex2(ctx, sha256, NULL))
        abort();
    add_part(ctx, workspace);
    add_part(ctx, platform);
    add_part(ctx, type);
    add_part(ctx, external_id);
    if (!EVP_DigestFinal_ex(ctx, digest, NULL))
        abort();
    EVP_MD_CTX_free(ctx);

    struct event_id id;
    memcpy(id.bytes, digest, sizeof id.bytes);
    id.bytes[6] = (unsigned char)((id.bytes[6] & 0x0f) | 0x80); /* version 8 */
    id.bytes[8] = (unsigned char)((id.bytes[8] & 0x3f) | 0x80); /* variant of RFC 9562 */
    return id;
}

void event_digest(struct slice body, unsigned char ret[EVENT_DIGEST_SIZE])
{
    pthread_once(&sha256_once, fetch_sha256);
    if (!EVP_Digest(body.ptr, body.len, ret, NULL, sha256, NULL))
        abort();
}

void event_id_format(struct event_id id, char text[EVENT_ID_TEXT])
{
    static const struct {
        size_t at, len;
    } groups[] = {{0, 4}, {4, 2}, {6, 2}, {8, 2}, {10, 6}};
    char *to = text;
    for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++) {
        char hex[13];
        size_t len;
        bool fits = codec_encode_hex(id.bytes + groups[i].at, groups[i].len, hex, sizeof hex, &len);
        assert(fits);
        if (i > 0)
            *to++ = '-';
        memcpy(to, hex, len);
        to += len;
    }
    *to = '\0';
}

bool event_id_parse(struct slice text, struct event_id *ret)
{
    char hex[32];
    size_t len = 0, decoded;
    if (text.len != EVENT_ID_TEXT - 1)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        bool hyphen = i == 8 || i == 13 || i == 18 || i == 23;
        if (hyphen != (text.ptr[i] == '-'))
            return false;
        if (!hyphen)
            hex[len++] = text.ptr[i];
    }
    return codec_decode_hex((struct slice){hex, len}, CODEC_LOWER_HEX, ret->bytes,
                            sizeof ret->bytes, &decoded);
}
