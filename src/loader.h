/* Keeps the directory fresh: a thread of its own that loads it from Postgres at start, on every
 * NOTIFY and every postgres.refresh, and does the database's upkeep once a minute (partitions
 * ahead, purge of old claims and receipts). Postgres away: the last directory stays in use. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "obj.h"

#include <stdbool.h>

struct directory;
struct loader;
struct setup;

/* Receives the setup that counts and a snapshot that was built for it (NULL: none was loaded yet);
 * takes references of its own. On the loader's thread, or on that of loader_take(); one call at a
 * time. */
typedef void loader_on_loaded(struct setup *setup, struct directory *directory, void *context);

/* Returns at once. The connection's settings are those of this setup, whose configuration must live
 * as long as the process. */
MUST_CHECK struct loader *loader_start(struct setup *setup, loader_on_loaded *on_loaded,
                                       void *context);
/* Builds the directory for a new setup from the rows that were read last, so that Postgres may be
 * away, and gives both to on_loaded before it returns; from then on the loader works with this
 * setup. Otherwise nothing has changed, and *ret_reason (owned by the caller) tells why. Blocks
 * while another directory is being built. Thread: any but an event loop's. */
MUST_CHECK bool loader_take(struct loader *loader, struct setup *setup, char **ret_reason);
/* Ends the thread, whatever it waits for (name resolution excepted); no call of on_loaded after. */
void loader_stop(struct loader *loader);
