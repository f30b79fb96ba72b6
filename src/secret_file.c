/* The reader behind secret_file.h, for passwords of Postgres and Kafka. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "secret_file.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <unistd.h>

static char *failed(const char *path, const char *why, char **ret_reason)
{
    if (asprintf(ret_reason, "%s: %s", path, why) < 0)
        abort();
    return NULL;
}

char *secret_file_read(const char *path, char **ret_reason)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return failed(path, strerror(errno), ret_reason);
    char *text = xcalloc(1, SECRET_FILE_MAX + 1);
    size_t len = 0;
    ssize_t got = 0;
    while (len < SECRET_FILE_MAX && (got = read(fd, text + len, SECRET_FILE_MAX - len)) > 0)
        len += (size_t)got;
    int error = errno;
    close(fd);

    const char *why = NULL;
    if (got < 0)
        why = strerror(error);
    else if (len == SECRET_FILE_MAX)
        why = "too long for a secret";
    else if (memchr(text, '\0', len))
        why = "holds a NUL byte";
    if (len > 0 && text[len - 1] == '\n')
        text[--len] = '\0';
    if (why == NULL && len == 0)
        why = "is empty";
    if (why == NULL)
        return text;
    OPENSSL_cleanse(text, SECRET_FILE_MAX);
    free(text);
    return failed(path, why, ret_reason);
}
