/* Parser of one HTTP/1.1 answer for the client: status, where the body is, and whether the
 * connection lives on. Works in the buffer that the bytes came into. Pure. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "obj.h"
#include "slice.h"

#define ANSWER_HEAD_MAX 16384
#define ANSWER_BODY_MAX 1048576

enum answer_state { ANSWER_MORE, ANSWER_WHOLE, ANSWER_BAD };
enum answer_framing { FRAMING_LENGTH, FRAMING_CHUNKED, FRAMING_UNTIL_CLOSE };

/* Zero it for each answer; body and status are valid when it is whole. */
struct answer {
    int status;
    bool close; /* the connection must not be used again */
    enum answer_framing framing;
    size_t head_len; /* 0 = the head is not whole yet */
    size_t length;   /* FRAMING_LENGTH: of the body */
    size_t body_len; /* decoded so far; the body stands right behind the head */
    size_t raw;      /* FRAMING_CHUNKED: where the bytes begin that are not decoded yet */
    bool trailers;   /* FRAMING_CHUNKED: the last chunk was seen */
};

/* Looks at the `*len` bytes at `buf` that have come so far; `ended` = no more will come. May move
 * bytes and lessen `*len` (interim answers are dropped, chunks joined). */
MUST_CHECK enum answer_state answer_feed(struct answer *answer, char *buf, size_t *len, bool ended);

static inline struct slice answer_body(const struct answer *answer, const char *buf)
{
    return (struct slice){buf + answer->head_len, answer->body_len};
}
