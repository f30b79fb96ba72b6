/* Keeps the directory fresh: a thread of its own that loads it from Postgres at start, on every
 * NOTIFY and every postgres.refresh, and does the database's upkeep once a minute (partitions
 * ahead, purge of old claims and receipts). Postgres away: the last directory stays in use. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "obj.h"

struct config;
struct directory;
struct loader;
struct platforms;

/* Receives a new snapshot and its reference, on the loader's thread. */
typedef void loader_on_loaded(struct directory *directory, void *context);

/* Returns at once; `config` and `platforms` must outlive the loader. */
MUST_CHECK struct loader *loader_start(const struct config *config,
                                       const struct platforms *platforms,
                                       loader_on_loaded *on_loaded, void *context);
/* Ends the thread, whatever it waits for (name resolution excepted); no call of on_loaded after. */
void loader_stop(struct loader *loader);
