/* BUCKET: how many signatures of one source address have failed within the last minute, over all
 * loops of the process. A bounded table that forgets those who have failed least lately: a source
 * that is forgotten is only told 401 again. Thread: any; it holds a lock for some nanoseconds, and
 * nothing but a failed signature comes here. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "address.h"

#include <stdint.h>

struct buckets;

MUST_CHECK struct buckets *buckets_new(void);
void buckets_free(struct buckets *buckets);

enum bucket_verdict {
    BUCKET_HOLDS,
    BUCKET_SPILLS, /* over the limit, and it was told within the last minute */
    BUCKET_SPILLS_NOW
};
/* One more failure of `source` at `now_us` (monotonic), of `limit` that are fine in a minute. */
enum bucket_verdict buckets_add(struct buckets *buckets, const struct address *source,
                                int64_t limit, int64_t now_us);
