/* AES-256-GCM for the secrets of integrations. The nonce is random: 2^32 secrets under one key
 * would be too many, and there are a few per integration. Called by the loader (opens) and
 * `hookgate seal` (closes). Thread: any. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "seal.h"

#include "codec.h"
#include "secret_file.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <stdio.h>

#define VERSION 1
#define NONCE_BYTES 12
#define TAG_BYTES 16
#define FILE_MAX 8192

_Static_assert(1 + NONCE_BYTES + TAG_BYTES == SEAL_OVERHEAD, "the format of seal.h");

struct seal_keys {
    unsigned char keys[SEAL_KEYS_MAX][SEAL_KEY_BYTES];
    size_t count;
};

static bool parse_line(struct slice line, unsigned char key[SEAL_KEY_BYTES])
{
    size_t len = 0;
    if (line.len == SEAL_KEY_BYTES * 2)
        return codec_decode_hex(line, CODEC_ANY_HEX, key, SEAL_KEY_BYTES, &len) &&
               len == SEAL_KEY_BYTES;
    return codec_decode_base64(line, key, SEAL_KEY_BYTES, &len) && len == SEAL_KEY_BYTES;
}

struct seal_keys *seal_keys_parse(struct slice file, const char **ret_reason)
{
    struct seal_keys *keys = xcalloc(1, sizeof *keys);
    const char *reason = NULL;
    if (file.len == SEAL_KEY_BYTES) {
        memcpy(keys->keys[keys->count++], file.ptr, SEAL_KEY_BYTES);
        return keys;
    }
    while (file.len > 0 && reason == NULL) {
        const char *end = memchr(file.ptr, '\n', file.len);
        size_t len = end != NULL ? (size_t)(end - file.ptr) : file.len;
        struct slice line = slice_trim((struct slice){file.ptr, len});
        file = slice_from(file, end != NULL ? len + 1 : len);
        if (line.len > 0 && line.ptr[line.len - 1] == '\r')
            line.len--;
        if (line.len == 0)
            continue;
        if (keys->count == SEAL_KEYS_MAX)
            reason = "the key file holds more than 16 keys";
        else if (!parse_line(line, keys->keys[keys->count]))
            reason = "the key file must hold 32 raw bytes, or lines of 64 hex digits or of base64 "
                     "of 32 bytes";
        else
            keys->count++;
    }
    if (reason == NULL && keys->count == 0)
        reason = "the key file is empty";
    if (reason != NULL) {
        seal_keys_free(keys);
        *ret_reason = reason;
        return NULL;
    }
    return keys;
}

struct seal_keys *seal_keys_read(const char *path, char **ret_reason)
{
    struct secret_file file;
    const char *why = NULL;
    if (!secret_file_read(path, FILE_MAX, true, &file, ret_reason))
        return NULL;
    struct seal_keys *keys = seal_keys_parse(secret_file_slice(&file), &why);
    secret_file_release(&file);
    if (keys == NULL && asprintf(ret_reason, "%s: %s", path, why) < 0)
        abort();
    return keys;
}

bool seal_keys_equal(const struct seal_keys *a, const struct seal_keys *b)
{
    if (a == NULL || b == NULL)
        return a == b;
    return a->count == b->count && CRYPTO_memcmp(a->keys, b->keys, a->count * SEAL_KEY_BYTES) == 0;
}

void seal_keys_free(struct seal_keys *keys)
{
    if (keys == NULL)
        return;
    OPENSSL_cleanse(keys, sizeof *keys);
    free(keys);
}

bool seal_close(const struct seal_keys *keys, struct slice bound, struct slice plain,
                unsigned char *out, size_t *ret_len)
{
    if (plain.len == 0 || plain.len > SEAL_PLAIN_MAX || bound.len > SEAL_PLAIN_MAX)
        return false;
    unsigned char *nonce = out + 1, *tag = nonce + NONCE_BYTES, *text = tag + TAG_BYTES;
    if (RAND_bytes(nonce, NONCE_BYTES) != 1)
        return false;
    out[0] = VERSION;
    int len = 0, last = 0;
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    bool fine =
        ctx != NULL &&
        EVP_EncryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, keys->keys[0], nonce) == 1 &&
        EVP_EncryptUpdate(ctx, NULL, &len, (const unsigned char *)bound.ptr, (int)bound.len) == 1 &&
        EVP_EncryptUpdate(ctx, text, &len, (const unsigned char *)plain.ptr, (int)plain.len) == 1 &&
        EVP_EncryptFinal_ex(ctx, text + len, &last) == 1 &&
        EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_GET_TAG, TAG_BYTES, tag) == 1;
    EVP_CIPHER_CTX_free(ctx);
    if (fine)
        *ret_len = SEAL_OVERHEAD + plain.len;
    return fine;
}

static bool open_with(const unsigned char *key, struct slice bound, struct slice sealed,
                      unsigned char *out)
{
    const unsigned char *bytes = (const unsigned char *)sealed.ptr;
    unsigned char tag[TAG_BYTES];
    memcpy(tag, bytes + 1 + NONCE_BYTES, TAG_BYTES);
    int len = 0, last = 0;
    int text_len = (int)(sealed.len - SEAL_OVERHEAD);
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    bool fine =
        ctx != NULL && EVP_DecryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, bytes + 1) == 1 &&
        EVP_DecryptUpdate(ctx, NULL, &len, (const unsigned char *)bound.ptr, (int)bound.len) == 1 &&
        EVP_DecryptUpdate(ctx, out, &len, bytes + SEAL_OVERHEAD, text_len) == 1 &&
        EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_SET_TAG, TAG_BYTES, tag) == 1 &&
        EVP_DecryptFinal_ex(ctx, out + len, &last) == 1;
    EVP_CIPHER_CTX_free(ctx);
    return fine;
}

bool seal_open(const struct seal_keys *keys, struct slice bound, struct slice sealed,
               unsigned char *out, size_t *ret_len)
{
    size_t key;
    return seal_open_by(keys, bound, sealed, out, ret_len, &key);
}

bool seal_open_by(const struct seal_keys *keys, struct slice bound, struct slice sealed,
                  unsigned char *out, size_t *ret_len, size_t *ret_key)
{
    if (sealed.len <= SEAL_OVERHEAD || sealed.len > SEAL_OVERHEAD + SEAL_PLAIN_MAX ||
        bound.len > SEAL_PLAIN_MAX || (unsigned char)sealed.ptr[0] != VERSION)
        return false;
    for (size_t i = 0; i < keys->count; i++) {
        if (open_with(keys->keys[i], bound, sealed, out)) {
            *ret_len = sealed.len - SEAL_OVERHEAD;
            *ret_key = i;
            return true;
        }
    }
    /* Deciphered without a matching tag: bytes that nobody vouches for. */
    OPENSSL_cleanse(out, sealed.len - SEAL_OVERHEAD);
    return false;
}

void seal_digest(struct slice text, unsigned char digest[SEAL_DIGEST])
{
    SHA256((const unsigned char *)text.ptr, text.len, digest);
}

bool seal_uuid(const char *text, char canonical[SEAL_UUID_TEXT])
{
    if (strlen(text) != SEAL_UUID_TEXT - 1)
        return false;
    char done[SEAL_UUID_TEXT] = {0};
    for (size_t i = 0; i < SEAL_UUID_TEXT - 1; i++) {
        char c = text[i];
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (c >= 'A' && c <= 'F')
            c = (char)(c - 'A' + 'a');
        if (dash ? c != '-' : !((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
            return false;
        done[i] = c;
    }
    memcpy(canonical, done, sizeof done);
    return true;
}
