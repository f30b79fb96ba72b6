/* HEAP: the allocator's settings, and memory that goes back to the system after a flood. glibc
 * raises its own threshold with each large block that is freed, until bodies lie among small blocks
 * and nothing is ever given back. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "loop.h"

/* Once, before there are threads. */
void heap_setup(void);

/* Looks at the resident memory every few seconds, on the loop's thread, and hands back what is free
 * once it has settled at another level than last time. Once. */
void heap_watch(struct loop *loop);
