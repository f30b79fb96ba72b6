/* The step `limit`: a delivery takes a token of its workspace's quota. Where none is at hand it
 * waits for the lease thread, for LIMIT_WAIT_US at most, and then takes from this process' own
 * share of the limit. Thread: the loop's. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "list.h"
#include "obj.h"

#include <stdbool.h>
#include <stdint.h>

#define LIMIT_WAIT_US 100000
/* Deliveries of one loop that wait; each holds its body. */
#define LIMIT_WAITING_MAX 256

struct limit;
struct loop;
struct metrics;
struct quota;

MUST_CHECK struct limit *limit_new(struct loop *loop, struct metrics *metrics);
/* Once nothing waits. */
void limit_free(struct limit *limit);

enum limit_verdict { LIMIT_GRANTED, LIMIT_EXCEEDED, LIMIT_WAIT };
/* *ret_wait_us tells with LIMIT_EXCEEDED how long the window stays full. After LIMIT_WAIT comes
 * limit_wait(), or nothing was taken. */
enum limit_verdict limit_take(struct limit *limit, struct quota *quota, int64_t *ret_wait_us);

/* Embedded in its owner; zero it before first use. */
struct limit_op {
    struct list node;
    struct quota *quota; /* must live until `on_done` */
    int64_t due_us;
    void (*on_done)(struct limit_op *op, enum limit_verdict verdict, int64_t wait_us);
};
/* Calls on_done with LIMIT_GRANTED or LIMIT_EXCEEDED from the loop, never before this returns. */
void limit_wait(struct limit *limit, struct limit_op *op);
