/* Object checks and allocation that can't fail: an object that crosses a callback carries a magic
 * number. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define MUST_CHECK __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))

#define CHECK_OBJ(ptr, value) assert((ptr) != NULL && (ptr)->magic == (value))

/* Sizes are bounded before they come here, so no memory means that the machine is unusable: abort.
 */
static inline void *xcalloc(size_t count, size_t size)
{
    void *p = calloc(count ? count : 1, size ? size : 1);
    if (p == NULL)
        abort();
    return p;
}

static inline void *xmalloc(size_t size)
{
    void *p = malloc(size ? size : 1);
    if (p == NULL)
        abort();
    return p;
}

static inline void *xrealloc(void *old, size_t size)
{
    void *p = realloc(old, size ? size : 1);
    if (p == NULL)
        abort();
    return p;
}

static inline char *xstrdup(const char *s)
{
    char *p = strdup(s);
    if (p == NULL)
        abort();
    return p;
}

static inline char *xstrndup(const char *s, size_t len)
{
    char *p = xmalloc(len + 1);
    memcpy(p, s, len);
    p[len] = '\0';
    return p;
}
