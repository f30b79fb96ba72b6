/* The reader behind secret_file.h. Called when the configuration is read, by the loader, by
 * whoever connects to Postgres or Kafka, and by commands. Thread: any. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "secret_file.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_credential(const char *path)
{
    const char *directory = getenv("CREDENTIALS_DIRECTORY");
    size_t len = directory != NULL ? strlen(directory) : 0;
    return len > 0 && directory[0] == '/' && strncmp(path, directory, len) == 0 &&
           path[len] == '/' && strstr(path, "/..") == NULL;
}

/* What is wrong, or NULL; `text` is room for it. */
static const char *check(int fd, const char *path, char *text, size_t size)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return strerror(errno);
    if (!S_ISREG(st.st_mode))
        return "is no regular file";
    if (is_credential(path) || (st.st_mode & 077) == 0)
        return NULL;
    snprintf(text, size,
             "is open to group or others (mode %04o); its owner's alone would be right: chmod 600",
             (unsigned)(st.st_mode & 07777));
    return text;
}

/* Up to `max` + 1 bytes. */
static bool read_all(int fd, size_t max, struct secret_file *file)
{
    while (file->len <= max) {
        ssize_t got = read(fd, file->bytes + file->len, max + 1 - file->len);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got == 0;
        file->len += (size_t)got;
    }
    return true;
}

static const char *read_checked(int fd, const char *path, size_t max, bool strict,
                                struct secret_file *file, char *text, size_t size)
{
    const char *why = strict ? check(fd, path, text, size) : NULL;
    if (why != NULL)
        return why;
    if (!read_all(fd, max, file))
        return strerror(errno);
    if (file->len > max) {
        snprintf(text, size, "is longer than %zu bytes", max);
        return text;
    }
    return file->len == 0 ? "is empty" : NULL;
}

bool secret_file_read(const char *path, size_t max, bool strict, struct secret_file *ret,
                      char **ret_reason)
{
    assert(max <= SECRET_FILE_MAX);
    char text[160];
    const char *why;
    *ret = (struct secret_file){.bytes = xcalloc(1, max + 2)};
    /* Without O_NONBLOCK, opening a pipe that nobody writes to would wait for ever. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | (strict ? O_NONBLOCK : 0));
    if (fd < 0) {
        snprintf(text, sizeof text, "can't be opened: %s", strerror(errno));
        why = text;
    } else {
        why = read_checked(fd, path, max, strict, ret, text, sizeof text);
        close(fd);
    }
    if (why == NULL)
        return true;
    ret->len = max + 1; /* all of it may hold something */
    secret_file_release(ret);
    if (asprintf(ret_reason, "%s: %s", path, why) < 0)
        abort();
    return false;
}

void secret_file_release(struct secret_file *file)
{
    if (file->bytes != NULL)
        OPENSSL_cleanse(file->bytes, file->len);
    free(file->bytes);
    *file = (struct secret_file){0};
}

struct slice secret_file_slice(const struct secret_file *file)
{
    return (struct slice){file->bytes, file->len};
}

char *secret_file_password(const char *path, char **ret_reason)
{
    struct secret_file file;
    if (!secret_file_read(path, SECRET_FILE_MAX, true, &file, ret_reason))
        return NULL;
    const char *why = NULL;
    if (file.bytes[file.len - 1] == '\n')
        file.bytes[--file.len] = '\0';
    if (file.len == 0)
        why = "is empty";
    else if (memchr(file.bytes, '\0', file.len) != NULL)
        why = "holds a NUL byte";
    char *password = why == NULL ? xstrdup(file.bytes) : NULL;
    secret_file_release(&file);
    if (why != NULL && asprintf(ret_reason, "%s: %s", path, why) < 0)
        abort();
    return password;
}
