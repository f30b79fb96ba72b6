/* The rows behind a directory: what the loader read, kept so that a directory can be built from it
 * again for another setup. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "obj.h"
#include "seal.h"

#include <libpq-fe.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct directory;
struct setup;

/* Binary results of the two statements, read in one transaction. */
struct directory_rows {
    PGresult *integrations; /* NULL = none were read yet */
    PGresult *secrets;      /* sealed; in order of their integration */
};
extern const char directory_rows_integrations_sql[], directory_rows_secrets_sql[];

#define SKIPPED_ROWS_MAX 20

/* Rows that can't be used. */
struct skipped_rows {
    struct skipped_row {
        char id[SEAL_UUID_TEXT];
        const char *reason; /* static text */
    } rows[SKIPPED_ROWS_MAX];
    size_t count; /* the first ones are in `rows` */
    uint64_t hash;
};

/* `keys` NULL = there is no key file. Incomplete when `stopping` becomes true. */
MUST_CHECK struct directory *directory_rows_build(const struct directory_rows *rows,
                                                  struct setup *setup, const struct seal_keys *keys,
                                                  const atomic_bool *stopping,
                                                  struct skipped_rows *ret_skipped);
bool directory_rows_equal(const struct directory_rows *a, const struct directory_rows *b);
void directory_rows_release(struct directory_rows *rows);
