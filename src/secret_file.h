/* Reads a small file that holds a secret: bounded, one trailing newline trimmed, never empty. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "obj.h"

#define SECRET_FILE_MAX 65536

/* NUL-terminated text, owned by the caller, who cleanses it; NULL with *ret_reason (owned by the
 * caller, names the file). */
MUST_CHECK char *secret_file_read(const char *path, char **ret_reason);
