/* A value of a URL's query string, percent-decoded. Pure. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "slice.h"

#define QUERY_VALUE_MAX 1024

enum query_found { QUERY_FOUND, QUERY_ABSENT, QUERY_BAD };

/* The value of `key`, which is compared as it stands; *ret points into `buf`. A key that comes
 * twice is as bad as a value that can't be decoded or doesn't fit: QUERY_BAD. `+` means a blank. */
enum query_found query_find(struct slice query, const char *key, char buf[QUERY_VALUE_MAX],
                            struct slice *ret);
