/* The files that the configuration names, looked at before anything depends on them: whether they
 * can be read, are closed to others where they hold a secret, and have the outward form. Called by
 * setup.c, at start and at each reload, and by check. Whether a key fits its certificate is the TLS
 * library's to say. Platforms' secrets are not here: they are read with the platforms. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "seal.h"
#include "secret_file.h"

struct named_file {
    const char *section, *key; /* where the configuration names it */
    const char *path;          /* NULL = not named */
    bool is_secret;
    size_t max; /* bytes */
};

static const struct yaml_node *where(const struct config *config, const struct named_file *file)
{
    return config_place(config, file->section, file->key);
}

/* `marks` are texts of which one must stand in a PEM file; NULL = any contents will do. */
static void check_file(const struct config *config, const struct named_file *file,
                       const char *const *marks, const char *wanted, struct problems *problems)
{
    struct secret_file contents;
    char *reason = NULL;

    if (file->path == NULL)
        return;
    if (!secret_file_read(file->path, file->max, file->is_secret, &contents, &reason)) {
        yaml_problem(where(config, file), problems, "%s", reason);
        free(reason);
        return;
    }
    bool good = marks == NULL;
    for (size_t i = 0; marks != NULL && marks[i] != NULL; i++)
        good |= strstr(contents.bytes, marks[i]) != NULL;
    if (!good)
        yaml_problem(where(config, file), problems, "%s holds no such thing; %s would be right",
                     file->path, wanted);
    secret_file_release(&contents);
}

static void check_key_file(const struct config *config, struct problems *problems)
{
    const struct named_file file = {"postgres", "key_file", config->postgres.key_file};
    char *reason = NULL;

    if (file.path == NULL)
        return;
    struct seal_keys *keys = seal_keys_read(file.path, &reason);
    if (keys == NULL)
        yaml_problem(where(config, &file), problems, "%s", reason);
    free(reason);
    seal_keys_free(keys);
}

bool config_check_files(const struct config *config, struct problems *problems)
{
    static const char *const certificate_marks[] = {"-----BEGIN CERTIFICATE-----",
                                                    "-----BEGIN TRUSTED CERTIFICATE-----", NULL};
    static const char *const key_marks[] = {"-----BEGIN PRIVATE KEY-----",
                                            "-----BEGIN RSA PRIVATE KEY-----",
                                            "-----BEGIN EC PRIVATE KEY-----", NULL};
    size_t before = problems_total(problems);

    if (config->listen.https.text != NULL) {
        const struct named_file certificate = {"listen", "certificate", config->listen.certificate,
                                               .max = SECRET_FILE_MAX};
        const struct named_file key = {"listen", "key", config->listen.key, .is_secret = true,
                                       .max = SECRET_FILE_MAX};
        check_file(config, &certificate, certificate_marks, "a certificate in PEM", problems);
        check_file(config, &key, key_marks, "a private key in PEM without a passphrase", problems);
    }
    const struct named_file postgres = {"postgres", "password_file", config->postgres.password_file,
                                        .is_secret = true, .max = 1024};
    const struct named_file kafka = {"kafka", "password_file", config->kafka.password_file,
                                     .is_secret = true, .max = 4096};
    check_file(config, &postgres, NULL, NULL, problems);
    check_file(config, &kafka, NULL, NULL, problems);
    check_key_file(config, problems);
    return problems_total(problems) == before;
}
