/* Rows as Postgres gives them, made into a directory: secrets are opened and prepared, rows that
 * can't be used are left out and told. Called by loader.c; knows no connection, so that it can be
 * done again for another setup while Postgres is away. Thread: any, one at a time. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "directory_rows.h"

#include "config.h"
#include "directory.h"
#include "hash.h"
#include "pg_column.h"
#include "platform.h"
#include "setup.h"

#include <arpa/inet.h>
#include <openssl/crypto.h>
#include <stdio.h>

static void skip(struct skipped_rows *skipped, const char *id, const char *reason)
{
    /* The same complaints give the same hash, so that they are told once. */
    skipped->hash = hash_text(hash_text(skipped->hash, id), reason);
    if (skipped->count < SKIPPED_ROWS_MAX) {
        struct skipped_row *row = &skipped->rows[skipped->count];
        snprintf(row->id, sizeof row->id, "%s", id);
        row->reason = reason;
    }
    skipped->count++;
}

/* A text[] in binary form: dimensions, flag, type, then per dimension size and lower bound, then
 * each element's length and bytes. */
struct texts {
    const char **items;
    size_t count;
    char *bytes;
};

static struct texts get_texts(const PGresult *result, int row, int column)
{
    struct texts texts = {0};
    size_t len = (size_t)PQgetlength(result, row, column);
    const char *p = PQgetvalue(result, row, column), *end = p + len;
    uint32_t head[5] = {0};
    if (len < sizeof head) /* no dimension: an empty array */
        return texts;
    memcpy(head, p, sizeof head);
    size_t count = ntohl(head[3]);
    p += sizeof head;
    if (ntohl(head[0]) != 1 || count > len / 4)
        return texts;
    texts.items = xcalloc(count, sizeof *texts.items);
    texts.bytes = xmalloc(len);
    char *out = texts.bytes;
    while (texts.count < count && end - p >= 4) {
        uint32_t size;
        memcpy(&size, p, sizeof size);
        size = ntohl(size);
        p += sizeof size;
        if (size > (size_t)(end - p)) /* NULL is told as 0xffffffff; the trigger lets none in */
            break;
        texts.items[texts.count++] = out;
        memcpy(out, p, size);
        out[size] = '\0';
        out += size + 1;
        p += size;
    }
    return texts;
}

static void texts_release(struct texts *texts)
{
    free(texts->items);
    free(texts->bytes);
}

const char directory_rows_integrations_sql[] =
    "SELECT i.integration_id, i.integration_id::text, i.workspace_id, i.platform, i.status,"
    " i.endpoint_token, w.plan, i.account_ids, i.emails, i.domains,"
    " w.limit_per_minute, w.limit_per_hour"
    " FROM core.integrations i JOIN core.workspaces w USING (workspace_id)"
    /* Of two integrations of one workspace with the same account the first counts. */
    " ORDER BY i.status <> 'connected', i.created_at, i.integration_id";
/* The one that most deliveries are signed with first. An infinite not_after has no microseconds. */
const char directory_rows_secrets_sql[] =
    "SELECT integration_id, secret_id::text, sealed,"
    " CASE WHEN isfinite(not_after) THEN (extract(epoch FROM not_after) * 1000000)::int8 ELSE 0 "
    "END,"
    " array_position('{current,next,retiring}', state) - 1"
    " FROM core.integration_secrets WHERE not_after IS NULL OR not_after > now()"
    " ORDER BY integration_id, array_position('{current,next,retiring}', state), created_at DESC";

static const char *open_secret(const struct seal_keys *keys, const struct platform *platform,
                               const char *owner, const PGresult *rows, int row,
                               struct keyring *keyring)
{
    if (keys == NULL)
        return "a sealed secret, but postgres.key_file is not set";
    if (keyring->count == SECRETS_MAX)
        return "more live secrets than are tried";
    struct slice sealed = {PQgetvalue(rows, row, 2), (size_t)PQgetlength(rows, row, 2)};
    unsigned char plain[SEAL_PLAIN_MAX];
    size_t len = 0;
    if (!seal_open(keys, slice_of(owner), sealed, plain, &len))
        return "the secret does not open with the key file for this integration";
    const char *reason = "the secret is not usable";
    int64_t not_after = column_int64_at(rows, row, 3, 0);
    struct secret *secret =
        secret_new(platform, PQgetvalue(rows, row, 1), (struct slice){(const char *)plain, len},
                   not_after, &reason);
    OPENSSL_cleanse(plain, sizeof plain);
    if (secret == NULL)
        return reason;
    int32_t state = column_int32_at(rows, row, 4, -1);
    if (state >= 0 && state < SECRET_STATE_COUNT)
        secret_set_series(secret, platform->state_series[state]);
    keyring->secrets[keyring->count++] = secret;
    return NULL;
}

/* The first row of `secrets`, which are sorted by integration, that is not before `uuid`. */
static int first_secret(const PGresult *secrets, const char *uuid)
{
    int low = 0, high = PQntuples(secrets);
    while (low < high) {
        int middle = low + (high - low) / 2;
        if (memcmp(PQgetvalue(secrets, middle, 0), uuid, 16) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct build {
    const struct config *config;
    const struct platforms *platforms;
    const struct seal_keys *keys;
    const struct directory_rows *rows;
    struct directory *directory;
    struct skipped_rows *skipped;
};

/* The workspace's own figures, else its plan's. */
static struct quota_limits limits_of(const struct config *config, const PGresult *rows, int row)
{
    const struct config_limits *plan = config_plan(config, PQgetvalue(rows, row, 6));
    return (struct quota_limits){
        .minute = column_int32_at(rows, row, 10, (int32_t)plan->minute),
        .hour = column_int32_at(rows, row, 11, (int32_t)plan->hour),
    };
}

static void add_row(const struct build *build, int row)
{
    const PGresult *rows = build->rows->integrations, *secrets = build->rows->secrets;
    const char *uuid = PQgetvalue(rows, row, 0), *id = PQgetvalue(rows, row, 1);
    const char *name = PQgetvalue(rows, row, 3);
    const struct platform *platform = platforms_find(build->platforms, slice_of(name));
    if (platform == NULL) {
        skip(build->skipped, id, "an integration of a platform that is not loaded");
        return;
    }
    struct keyring keyring = {0};
    int end = first_secret(secrets, uuid), begin = end;
    for (; end < PQntuples(secrets) && memcmp(PQgetvalue(secrets, end, 0), uuid, 16) == 0; end++) {
        const char *reason = open_secret(build->keys, platform, id, secrets, end, &keyring);
        if (reason != NULL)
            skip(build->skipped, PQgetvalue(secrets, end, 1), reason);
    }
    /* Its owner wants signatures checked on the endpoint route: without a usable secret the token
     * alone must not do, so the route is closed. */
    bool closed = end > begin && keyring.count == 0;
    if (closed)
        skip(build->skipped, id, "none of its secrets is usable: its endpoint is closed");
    struct texts accounts = get_texts(rows, row, 7), emails = get_texts(rows, row, 8),
                 domains = get_texts(rows, row, 9);
    struct integration *integration = directory_add(
        build->directory,
        &(struct directory_row){
            .integration_id = id,
            .workspace = PQgetvalue(rows, row, 2),
            .platform = name,
            .status = PQgetvalue(rows, row, 4),
            .token = closed || PQgetisnull(rows, row, 5) ? NULL : PQgetvalue(rows, row, 5),
            .limits = limits_of(build->config, rows, row),
            .accounts = accounts.items,
            .account_count = accounts.count,
            .emails = emails.items,
            .email_count = emails.count,
            .domains = domains.items,
            .domain_count = domains.count,
        });
    if (integration != NULL) {
        integration->secrets = keyring;
    } else {
        keyring_release(&keyring);
        skip(build->skipped, id, "an integration with an unknown status");
    }
    texts_release(&accounts);
    texts_release(&emails);
    texts_release(&domains);
}

struct directory *directory_rows_build(const struct directory_rows *rows, struct setup *setup,
                                       const struct seal_keys *keys, const atomic_bool *stopping,
                                       struct skipped_rows *ret_skipped)
{
    *ret_skipped = (struct skipped_rows){0};
    const struct build build = {setup->config, setup->platforms,     keys,
                                rows,          directory_new(setup), ret_skipped};
    for (int row = 0; row < PQntuples(rows->integrations); row++) {
        if (row % 1000 == 0 && atomic_load(stopping))
            break;
        add_row(&build, row);
    }
    return build.directory;
}

static bool is_same_result(const PGresult *a, const PGresult *b)
{
    if (PQntuples(a) != PQntuples(b) || PQnfields(a) != PQnfields(b))
        return false;
    for (int row = 0; row < PQntuples(a); row++) {
        for (int column = 0; column < PQnfields(a); column++) {
            int len = PQgetlength(a, row, column);
            if (len != PQgetlength(b, row, column) ||
                PQgetisnull(a, row, column) != PQgetisnull(b, row, column) ||
                memcmp(PQgetvalue(a, row, column), PQgetvalue(b, row, column), (size_t)len) != 0)
                return false;
        }
    }
    return true;
}

bool directory_rows_equal(const struct directory_rows *a, const struct directory_rows *b)
{
    return is_same_result(a->integrations, b->integrations) &&
           is_same_result(a->secrets, b->secrets);
}

void directory_rows_release(struct directory_rows *rows)
{
    PQclear(rows->integrations);
    PQclear(rows->secrets);
    *rows = (struct directory_rows){0};
}
