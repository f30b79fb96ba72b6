/* `hookgate seal`: makes a key, or seals a secret from standard input for core.integration_secrets.
 * The secret never stands on a command line, where others could read it. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "seal.h"
#include "codec.h"
#include "command.h"
#include "config.h"
#include "options.h"
#include "reseal.h"

#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <stdio.h>

static int usage(FILE *out, int status)
{
    fputs("usage: hookgate seal --key-file FILE --integration UUID < SECRET\n"
          "       hookgate seal --rotate [--config FILE]\n"
          "       hookgate seal --new-key > FILE\n\n"
          "Seals a signing secret (one trailing newline is trimmed) and prints it as a bytea "
          "literal for\ncore.integration_secrets.sealed; it opens for this integration only. "
          "--rotate seals all that is stored\nthere anew with the first key of postgres.key_file, "
          "so that the other keys can be taken out; run\nagain, it goes on.\n\n"
          "  --key-file FILE     32 raw bytes, or lines of hex or base64; the first key seals\n"
          "  --integration UUID  core.integrations.integration_id\n"
          "  --rotate            seal anew what other keys than the first one sealed\n"
          "  --config FILE       default conf/hookgate.yaml, then /etc/hookgate/hookgate.yaml\n"
          "  --new-key           print a fresh key in hex\n",
          out);
    return status;
}

static int print_hex(const char *prefix, const unsigned char *bytes, size_t len)
{
    char hex[(SEAL_PLAIN_MAX + SEAL_OVERHEAD) * 2 + 1];
    size_t hex_len = 0;
    if (!codec_encode_hex(bytes, len, hex, sizeof hex, &hex_len))
        return 1;
    bool fine = printf("%s%s\n", prefix, hex) > 0 && fflush(stdout) == 0;
    OPENSSL_cleanse(hex, sizeof hex);
    return fine ? 0 : 1;
}

static int new_key(void)
{
    unsigned char key[SEAL_KEY_BYTES];
    if (RAND_priv_bytes(key, sizeof key) != 1) {
        fputs("hookgate seal: no random bytes\n", stderr);
        return 1;
    }
    int status = print_hex("", key, sizeof key);
    OPENSSL_cleanse(key, sizeof key);
    return status;
}

static int seal(const char *key_file, const char *integration)
{
    char uuid[SEAL_UUID_TEXT];
    if (!seal_uuid(integration, uuid)) {
        fprintf(stderr, "hookgate seal: --integration must be a UUID\n");
        return 2;
    }
    char *reason = NULL;
    struct seal_keys *keys = seal_keys_read(key_file, &reason);
    if (keys == NULL) {
        fprintf(stderr, "hookgate seal: %s\n", reason);
        free(reason);
        return 2;
    }
    char plain[SEAL_PLAIN_MAX + 2];
    unsigned char sealed[SEAL_PLAIN_MAX + SEAL_OVERHEAD];
    setvbuf(stdin, NULL, _IONBF, 0); /* no second copy of the secret in a buffer */
    size_t len = fread(plain, 1, sizeof plain, stdin), sealed_len = 0;
    bool whole = !ferror(stdin) && len < sizeof plain;
    if (len > 0 && plain[len - 1] == '\n')
        len--;
    int status = 1;
    if (!whole || len == 0 || len > SEAL_PLAIN_MAX)
        fprintf(stderr, "hookgate seal: the secret must have 1 to %d bytes\n", SEAL_PLAIN_MAX);
    else if (!seal_close(keys, slice_of(uuid), (struct slice){plain, len}, sealed, &sealed_len))
        fputs("hookgate seal: sealing failed\n", stderr);
    else
        status = print_hex("\\x", sealed, sealed_len);
    OPENSSL_cleanse(plain, sizeof plain);
    seal_keys_free(keys);
    return status;
}

static int rotate_with(const struct config *config)
{
    struct reseal_counts counts = {0};
    char *reason = NULL;
    if (config->postgres.key_file == NULL) {
        fprintf(stderr, "hookgate seal: %s: postgres.key_file is not set\n", config->path);
        return 2;
    }
    struct seal_keys *keys = seal_keys_read(config->postgres.key_file, &reason);
    if (keys == NULL) {
        fprintf(stderr, "hookgate seal: %s\n", reason);
        free(reason);
        return 2;
    }
    bool fine = reseal_run(config, keys, &counts, stderr);
    seal_keys_free(keys);
    printf("%llu sealed anew, %llu sealed with the first key already, %llu that no key of the file "
           "opens\n",
           (unsigned long long)counts.sealed, (unsigned long long)counts.already,
           (unsigned long long)counts.foreign);
    return fine && counts.foreign == 0 ? 0 : 1;
}

static int rotate(const char *path)
{
    struct config *config = options_config(path);
    int status = config != NULL ? rotate_with(config) : 2;
    config_free(config);
    return status;
}

int command_seal(int argc, char **argv)
{
    const char *key_file = NULL, *integration = NULL, *config = NULL;
    bool fresh = false, rotation = false;
    const struct command_option known[] = {{"new-key", .flag = &fresh},
                                           {"rotate", .flag = &rotation},
                                           {"config", .value = &config},
                                           {"key-file", .value = &key_file},
                                           {"integration", .value = &integration},
                                           {0}};
    int status = options_read(argc, argv, known, usage, NULL);
    if (status >= 0)
        return status;
    if (rotation && !fresh && key_file == NULL && integration == NULL)
        return rotate(config);
    if (fresh && !rotation && key_file == NULL && integration == NULL && config == NULL)
        return new_key();
    if (fresh || rotation || config != NULL || key_file == NULL || integration == NULL)
        return usage(stderr, 2);
    return seal(key_file, integration);
}
