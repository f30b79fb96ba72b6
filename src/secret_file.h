/* Small files that hold secrets: passwords, signing secrets, keys. The one reader of them all:
 * bounded, regular, closed to group and others, never empty, cleansed when it is let go. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "obj.h"
#include "slice.h"

#include <stdbool.h>
#include <stddef.h>

#define SECRET_FILE_MAX 65536

struct secret_file {
    char *bytes; /* NUL-terminated behind `len` */
    size_t len;
};

/* False with *ret_reason (owned by the caller; it names the file). `strict`: a file of the service,
 * which must be regular and its owner's alone, unless it lies in $CREDENTIALS_DIRECTORY, which
 * systemd keeps private by itself; else a file that somebody names on a command line, which may be
 * a pipe. */
MUST_CHECK bool secret_file_read(const char *path, size_t max, bool strict, struct secret_file *ret,
                                 char **ret_reason);
/* Of the struct that was filled, or a zeroed one. */
void secret_file_release(struct secret_file *file);
struct slice secret_file_slice(const struct secret_file *file);

/* A password: the whole file less one newline at its end, without a NUL in it. NUL-terminated and
 * owned by the caller, who cleanses it; NULL with *ret_reason (owned by the caller). */
MUST_CHECK char *secret_file_password(const char *path, char **ret_reason);
