/* QUOTA: what one workspace may still send of one platform. Deliveries take tokens out of it, which
 * costs one atomic instruction; the lease thread puts them in (lease.h). All quotas of the process
 * are in one registry, because they outlive the directory's snapshots: an integration holds a
 * reference.
 *
 * A take that leaves little asks for more at once, in the background; a quota that nobody used for
 * a while holds a small credit, so that a first event needs no one's leave. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "list.h"
#include "obj.h"
#include "window.h"

#include <stdatomic.h>
#include <stdint.h>

#define QUOTA_MINUTE_US INT64_C(60000000)
#define QUOTA_HOUR_US INT64_C(3600000000)
#define QUOTA_LIMIT_MAX 1000000000

struct quota_limits {
    int64_t minute, hour; /* 0 = none */
};

enum quota_state { QUOTA_RESTING, QUOTA_HUNGRY, QUOTA_SENT, QUOTA_ACTIVE };

#define QUOTA_MAGIC 0x71756f74U

struct quota {
    unsigned magic;
    /* Any thread. */
    _Atomic int64_t tokens;     /* may be taken now; below 0 after an overdraft */
    _Atomic int64_t low;        /* so few left ask for more */
    _Atomic int64_t floor;      /* how far an overdraft may go, at most 0 */
    _Atomic int64_t free_us;    /* exhausted until then; 0 = not known to be */
    _Atomic int64_t recheck_us; /* exhausted, and somebody wants more: ask again from then on */
    _Atomic int64_t limit_minute, limit_hour;
    _Atomic uint32_t waiting; /* deliveries that wait for tokens */
    _Atomic bool asked;       /* on its way to the lease thread */
    _Atomic size_t references;

    /* The registry's; `next_asked` is that of whoever set `asked`. */
    struct quota *next, *next_asked;
    uint64_t hash;
    char *workspace, *platform;

    /* The lease thread's own. */
    enum quota_state state;
    struct list node;           /* in the list of its state; holds a reference unless resting */
    int64_t handed;             /* tokens put in so far: what was spent is `handed` - `tokens` */
    int64_t paid;               /* of them leased, or settled after they were spent */
    int64_t credit;             /* of them lent: may be spent before it is leased */
    int64_t local;              /* of them granted by ourselves while Postgres was away */
    int64_t spent;              /* as of the last look */
    int64_t owed, back;         /* in the statement under way: to settle, to give back */
    int64_t asked_us;           /* when it was last sent */
    int64_t busy_us;            /* when a token was last seen spent */
    bool again;                 /* asked once more while in a statement */
    struct window minute, hour; /* spent through this process */
};

/* A reference to the quota, which gets these limits; NULL when there are none. Thread: any. */
MUST_CHECK struct quota *quota_get(const char *workspace, const char *platform,
                                   struct quota_limits limits);
/* NULL is fine; returns NULL. */
struct quota *quota_unref(struct quota *quota);

enum quota_verdict {
    QUOTA_TAKEN,
    QUOTA_EXHAUSTED, /* nothing left in the window */
    QUOTA_UNKNOWN    /* nothing at hand: asked for, tokens may come within milliseconds */
};
/* *ret_wait_us tells with QUOTA_EXHAUSTED how long the window stays full. Never blocks, and with
 * QUOTA_UNKNOWN asks for nothing: whoever waits does. */
enum quota_verdict quota_take(struct quota *quota, int64_t now_us, int64_t *ret_wait_us);
/* Takes without waiting for Postgres, within what is this process' own share. */
MUST_CHECK bool quota_overdraw(struct quota *quota);
/* Tells the lease thread that the quota needs it; again while somebody waits = now. */
void quota_ask(struct quota *quota);

/* What may be spent before it is leased, and the size of a lease that no crash makes noticeable. */
int64_t quota_credit(const struct quota *quota);
int64_t quota_chunk(const struct quota *quota);

/* ---- the lease thread's side ---- */

/* Who is told of asks, on the asking thread; `urgent` = a delivery waits; NULL = nobody. */
void quotas_serve(void (*wake)(void *context, bool urgent), void *context);
/* All that asked since; linked by next_asked, a reference each, `asked` still set. */
MUST_CHECK struct quota *quotas_asked(void);
/* How many instances share the limits. */
void quotas_set_instances(int64_t instances);
int64_t quotas_instances(void);

/* Who waits for tokens: on_answer comes on the lease thread whenever some were handed out. */
struct quota_listener {
    struct list node;
    void (*on_answer)(struct quota_listener *listener);
};
void quotas_listen(struct quota_listener *listener);
/* None comes afterwards. */
void quotas_unlisten(struct quota_listener *listener);
void quotas_answered(void);
