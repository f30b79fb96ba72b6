/* JSON lines on standard error, one object a line; written by a thread of its own from a bounded
 * buffer, so that a slow reader never stalls an event loop (lines are then dropped and counted).
 * Never a body, signature, secret, token, path or query string. Thread: any. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "obj.h"
#include "slice.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERROR };

/* Until log_start() lines are written at once; log_stop() flushes. */
void log_start(void);
void log_stop(void);
void log_set_level(enum log_level level);
uint64_t log_dropped(void);

/* A line under construction on the caller's stack; what does not fit is cut, and the line stays
 * valid JSON. */
struct log_line {
    char text[2048];
    size_t len;
    bool wanted; /* false: below the level, all calls do nothing */
    bool cut;
};

/* Opens with ts (RFC 3339, ms, UTC), level and event, e.g. "delivery", "store_lost". */
void log_begin(struct log_line *line, enum log_level level, const char *event);
void log_text(struct log_line *line, const char *key, const char *value); /* NULL: left out */
void log_slice(struct log_line *line, const char *key, struct slice value);
void log_int(struct log_line *line, const char *key, int64_t value);
/* Microseconds told as seconds with 6 decimals. */
void log_seconds(struct log_line *line, const char *key, int64_t duration_us);
void log_end(struct log_line *line);

/* {"ts":…,"level":…,"event":event,"msg":…}: for states of the service. */
void log_event(enum log_level level, const char *event, const char *fmt, ...) PRINTF_LIKE(3, 4);
