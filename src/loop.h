/* An event loop of one thread: descriptors, monotonic timers, messages from other threads, and work
 * put off to the end of a turn. It is an epoll set of its own, so it can run alone (commands, the
 * control thread's tests) or be nested as one readable descriptor in the edge's h2o loop: Postgres
 * and Kafka code never meets h2o. Thread: the owner's, except loop_post(). Callbacks never run
 * before the call that caused them has returned. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "list.h"
#include "obj.h"

#include <stdbool.h>
#include <stdint.h>

struct loop;

MUST_CHECK struct loop *loop_new(void);
void loop_free(struct loop *loop);
/* Readable when loop_turn() has something to do. */
int loop_fd(const struct loop *loop);
/* Runs what is ready, then what was put off; waits up to `timeout_ms` (-1 = for ever, 0 = not at
 * all) for the first event. */
void loop_turn(struct loop *loop, int timeout_ms);
/* Runs what is ready and leaves what was put off to loop_run_deferred(); never waits. */
void loop_poll(struct loop *loop);
/* Runs what was put off: the edge calls it once per turn of its own loop, after all requests of the
 * turn came in. */
void loop_run_deferred(struct loop *loop);

/* A watched descriptor; embedded in its owner. Level-triggered. */
enum { LOOP_READ = 1, LOOP_WRITE = 2 };
struct loop_watch {
    int fd; /* -1 = not watched */
    unsigned events;
    void (*on_ready)(struct loop_watch *watch, unsigned events);
};
/* `events` 0 keeps the watch registered for errors only. Changing fd needs a loop_unwatch() before.
 */
void loop_watch(struct loop *loop, struct loop_watch *watch, int fd, unsigned events);
/* Must come before the descriptor is closed; no callback of it comes afterwards. */
void loop_unwatch(struct loop *loop, struct loop_watch *watch);

/* A timer; embedded in its owner, zero it before first use. */
struct loop_timer {
    struct list node;
    int64_t due_us; /* clock_mono_us() time; 0 = not set */
    void (*on_due)(struct loop_timer *timer);
};
void loop_timer_set(struct loop *loop, struct loop_timer *timer, int64_t due_us);
void loop_timer_clear(struct loop *loop, struct loop_timer *timer);

/* Work put off to the end of the turn; putting off again what is already put off does nothing. Zero
 * it before first use. */
struct loop_task {
    struct list node;
    bool queued;
    void (*run)(struct loop_task *task);
};
void loop_defer(struct loop *loop, struct loop_task *task);
void loop_cancel(struct loop_task *task);

/* From any thread: runs `task` on the loop's thread. The task must not be queued anywhere else. */
void loop_post(struct loop *loop, struct loop_task *task);
