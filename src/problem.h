/* What is wrong with something that a person wrote (a configuration, a platform's file, an
 * argument): one or more lines "file:line:column: key.path: what is wrong; what would be right".
 * Collected, so that all are told at once. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "obj.h"

#include <stdbool.h>
#include <stddef.h>

#define PROBLEMS_MAX 20

struct problems {
    char *lines[PROBLEMS_MAX]; /* owned */
    size_t count;              /* of those kept; more are dropped and only counted in `dropped` */
    size_t dropped;
};

/* `file` may be NULL, `line` or `column` 0: they are left out. Lines and columns count from
 * 1. Control characters become '?', and a line is cut at 2 KiB. */
void problem_add(struct problems *problems, const char *file, size_t line, size_t column,
                 const char *fmt, ...) PRINTF_LIKE(5, 6);

static inline bool problems_any(const struct problems *problems)
{
    return problems->count > 0;
}

/* All that were added, those not kept too: the mark by which to see whether more came. */
static inline size_t problems_total(const struct problems *problems)
{
    return problems->count + problems->dropped;
}

/* One line each on standard error. */
void problems_print(const struct problems *problems);

void problems_release(struct problems *problems);

/* The word of `words` (NULL-terminated) that `text` was probably meant to be (edit distance ≤ 2),
 * or NULL. */
const char *problem_suggest(const char *text, const char *const *words);
