/* The database's schema: applies the numbered files of sql/.
 * Called by `hookgate migrate`; the loader compares the database with SCHEMA_VERSION. Thread: any,
 * blocking. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "obj.h"

#include <stdbool.h>
#include <stdio.h>

/* The version this program needs: the number of the last file in sql/ that it relies on. A newer
 * database is fine, because files only ever expand. */
#define SCHEMA_VERSION 11

struct migrate_options {
    const char *conninfo;
    const char *password_file; /* NULL = none */
    const char *directory;     /* of NNN_name.sql */
    bool dry_run;              /* say what would be applied, change nothing */
};

/* One line per applied file on `out`, complaints on `err`. False when something was refused or went
 * wrong; what was applied before stays applied. */
MUST_CHECK bool migrate_run(const struct migrate_options *options, FILE *out, FILE *err);
