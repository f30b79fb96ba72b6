/* Secrets from files: finds the file, refuses one that others can read, and adds each line to a
 * keyring (secret.h). Called when the configuration is loaded and by the commands. Problems name
 * the file and line, never what stands there; what was read is cleansed. Thread: any. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "secret.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX 16384 /* SECRETS_MAX lines of SECRET_BYTES_MAX bytes, and some */

struct secret_file {
    char *path;
    bool credential; /* below $CREDENTIALS_DIRECTORY, which systemd keeps private by itself */
    struct problems *problems;
    char bytes[FILE_MAX];
    size_t len;
};

static char *join(const char *directory, const char *path)
{
    char *joined;
    if (asprintf(&joined, "%s/%s", directory, path) < 0)
        abort();
    return joined;
}

static bool is_below(const char *path, const char *directory)
{
    size_t len = strlen(directory);
    return strncmp(path, directory, len) == 0 && path[len] == '/' && strstr(path, "/..") == NULL;
}

/* Sets path and credential. */
static int open_secret(struct secret_file *file, const char *path, const char *base_directory)
{
    const char *credentials = getenv("CREDENTIALS_DIRECTORY");
    if (credentials != NULL && credentials[0] != '/')
        credentials = NULL;
    if (credentials != NULL && path[0] != '/') {
        file->path = join(credentials, path);
        file->credential = is_below(file->path, credentials);
        int fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
        if (fd >= 0 || errno != ENOENT)
            return fd;
        free(file->path);
    }
    file->path =
        path[0] == '/' || base_directory == NULL ? xstrdup(path) : join(base_directory, path);
    file->credential = credentials != NULL && is_below(file->path, credentials);
    return open(file->path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
}

static bool read_all(struct secret_file *file, int fd)
{
    while (file->len < sizeof file->bytes) {
        ssize_t got = read(fd, file->bytes + file->len, sizeof file->bytes - file->len);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            problem_add(file->problems, file->path, 0, 0, "can't be read: %s", strerror(errno));
            return false;
        }
        if (got == 0)
            return true;
        file->len += (size_t)got;
    }
    problem_add(file->problems, file->path, 0, 0,
                "is longer than %d bytes; a secret file holds one secret a line", FILE_MAX - 1);
    return false;
}

static bool check_and_read(struct secret_file *file, int fd, bool check_mode)
{
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0) {
        problem_add(file->problems, file->path, 0, 0, "can't be opened: %s", strerror(errno));
        return false;
    }
    if (check_mode && !file->credential && (st.st_mode & 077) != 0) {
        problem_add(file->problems, file->path, 0, 0,
                    "is open to group or others (mode %04o); a secret's file must be its owner's "
                    "alone: chmod 600",
                    (unsigned)(st.st_mode & 07777));
        return false;
    }
    return read_all(file, fd);
}

static bool has_control(struct slice line)
{
    for (size_t i = 0; i < line.len; i++)
        if ((unsigned char)line.ptr[i] < 0x20 || line.ptr[i] == 0x7f)
            return true;
    return false;
}

static bool add_line(struct keyring *keyring, const struct platform *platform,
                     const struct secret_file *file, struct slice line, size_t number)
{
    const char *reason = NULL, *slash = strrchr(file->path, '/');
    const char *base = slash != NULL ? slash + 1 : file->path;
    if (line.len == 0)
        reason = "it is empty";
    else if (has_control(line))
        reason = "it holds a control character";
    else if (keyring->count == SECRETS_MAX)
        reason = "there are more than 8 live secrets";
    struct secret *secret = NULL;
    if (reason == NULL) {
        char label[300];
        if (number == 1)
            snprintf(label, sizeof label, "%s", base);
        else
            snprintf(label, sizeof label, "%s-%zu", base, number);
        secret = secret_new(platform, label, line, 0, &reason);
    }
    if (secret == NULL) {
        problem_add(file->problems, file->path, number, 0, "this secret can't be used: %s", reason);
        return false;
    }
    keyring->secrets[keyring->count++] = secret;
    return true;
}

static bool add_lines(struct keyring *keyring, const struct platform *platform,
                      const struct secret_file *file)
{
    struct slice rest = {file->bytes, file->len};
    if (rest.len == 0) {
        problem_add(file->problems, file->path, 0, 0, "is empty; it must hold a secret");
        return false;
    }
    bool fine = true;
    for (size_t number = 1; rest.len > 0; number++) {
        const char *newline = memchr(rest.ptr, '\n', rest.len);
        struct slice line = {rest.ptr, newline != NULL ? (size_t)(newline - rest.ptr) : rest.len};
        rest = slice_from(rest, line.len + 1);
        if (newline != NULL && line.len > 0 && line.ptr[line.len - 1] == '\r')
            line.len--;
        fine = add_line(keyring, platform, file, line, number) && fine;
    }
    return fine;
}

bool keyring_add_file(struct keyring *keyring, const struct platform *platform, const char *path,
                      const char *base_directory, bool check_mode, struct problems *problems)
{
    struct secret_file *file = xcalloc(1, sizeof *file);
    file->problems = problems;
    int fd = open_secret(file, path, base_directory);
    bool fine = check_and_read(file, fd, check_mode) && add_lines(keyring, platform, file);
    if (fd >= 0)
        close(fd);
    free(file->path);
    OPENSSL_cleanse(file, sizeof *file);
    free(file);
    return fine;
}
