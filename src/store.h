/* STORE: the batch transaction in SQL, on one Postgres connection: BEGIN + claims, and later
 * receipts, parked payloads and COMMIT, or ROLLBACK.
 *
 *   store_claim()     -> on_claimed(verdicts); the transaction stays open over Kafka's
 *                        acknowledgement
 *   store_published(), store_parked(), store_forget()   say what the commit is to write
 *   store_commit()    -> on_committed(); the next store_claim() may be sent right behind it
 *   store_rollback()     needs no answer: what follows on the connection waits for it
 *   store_probe()     -> on_probed(): a whole transaction that leaves nothing, for the breaker
 *
 * A crash of ours in between rolls the claims back by itself. Deadlines are the caller's: it calls
 * store_drop(). Only `lane.c` uses this. Thread: the loop's. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "event.h"
#include "loop.h"

#include <stdint.h>

struct store;

enum claim_verdict {
    CLAIM_KNOWN, /* committed by an earlier transaction: a duplicate of something durable */
    CLAIM_NEW,   /* claimed by this transaction */
    CLAIM_HELD,  /* another open transaction holds the key; store_claim() waits for that instead */
    CLAIM_OWN,   /* committed by ourselves, earlier; only store_claim_again() says so */
};

enum claim_result {
    CLAIMED,
    CLAIM_BLOCKED, /* statement_timeout: some key, or the table, is held by another transaction;
                      nothing is claimed, the transaction is over */
    CLAIM_FAILED,  /* any other error: nothing is claimed, the transaction is over */
};

struct store_handler {
    void (*on_ready)(void *context);
    /* `verdicts` in the order of the ids given; valid during the call; NULL unless CLAIMED. */
    void (*on_claimed)(void *context, enum claim_result result, const enum claim_verdict *verdicts,
                       const char *reason);
    /* Durable. A commit that fails gives the connection up instead: on_lost. */
    void (*on_committed)(void *context);
    /* This server takes what a batch writes. A probe that fails gives the connection up: on_lost.
     */
    void (*on_probed)(void *context);
    /* An attempt to connect failed; another follows. */
    void (*on_unreachable)(void *context, const char *reason);
    /* Whatever was open is over, its outcome unknown if a commit was under way. on_ready comes when
     * it is back. */
    void (*on_lost)(void *context, const char *reason);
};

struct store_receipt {
    struct event_id id;
    const char *workspace;
    const unsigned char *integration_uuid; /* 16 bytes */
    const char *platform;
    struct slice type;
    struct slice external_id;
    const unsigned char *body_sha256;
    int32_t body_size;
    int64_t received_wall_us;
    const char *topic;
    int32_t partition; /* -1 = parked */
    int64_t offset;    /* -1 = parked, or Kafka's report carried none */
};

/* A record for the outbox; the receipt's partition and offset are not used. */
struct store_parked {
    struct store_receipt receipt;
    int32_t key_partition;           /* where the key leads; -1 = not known */
    bool undecided;                  /* it was handed to Kafka, and no report came */
    int32_t sent_partition;          /* then: where it went; -1 = not known */
    int64_t record_wall_us;          /* then: the time in the record */
    struct slice key, headers, body; /* headers as record_pack() made them */
};

/* How long a claim statement may wait for other transactions; a hung process of ours is cut off
 * after 4 s. */
struct store_options {
    const char *conninfo;
    const char *password_file; /* NULL = none */
    int64_t claim_us;
};

MUST_CHECK struct store *store_new(struct loop *loop, const struct store_options *options,
                                   const struct store_handler *handler, void *context);
void store_free(struct store *store);

/* `ids` sorted ascending and unique, so that two batches can't deadlock. */
void store_claim(struct store *store, const struct event_id *ids, size_t count);
/* After CLAIM_BLOCKED: claims key by key and steps over those that are held. CLAIM_FAILED when the
 * table itself is locked. */
void store_claim_unblocked(struct store *store, const struct event_id *ids, size_t count);
/* Likewise, after a lost connection: `places` are those of the receipts that our own COMMIT has
 * written, if it came through. */
struct store_place {
    int64_t received_wall_us;
    int32_t partition; /* -1 = parked */
    int64_t offset;    /* -1 = not known */
};
void store_claim_again(struct store *store, const struct event_id *ids,
                       const struct store_place *places, size_t count);

/* What the next commit is to write, all copied: first how many there will be of each kind, then
 * each one. */
void store_write(struct store *store, size_t published, size_t parked, size_t forgotten);
void store_published(struct store *store, const struct store_receipt *receipt);
void store_parked(struct store *store, const struct store_parked *parked);
/* A claim that is taken back: neither Kafka nor the outbox has its record. */
void store_forget(struct store *store, struct event_id id);
/* Something must have been published or parked. */
void store_commit(struct store *store);
void store_rollback(struct store *store);
void store_probe(struct store *store);
void store_drop(struct store *store, const char *reason);
