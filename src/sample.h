/* A raw HTTP/1.1 request in a file: what platforms' samples, `hookgate verify` and `hookgate send`
 * read. Lines `# key: value` before the request line are notes for tests (expect, now, secret …);
 * other lines that begin with # there are remarks. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "inbound.h"
#include "obj.h"
#include "slice.h"

#include <stdbool.h>
#include <stddef.h>

#define SAMPLE_MAX_NOTES 16
#define SAMPLE_MAX_BYTES (16u << 20)

struct sample_note {
    struct slice key, value;
};

struct sample {
    struct inbound in; /* received_wall_us and peer are the caller's to set */
    struct sample_note notes[SAMPLE_MAX_NOTES];
    size_t note_count;
};

/* The whole file, or standard input for "-": NUL-terminated, the caller frees it. NULL and
 * *ret_reason (static text) when it can't be read or is larger than SAMPLE_MAX_BYTES. */
MUST_CHECK char *sample_load(const char *path, size_t *ret_len, const char **ret_reason);

/* Request line, header lines, an empty line, and the body to the end of the bytes (Content-Length
 * is ignored); lines of the head end with LF or CRLF. Header names are lowered in place; the slices
 * of *ret point into `bytes`. False and *ret_reason (static text) when it is malformed. */
MUST_CHECK bool sample_parse(char *bytes, size_t len, struct sample *ret, const char **ret_reason);

/* "https://" and the one Host line: what stands before the path in a signed URL, as `public_url`
 * does in the gateway. Empty when there is no such line or it does not fit. */
#define SAMPLE_ORIGIN_MAX 300
const char *sample_origin(const struct sample *sample, char buf[SAMPLE_ORIGIN_MAX]);

/* The note's value; ptr NULL when there is none. */
struct slice sample_note(const struct sample *sample, const char *key);
