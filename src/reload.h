/* RELOAD: takes a new configuration while the old one serves, in two phases, all or nothing.
 *
 * First everything new is built beside the old: the configuration, the platforms with their
 * secrets, the TLS context, new platforms' topics, the directory. Any problem ends it, and nothing
 * has changed. Then the loops are given the new parts by message: a delivery in flight keeps what
 * it began with. Keys that need a restart keep their value, which is told.
 *
 * Thread: one of its own, because files, Kafka and a big directory take their time. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "config.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct loader;
struct loop;
struct reload;
struct setup;
struct worker;

struct reload_report {
    uint64_t number; /* of the last request that it answers */
    bool taken;
    struct problems refused;       /* why nothing was changed */
    struct config_changes changes; /* keys that differ */
    struct problems parts;         /* what was taken, in a line each */
};

/* One line each: "refused: …", or "taken: …" and "restart: …". */
void reload_print(const struct reload_report *report, FILE *out);

struct reload_options {
    struct setup *setup; /* of the start; stays alive */
    struct loader *loader;
    struct worker *const *workers;
    size_t worker_count;
    struct loop *control;
    /* On the control loop, once all loops work with `setup`, the present one; takes a reference if
     * it keeps it. */
    void (*on_done)(const struct reload_report *report, struct setup *setup, void *context);
    void *context;
};

MUST_CHECK struct reload *reload_start(const struct reload_options *options);
/* Begins a reload, or another one after the one under way: files may have changed since that one
 * read them. Returns its number. Thread: any. */
uint64_t reload_request(struct reload *reload);
/* Waits for a reload under way, some seconds at most. Before the loader's end. */
void reload_stop(struct reload *reload);
