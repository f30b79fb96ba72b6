/* Secrets from files: adds each line to a keyring (secret.h). Called when the configuration is
 * loaded and by the commands. Problems name the file and line, never what stands there. Thread:
 * any. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "secret.h"
#include "secret_file.h"
#include "yaml.h"

#include <stdio.h>

#define FILE_MAX 16384 /* SECRETS_MAX lines of SECRET_BYTES_MAX bytes, and some */

/* A file while it is read. */
struct reading {
    struct keyring *keyring;
    const struct platform *platform;
    const struct keyring_file *file;
    struct problems *problems;
};

static bool has_control(struct slice line)
{
    for (size_t i = 0; i < line.len; i++)
        if ((unsigned char)line.ptr[i] < 0x20 || line.ptr[i] == 0x7f)
            return true;
    return false;
}

static bool add_line(const struct reading *reading, struct slice line, size_t number)
{
    struct keyring *keyring = reading->keyring;
    const char *path = reading->file->path, *slash = strrchr(path, '/'), *reason = NULL;
    const char *base = slash != NULL ? slash + 1 : path;
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
        secret =
            secret_new(reading->platform, label, line, reading->file->not_after_wall_us, &reason);
    }
    if (secret == NULL) {
        problem_add(reading->problems, path, number, 1, "this secret can't be used: %s", reason);
        return false;
    }
    keyring->secrets[keyring->count++] = secret;
    return true;
}

static bool add_lines(const struct reading *reading, struct slice rest)
{
    bool fine = true;
    for (size_t number = 1; rest.len > 0; number++) {
        const char *newline = memchr(rest.ptr, '\n', rest.len);
        struct slice line = {rest.ptr, newline != NULL ? (size_t)(newline - rest.ptr) : rest.len};
        rest = slice_from(rest, line.len + 1);
        if (newline != NULL && line.len > 0 && line.ptr[line.len - 1] == '\r')
            line.len--;
        fine = add_line(reading, line, number) && fine;
    }
    return fine;
}

bool keyring_add_file(struct keyring *keyring, const struct platform *platform,
                      const struct keyring_file *file, struct problems *problems)
{
    const struct reading reading = {keyring, platform, file, problems};
    struct secret_file contents;
    char *reason = NULL;
    if (!secret_file_read(file->path, FILE_MAX, file->strict, &contents, &reason)) {
        if (file->where != NULL)
            yaml_problem(file->where, problems, "%s", reason);
        else
            problem_add(problems, NULL, 0, 0, "%s", reason);
        free(reason);
        return false;
    }
    bool fine = add_lines(&reading, secret_file_slice(&contents));
    secret_file_release(&contents);
    return fine;
}
