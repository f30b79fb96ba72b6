/* SEARCH: which of some undecided records are in their topic? On a thread of its own, because a
 * partition may have to be read for long and the drainer must go on. A record is looked for from
 * the time that stands in it (the topic keeps producers' times, topics_check.h sees to that) to
 * the end, in its partition where that is known, else in all.
 *
 * Whoever asks has waited until the broker can no longer have the record before it, unread. A
 * broker that was frozen may still: so the search first makes sure that the partition's leader
 * answers, then waits three seconds for what lay in its sockets, and only then asks for the end.
 *
 * That end is the high watermark: what a leader has appended and its in-sync replicas do not have
 * yet can't be seen, for as long as too few of them are left. So a record is absent only behind a
 * fence: another one in its partition that was made when ours could no longer be appended. It can
 * be seen, and so can all before it. A partition that has no other replicas needs none. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "event.h"

#include <stdint.h>

struct config;
struct search;

enum search_result {
    SEARCH_UNKNOWN, /* the broker did not tell: ask again later */
    SEARCH_FOUND,
    SEARCH_ABSENT,
    SEARCH_LIKELY_ABSENT, /* it was idle for long, there is no fence, but enough replicas are in
                             sync: if the record is there after all, sending it doubles it */
};

struct search_item {
    struct event_id id;
    int32_t partition; /* -1 = any; the one it was found in */
    int64_t wall_us;   /* of the record */
    int64_t fence_us;  /* what was made then or later was appended behind it (Unix) */
    bool idle;         /* it has waited for a fence long enough */
    enum search_result result;
    int64_t offset; /* when found */
};

/* The items are copied. */
MUST_CHECK struct search *search_start(const struct config *config, const char *topic,
                                       const struct search_item *items, size_t count);
/* Has it ended? Then search_items() tells, in the order given. Thread: the one that started it. */
bool search_is_done(const struct search *search);
const struct search_item *search_items(const struct search *search);
/* Waits for its end, which comes soon: the thread stops at the next record or wait. */
void search_free(struct search *search);
