/* The files that the configuration names, looked at before anything depends on them: whether they
 * can be read, are closed to others where they hold a secret, and have the outward form. Called by
 * serve and check at start. Whether a key fits its certificate is the TLS library's to say.
 * Platforms' secrets are not here: they are read with the platforms. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "seal.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_MAX_BYTES = 1 << 20 };

struct named_file {
    const char *section, *key; /* where the configuration names it */
    const char *path;          /* NULL = not named */
    bool is_secret;
    size_t max; /* bytes */
};

static const struct yaml_node *where(const struct config *config, const struct named_file *file)
{
    return yaml_node_get(yaml_node_get(yaml_root(config->yaml), file->section), file->key);
}

static bool is_credential(const char *path)
{
    const char *directory = getenv("CREDENTIALS_DIRECTORY");
    size_t len = directory != NULL ? strlen(directory) : 0;

    return len > 0 && strncmp(path, directory, len) == 0 && path[len] == '/';
}

/* NULL, or why not. errno tells more when it says "can't". */
static const char *read_all(int fd, const struct named_file *file, bool credential, char *out,
                            size_t *ret_len)
{
    struct stat status;
    size_t len = 0;

    if (fstat(fd, &status) != 0)
        return "can't be read";
    errno = 0;
    if (!S_ISREG(status.st_mode))
        return "is no regular file";
    if (file->is_secret && !credential && (status.st_mode & (S_IRWXG | S_IRWXO)) != 0)
        return "is open to group or others; mode 0600 or 0400 would be right";
    while (len <= file->max) {
        ssize_t n = read(fd, out + len, file->max + 1 - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return "can't be read";
        if (n == 0)
            break;
        len += (size_t)n;
    }
    errno = 0;
    if (len > file->max)
        return "is too large for what it should be";
    if (len == 0 || (len == 1 && out[0] == '\n'))
        return "is empty";
    out[len] = '\0';
    *ret_len = len;
    return NULL;
}

/* The contents, freed with release(); NULL when a problem was added. */
static char *read_named(const struct config *config, const struct named_file *file, size_t *ret_len,
                        struct problems *problems)
{
    char *text = xcalloc(1, file->max + 2);
    const char *why = "can't be opened";

    int fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd >= 0) {
        why = read_all(fd, file, is_credential(file->path), text, ret_len);
        int saved = errno;
        close(fd);
        errno = saved;
    }
    if (why == NULL)
        return text;
    yaml_problem(where(config, file), problems, "%s %s%s%s", file->path, why,
                 errno != 0 ? ": " : "", errno != 0 ? strerror(errno) : "");
    OPENSSL_cleanse(text, file->max);
    free(text);
    return NULL;
}

static void release(char *text, size_t len)
{
    OPENSSL_cleanse(text, len);
    free(text);
}

/* `marks` are texts of which one must stand in a PEM file; NULL = any contents will do. */
static void check_file(const struct config *config, const struct named_file *file,
                       const char *const *marks, const char *wanted, struct problems *problems)
{
    size_t len;

    if (file->path == NULL)
        return;
    char *text = read_named(config, file, &len, problems);
    if (text == NULL)
        return;
    bool good = marks == NULL;
    for (size_t i = 0; marks != NULL && marks[i] != NULL; i++)
        good |= strstr(text, marks[i]) != NULL;
    if (!good)
        yaml_problem(where(config, file), problems, "%s holds no such thing; %s would be right",
                     file->path, wanted);
    release(text, len);
}

static void check_key_file(const struct config *config, struct problems *problems)
{
    const struct named_file file = {"postgres", "key_file", config->postgres.key_file};
    const char *reason;

    if (file.path == NULL)
        return;
    struct seal_keys *keys = seal_keys_read(file.path, &reason);
    if (keys == NULL)
        yaml_problem(where(config, &file), problems, "%s: %s", file.path, reason);
    seal_keys_free(keys);
}

bool config_check_files(const struct config *config, struct problems *problems)
{
    static const char *const certificate_marks[] = {"-----BEGIN CERTIFICATE-----",
                                                    "-----BEGIN TRUSTED CERTIFICATE-----", NULL};
    static const char *const key_marks[] = {"-----BEGIN PRIVATE KEY-----",
                                            "-----BEGIN RSA PRIVATE KEY-----",
                                            "-----BEGIN EC PRIVATE KEY-----", NULL};
    size_t before = problems->count + problems->dropped;

    if (config->listen.https.text != NULL) {
        const struct named_file certificate = {"listen", "certificate", config->listen.certificate,
                                               .max = FILE_MAX_BYTES};
        const struct named_file key = {"listen", "key", config->listen.key, .is_secret = true,
                                       .max = FILE_MAX_BYTES};
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
    return problems->count + problems->dropped == before;
}
