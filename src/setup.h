/* SETUP: one configuration as it was taken, with the platforms that it names and their secrets.
 * Immutable and reference-counted: a reload builds the next one beside it, and whoever still works
 * with the old one keeps it alive. A directory holds its setup and a delivery its directory, so
 * that what a delivery points to stays. Thread: any; the reference count is atomic. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "problem.h"

#include <stdatomic.h>

struct config;
struct platforms;

struct setup {
    unsigned magic;
    atomic_size_t references;
    struct config *config; /* both are const once somebody else has the setup */
    struct platforms *platforms;
};

/* Reads the configuration at `path`, its platforms and the files that it names; NULL when a problem
 * was added. Blocks on files alone. */
MUST_CHECK struct setup *setup_read(const char *path, struct problems *problems);
struct setup *setup_ref(struct setup *setup);
/* Frees it with the last reference; NULL is fine; returns NULL. */
struct setup *setup_unref(struct setup *setup);
