/* What the page of metrics shows, for tests of those who count. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "metrics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The number behind `line`, which is one of the page up to there: "\nNAME{LABELS} ". */
static inline long metric(const char *line)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    metrics_render(out);
    fclose(out);
    const char *at = strstr(text, line);
    assert_non_null(at);
    long value = strtol(at + strlen(line), NULL, 10);
    free(text);
    return value;
}
