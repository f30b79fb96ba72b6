/* Rows made into a directory: secrets are opened, what can't be used is left out and told, and rows
 * that did not change are known for the same. The rows are made here as Postgres would give them.
 */
/* SPDX-License-Identifier: Apache-2.0 */
#include "directory.h"
#include "directory_rows.h"
#include "platform.h"
#include "setup.h"

#include <arpa/inet.h>
#include <endian.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#define KEY "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
#define OTHER_KEY "ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
#define ID "0b6f6b3e-5d2c-4a8e-9a53-6d2f9f0f1c11"
#define TOKEN "token-of-sixteen"

static struct setup *setup;
static struct seal_keys *keys, *other_keys;
static const atomic_bool not_stopping;

static PGresult *result_new(int columns)
{
    static char names[16][4];
    PGresAttDesc descriptions[16] = {0};
    PGresult *result = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
    assert_non_null(result);
    for (int i = 0; i < columns; i++) {
        snprintf(names[i], sizeof names[i], "c%d", i);
        descriptions[i] = (PGresAttDesc){.name = names[i], .format = 1};
    }
    assert_true(PQsetResultAttrs(result, columns, descriptions));
    return result;
}

/* `bytes` NULL = SQL's NULL. */
static void put(PGresult *result, int row, int column, const void *bytes, size_t len)
{
    char *copy = bytes ? xmalloc(len + 1) : NULL;
    if (copy != NULL)
        memcpy(copy, bytes, len);
    assert_true(PQsetvalue(result, row, column, copy, bytes ? (int)len : -1));
    free(copy);
}

static void put_text(PGresult *result, int row, int column, const char *text)
{
    put(result, row, column, text, text ? strlen(text) : 0);
}

/* text[] of one element. */
static void put_texts(PGresult *result, int row, int column, const char *text)
{
    uint32_t head[6] = {htonl(1), 0, htonl(25), htonl(1), htonl(1), htonl((uint32_t)strlen(text))};
    char bytes[256];
    memcpy(bytes, head, sizeof head);
    memcpy(bytes + sizeof head, text, strlen(text));
    put(result, row, column, bytes, sizeof head + strlen(text));
}

static const unsigned char uuid[16] = {0x0b, 0x6f, 0x6b, 0x3e, 0x5d, 0x2c, 0x4a, 0x8e,
                                       0x9a, 0x53, 0x6d, 0x2f, 0x9f, 0x0f, 0x1c, 0x11};

static void put_integration(PGresult *result, int row, const char *platform)
{
    put(result, row, 0, uuid, sizeof uuid);
    put_text(result, row, 1, ID);
    put_text(result, row, 2, "acme");
    put_text(result, row, 3, platform);
    put_text(result, row, 4, "connected");
    put_text(result, row, 5, TOKEN);
    put_text(result, row, 6, "default");
    put_texts(result, row, 7, "account");
    for (int column = 8; column < 12; column++)
        put(result, row, column, NULL, 0);
}

static void put_secret(PGresult *result, int row, const char *text, uint32_t state)
{
    unsigned char sealed[128];
    size_t len = 0;
    uint64_t ends = htobe64(1796083200000000);
    state = htonl(state);
    assert_true(seal_close(keys, slice_of(ID), slice_of(text), sealed, &len));
    put(result, row, 0, uuid, sizeof uuid);
    put_text(result, row, 1, "secret-row");
    put(result, row, 2, sealed, len);
    put(result, row, 3, &ends, sizeof ends);
    put(result, row, 4, &state, sizeof state);
}

static struct directory_rows rows_of(const char *platform, const char *secret)
{
    struct directory_rows rows = {result_new(12), result_new(5)};
    put_integration(rows.integrations, 0, platform);
    if (secret != NULL)
        put_secret(rows.secrets, 0, secret, SECRET_RETIRING);
    return rows;
}

static struct directory *build(const struct directory_rows *rows, const struct seal_keys *with,
                               struct skipped_rows *skipped)
{
    return directory_rows_build(rows, setup, with, &not_stopping, skipped);
}

static const struct integration *by_token(const struct directory *directory)
{
    return directory_by_token(directory, slice_of("zoom"), slice_of(TOKEN));
}

static void a_secret_is_opened(void **state)
{
    (void)state;
    struct skipped_rows skipped;
    struct directory_rows rows = rows_of("zoom", "hush");
    struct directory *directory = build(&rows, keys, &skipped);
    assert_int_equal(skipped.count, 0);
    const struct integration *found = by_token(directory);
    assert_non_null(found);
    assert_int_equal(found->secrets.count, 1);
    const struct secret *secret = found->secrets.secrets[0];
    assert_true(secret_equals(secret, slice_of("hush")));
    assert_string_equal(secret_label(secret), "secret-row");
    assert_true(secret_is_live(secret, 1796083200000000));
    assert_false(secret_is_live(secret, 1796083200000001));
    const struct platform *zoom = platforms_find(setup->platforms, slice_of("zoom"));
    assert_int_equal(secret_series(secret), zoom->state_series[SECRET_RETIRING]);
    assert_int_not_equal(secret_series(secret), zoom->state_series[SECRET_CURRENT]);
    assert_non_null(
        directory_by_account(directory, slice_of("zoom"), slice_of("account"), slice_of("")));
    directory_unref(directory);
    directory_rows_release(&rows);
}

/* A secret that does not open closes the endpoint: its token alone must not do. */
static void what_is_unusable_is_told(void **state)
{
    (void)state;
    struct skipped_rows first, second;
    struct directory_rows rows = rows_of("zoom", "hush");
    struct directory *directory = build(&rows, other_keys, &first);
    assert_int_equal(first.count, 2);
    assert_string_equal(first.rows[0].id, "secret-row");
    assert_non_null(strstr(first.rows[0].reason, "does not open"));
    assert_string_equal(first.rows[1].id, ID);
    assert_null(by_token(directory));
    directory_unref(directory);
    directory = build(&rows, other_keys, &second);
    assert_true(first.hash == second.hash);
    directory_unref(directory);
    directory = build(&rows, NULL, &second);
    assert_non_null(strstr(second.rows[0].reason, "postgres.key_file"));
    assert_true(first.hash != second.hash);
    directory_unref(directory);
    directory_rows_release(&rows);
    rows = rows_of("nosuch", NULL);
    directory = build(&rows, keys, &first);
    assert_int_equal(directory_count(directory), 0);
    assert_int_equal(first.count, 1);
    directory_unref(directory);
    directory_rows_release(&rows);
}

static void what_did_not_change_is_the_same(void **state)
{
    (void)state;
    struct directory_rows rows = rows_of("zoom", NULL), same = rows_of("zoom", NULL);
    assert_true(directory_rows_equal(&rows, &same));
    put_integration(same.integrations, 1, "zoom");
    assert_false(directory_rows_equal(&rows, &same));
    directory_rows_release(&same);
    same = rows_of("otto", NULL); /* as long */
    assert_false(directory_rows_equal(&rows, &same));
    directory_rows_release(&same);
    same = rows_of("zoom", "hush");
    assert_false(directory_rows_equal(&rows, &same));
    directory_rows_release(&same);
    same = rows_of("zoom", NULL);
    put_text(same.integrations, 0, 8, ""); /* '' is not NULL */
    assert_false(directory_rows_equal(&rows, &same));
    directory_rows_release(&same);
    directory_rows_release(&rows);
}

static int set_up(void **state)
{
    (void)state;
    struct problems problems = {0};
    char path[4096];
    const char *reason;
    snprintf(path, sizeof path, "%s/tests/unit/setup/hookgate.yaml", getenv("HOOKGATE_SOURCE"));
    setup = setup_read(path, &problems);
    problems_print(&problems);
    keys = seal_keys_parse(SLICE_LITERAL(KEY), &reason);
    other_keys = seal_keys_parse(SLICE_LITERAL(OTHER_KEY), &reason);
    return setup == NULL || keys == NULL || other_keys == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    setup_unref(setup);
    seal_keys_free(keys);
    seal_keys_free(other_keys);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_secret_is_opened),
        cmocka_unit_test(what_is_unusable_is_told),
        cmocka_unit_test(what_did_not_change_is_the_same),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
