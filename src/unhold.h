/* UNHOLD: the thread that takes over what was held, and that opens the gate. It applies all markers
 * before it looks at payloads; markers become claims and receipts, payloads become parked events.
 * Several instances may do it: each partition has a row in mcp.webhook_hold_offsets, which is
 * locked meanwhile and moved in the same transaction. tests/model/README.md is the protocol. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "obj.h"

struct config;
struct gate;
struct unhold;

struct unhold_options {
    const struct config *config; /* lives as long as the process */
    struct gate *gate;
    /* Kafka answers while the gate is closed: now and then, on the thread. */
    void (*on_kafka)(void *context);
    /* One of the topics is not there: at most once a second, on the thread. */
    void (*on_missing)(void *context);
    void *context;
};

/* NULL with *ret_reason (owned by the caller) when Kafka's settings are refused. */
MUST_CHECK struct unhold *unhold_start(const struct unhold_options *options, char **ret_reason);
/* Ends the thread: within about two seconds. Takes NULL. */
void unhold_stop(struct unhold *unhold);
