/* The directory of integrations: which workspace an endpoint token, account id, e-mail address or
 * domain belongs to, and the integration's own secrets. An immutable snapshot of core.workspaces,
 * core.integrations and core.integration_secrets, swapped whole; look-ups are memory only. Thread:
 * built on the loader's or the reload's, read on any; the reference count is atomic. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "quota.h"
#include "secret.h"
#include "slice.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct setup;

enum integration_status { INTEGRATION_CONNECTED, INTEGRATION_PAUSED, INTEGRATION_DISABLED };

struct integration {
    const char *id; /* uuid text */
    unsigned char uuid[16];
    const char *workspace; /* id, text */
    const char *platform;  /* name */
    enum integration_status status;
    struct quota *quota; /* a reference; NULL = the workspace has no limits for this platform */
    struct keyring secrets;
};

struct directory;

struct directory *directory_ref(struct directory *directory);
/* Frees it with the last reference; returns NULL. With many integrations that takes a while: the
 * loader keeps a reference of its own until it is the last, so that no event loop pays for it. */
struct directory *directory_unref(struct directory *directory);
/* Does anybody but the caller hold a reference? Once false, it stays false. */
bool directory_is_shared(const struct directory *directory);

/* NULL when no integration of this platform has the token. Look-up goes by SHA-256 of the token, so
 * that timing tells nothing about it. */
const struct integration *directory_by_token(const struct directory *directory,
                                             struct slice platform, struct slice token);
/* Account id, then e-mail address (lower case), then its domain; empty slices are skipped. */
const struct integration *directory_by_account(const struct directory *directory,
                                               struct slice platform, struct slice account,
                                               struct slice email);
/* The first connected integration of a workspace with this platform. */
const struct integration *directory_by_workspace(const struct directory *directory,
                                                 struct slice platform, struct slice workspace);
size_t directory_count(const struct directory *directory);

/* Building: rows as they come from Postgres; texts are copied. */
struct directory_row {
    const char *integration_id, *workspace, *platform, *status, *token; /* token NULL = none */
    struct quota_limits limits;
    const char *const *accounts;
    size_t account_count;
    const char *const *emails;
    size_t email_count;
    const char *const *domains;
    size_t domain_count;
};
/* Empty, with one reference. It keeps one to the setup whose platforms its secrets were made for;
 * NULL = none (tests). */
MUST_CHECK struct directory *directory_new(struct setup *setup);
/* Only before the directory is handed on. Returns the integration, so that its secrets can be
 * added; NULL when the row has no valid UUID or no known status. Of two rows with the same token,
 * account, address or domain the first counts, so add the connected ones first. */
struct integration *directory_add(struct directory *directory, const struct directory_row *row);
