/* Dates and times in RFC 3339. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "obj.h"
#include "slice.h"

#include <stdbool.h>
#include <stdint.h>

#define RFC3339_MAX_US (INT64_C(253402300799) * 1000000) /* the last second of year 9999 */

/* Microseconds since 1970-01-01 UTC of "2026-12-01T00:00:00Z" and the like; what is finer is cut
 * off. False for anything else, and beyond year 9999. */
MUST_CHECK bool rfc3339_parse(struct slice text, int64_t *ret_wall_us);

#define RFC3339_TEXT 32

/* "2026-12-01T00:00:00.000000Z": in UTC, with so many digits of the second's fraction, 0 to 6; what
 * is finer is cut off. Times from 1970 on. Returns the length. */
size_t rfc3339_format(int64_t wall_us, int digits, char text[RFC3339_TEXT]);
