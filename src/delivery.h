/* DELIVERY: one webhook from the request to the answer. `delivery.c` holds the table of its steps.
 *
 * A delivery owns its memory; the request is a guest: when the client hangs up, only the answer has
 * no reader. Everything of one delivery happens on the loop it came in on. The edge and `hookgate
 * verify` run the same table; the environment decides what `record` does. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "address.h"
#include "challenge.h"
#include "event.h"
#include "extract.h"
#include "inbound.h"
#include "limit.h"
#include "list.h"
#include "metrics.h"
#include "outcome.h"
#include "platform.h"
#include "route.h"
#include "verify.h"

struct admission;
struct delivery;
struct directory;
struct integration;
struct json;
struct json_reader;
struct sighting_book;

/* What one event loop lends to its deliveries. */
struct delivery_env {
    const struct platforms *platforms;
    struct directory *directory; /* NULL = not loaded yet; swapped between turns, so a delivery
                                    takes a reference */
    struct json_reader *json;
    struct metrics *metrics;
    struct sighting_book *sightings; /* NULL: nobody writes security events */
    const char *base_url;
    struct admission *admission;    /* NULL = nobody is refused for what waits already */
    struct limit *limit;            /* NULL = nothing is limited */
    struct buckets *buckets;        /* of failed signatures; NULL = they are not counted */
    int64_t failed_signatures;      /* that are fine in a minute; 0 = any number */
    const struct networks *proxies; /* that are trusted to name the sender; NULL = none */
    size_t body_max, headers_max;
    size_t held_bytes; /* bodies that deliveries keep at present */
    int64_t answer_us;
    /* Takes a delivery whose event is known and ends it by delivery_finish(), later or at once
     * (refused): it may be gone when this returns. NULL: the delivery is finished as ACCEPTED at
     * once (`hookgate verify`). */
    void (*record)(struct delivery_env *env, struct delivery *d);
    /* `hookgate verify` and tests: which secrets and workspace to take instead of the directory's;
     * NULL otherwise. */
    const struct delivery_override {
        const struct keyring *secrets;
        const char *workspace;
        int64_t now_wall_us;
        struct slice endpoint_token; /* a path token that equals it is the credential */
    } * override;
};

enum delivery_step {
    DELIVERY_ROUTE,
    DELIVERY_ADMISSION,
    DELIVERY_VERIFY,
    DELIVERY_FRESHNESS,
    DELIVERY_CHALLENGE,
    DELIVERY_EXTRACT,
    DELIVERY_WORKSPACE,
    DELIVERY_SHARE,
    DELIVERY_LIMIT,
    DELIVERY_RECORD,
    DELIVERY_STEP_COUNT
};

/* "route", "verify" and so on: the log's word. */
const char *delivery_step_name(enum delivery_step step);

/* What the pipeline behind `record` told; -1 and 0 where it never came so far. */
struct delivery_receipt {
    int32_t partition;
    int64_t offset;
    int64_t gather_us, claim_us, publish_us, commit_us; /* durations */
};

#define DELIVERY_MAGIC 0x64656c76u

struct delivery {
    unsigned magic;
    enum delivery_step step;
    enum outcome outcome;
    const char *detail; /* JSON pointer or static text that makes the reason precise; may be NULL */
    struct delivery_env *env;

    const struct inbound *in; /* NULL once the step table has returned */
    struct route route;
    const struct platform *platform;
    const struct integration *integration; /* alive through `directory` */
    struct directory *directory;           /* reference */
    struct verification verification;
    const struct json *json;
    struct event event;
    struct slice workspace;
    struct event_id id;
    bool id_known;
    struct extract_buffer buffer;
    struct challenge_answer_body challenge;
    enum outcome checks[DELIVERY_STEP_COUNT]; /* each step's own verdict, for `hookgate verify` */

    uint32_t share;           /* the workspace, as admission.h counts it */
    struct limit_op limit_op; /* while it waits for a token */
    bool waits_for_limit;
    int retry_after_s; /* of OUTCOME_LIMITED; 0 = what the platform says */

    /* From there on, or from `record` on. */
    struct slice body;        /* own copy */
    struct slice traceparent; /* own copy; empty when absent or malformed */
    struct slice content_type;
    unsigned char body_sha256[32];
    char *memory;                    /* one block that holds the copies */
    struct list node;                /* in a queue or batch */
    struct list followers;           /* copies of the same event that wait for this one's outcome */
    struct delivery *next_in_flight; /* chain of the in-flight table */
    unsigned holds;                  /* how many keep the memory: the pipeline, Kafka */
    struct delivery_receipt receipt;

    char source[ADDRESS_TEXT]; /* the sender's address, beyond trusted proxies */
    int64_t received_wall_us;
    int64_t started_us;  /* monotonic: last body byte */
    int64_t deadline_us; /* monotonic: an answer is due */

    void (*on_done)(struct delivery *d,
                    void *context); /* the answer can be given; d lives until it returns */
    void *context;
};

/* Runs the steps over `in`, which need to live only until this returns. `on_done` may be called
 * before it returns. The delivery frees itself after on_done, when
 * nobody holds it. */
void delivery_start(struct delivery_env *env, const struct inbound *in,
                    void (*on_done)(struct delivery *, void *), void *context);

/* A request that the HTTP layer refused by itself (`in` holds what it knew, `why` is a literal):
 * counted and logged like any delivery, so that no refusal is silent. The answer was given. */
void delivery_refused(struct delivery_env *env, const struct inbound *in, enum outcome outcome,
                      const char *why);

/* Ends a delivery with its outcome: metrics, the log line and on_done. Exactly once; it may be gone
 * afterwards. */
void delivery_finish(struct delivery *d, enum outcome outcome, const char *detail);
