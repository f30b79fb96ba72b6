/* The directory: who a token, account id, address or domain belongs to, and to nobody else. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "clock.h"
#include "directory.h"
#include "platform.h"
#include "setup.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#define ID_A "0b6f6b3e-5d2c-4a8e-9a53-6d2f9f0f1c11"
#define ID_B "0B6F6B3E-5D2C-4A8E-9A53-6D2F9F0F1C22"
#define TOKEN "abcdefghijklmnop"

static const char *const accounts[] = {"acc-1", "acc-2"};
static const char *const emails[] = {"ann@example.com"};
static const char *const domains[] = {"example.com", ""};

static const struct directory_row row_a = {
    .integration_id = ID_A,
    .workspace = "ws-a",
    .platform = "zoom",
    .status = "connected",
    .token = TOKEN,
    .accounts = accounts,
    .account_count = 2,
    .emails = emails,
    .email_count = 1,
    .domains = domains,
    .domain_count = 2,
};

static struct directory *build(const struct directory_row *rows, size_t count)
{
    struct directory *directory = directory_new(NULL);
    for (size_t i = 0; i < count; i++)
        assert_non_null(directory_add(directory, &rows[i]));
    return directory;
}

static const struct integration *account(const struct directory *directory, const char *platform,
                                         const char *id, const char *email)
{
    return directory_by_account(directory, slice_of(platform), slice_of(id), slice_of(email));
}

static void finds_by_each_key(void **state)
{
    (void)state;
    struct directory *directory = build(&row_a, 1);
    assert_int_equal(directory_count(directory), 1);
    const struct integration *found =
        directory_by_token(directory, SLICE_LITERAL("zoom"), SLICE_LITERAL(TOKEN));
    assert_non_null(found);
    assert_string_equal(found->id, ID_A);
    assert_string_equal(found->workspace, "ws-a");
    assert_string_equal(found->platform, "zoom");
    assert_int_equal(found->uuid[0], 0x0b);
    assert_int_equal(found->uuid[4], 0x5d);
    assert_int_equal(found->uuid[15], 0x11);
    assert_ptr_equal(account(directory, "zoom", "acc-1", ""), found);
    assert_ptr_equal(account(directory, "zoom", "acc-2", NULL), found);
    assert_ptr_equal(account(directory, "zoom", NULL, "ann@example.com"), found);
    assert_ptr_equal(account(directory, "zoom", "acc-9", "bob@example.com"), found);
    directory_unref(directory);
}

static void finds_nothing_else(void **state)
{
    (void)state;
    struct directory *directory = build(&row_a, 1);
    struct slice zoom = SLICE_LITERAL("zoom");
    assert_null(directory_by_token(directory, SLICE_LITERAL("otter"), SLICE_LITERAL(TOKEN)));
    assert_null(directory_by_token(directory, zoom, SLICE_LITERAL(TOKEN "q")));
    assert_null(directory_by_token(directory, zoom, SLICE_LITERAL("abcdefghijklmno")));
    assert_null(directory_by_token(directory, zoom, SLICE_LITERAL("")));
    assert_null(account(directory, "otter", "acc-1", "ann@example.com"));
    assert_null(account(directory, "zoo", "macc-1", ""));
    assert_null(account(directory, "zoom", "acc-", ""));
    assert_null(account(directory, "zoom", "", ""));
    assert_null(account(directory, "zoom", NULL, NULL));
    /* A text of one kind is no key of another. */
    assert_null(account(directory, "zoom", "example.com", ""));
    assert_null(account(directory, "zoom", "ann@example.com", ""));
    assert_null(account(directory, "zoom", "", "acc-1"));
    assert_null(account(directory, "zoom", "", "example.com"));
    assert_null(directory_by_token(directory, zoom, SLICE_LITERAL("acc-1")));
    directory_unref(directory);
}

static void hostile_addresses(void **state)
{
    (void)state;
    struct directory *directory = build(&row_a, 1);
    assert_null(account(directory, "zoom", "", "@"));
    assert_null(account(directory, "zoom", "", "ann@"));
    assert_null(account(directory, "zoom", "", "ann@example.com@evil.example"));
    assert_null(account(directory, "zoom", "", "ann@sub.example.com"));
    assert_null(account(directory, "zoom", "", "ann@notexample.com"));
    assert_null(directory_by_account(directory, SLICE_LITERAL("zoom"), SLICE_LITERAL("acc-1\0"),
                                     SLICE_LITERAL("x@example.com\0")));
    directory_unref(directory);
}

static void account_counts_before_address_before_domain(void **state)
{
    (void)state;
    static const char *const mail[] = {"bob@example.com"};
    static const char *const id[] = {"acc-7"};
    const struct directory_row rows[] = {
        row_a,
        {.integration_id = ID_B,
         .workspace = "ws-b",
         .platform = "zoom",
         .status = "paused",
         .limits = {.minute = 7},
         .emails = mail,
         .email_count = 1,
         .accounts = id,
         .account_count = 1},
    };
    struct directory *directory = build(rows, 2);
    const struct integration *b = account(directory, "zoom", "", "bob@example.com");
    assert_string_equal(b->workspace, "ws-b");
    assert_int_equal(b->status, INTEGRATION_PAUSED);
    assert_non_null(b->quota);
    assert_int_equal(b->quota->limit_minute, 7);
    assert_null(account(directory, "zoom", "acc-1", "")->quota);
    /* A quota outlives the snapshot that it was made for. */
    struct directory *next = build(rows, 2);
    struct quota *quota = b->quota;
    directory_unref(directory);
    assert_ptr_equal(account(next, "zoom", "", "bob@example.com")->quota, quota);
    directory = next;
    b = account(directory, "zoom", "", "bob@example.com");
    assert_int_equal(b->uuid[15], 0x22);
    assert_string_equal(account(directory, "zoom", "acc-1", "bob@example.com")->workspace, "ws-a");
    assert_string_equal(account(directory, "zoom", "acc-7", "ann@example.com")->workspace, "ws-b");
    assert_string_equal(account(directory, "zoom", "", "eve@example.com")->workspace, "ws-a");
    directory_unref(directory);
}

static void the_first_row_with_a_key_counts(void **state)
{
    (void)state;
    struct directory_row rows[] = {row_a, row_a};
    rows[1].integration_id = ID_B;
    rows[1].workspace = "ws-b";
    struct directory *directory = build(rows, 2);
    assert_int_equal(directory_count(directory), 2);
    assert_string_equal(account(directory, "zoom", "acc-1", "")->workspace, "ws-a");
    directory_unref(directory);
}

static void unusable_rows_are_told(void **state)
{
    (void)state;
    struct directory *directory = directory_new(NULL);
    struct directory_row row = row_a;
    row.integration_id = "not-a-uuid";
    assert_null(directory_add(directory, &row));
    row = row_a;
    row.status = "gone";
    assert_null(directory_add(directory, &row));
    assert_non_null(directory_add(directory, &row_a));
    directory_unref(directory);
    directory = directory_new(NULL);
    assert_null(account(directory, "zoom", "acc-1", "ann@example.com"));
    directory_unref(directory);
    assert_null(directory_unref(NULL));
}

static void the_last_reference_frees(void **state)
{
    (void)state;
    struct directory *directory = build(&row_a, 1);
    assert_ptr_equal(directory_ref(directory), directory);
    assert_null(directory_unref(directory));
    assert_non_null(account(directory, "zoom", "acc-1", ""));
    assert_null(directory_unref(directory));
}

/* Once the loader's own reference is the last one, it may free the directory. */
static void tells_whether_others_have_it(void **state)
{
    (void)state;
    struct directory *directory = build(&row_a, 1);
    assert_false(directory_is_shared(directory));
    directory_ref(directory);
    assert_true(directory_is_shared(directory));
    directory_unref(directory);
    assert_false(directory_is_shared(directory));
    directory_unref(directory);
}

/* What a delivery points to stays as long as its directory. */
static void keeps_its_setup(void **state)
{
    (void)state;
    struct problems problems = {0};
    char path[4096];
    snprintf(path, sizeof path, "%s/tests/unit/setup/hookgate.yaml", getenv("HOOKGATE_SOURCE"));
    struct setup *setup = setup_read(path, &problems);
    problems_print(&problems);
    assert_non_null(setup);
    struct directory *directory = directory_new(setup);
    assert_int_equal(atomic_load(&setup->references), 2);
    setup_unref(setup);
    assert_int_equal(atomic_load(&setup->references), 1);
    assert_non_null(platforms_find(setup->platforms, slice_of("zoom")));
    directory_unref(directory);
    assert_null(setup_unref(NULL));
}

/* All of 100,000 are found, and the table does not degrade: a quadratic one would take minutes. */
static void a_hundred_thousand(void **state)
{
    (void)state;
    enum { COUNT = 100000 };
    struct directory *directory = directory_new(NULL);
    char id[37], name[32], token[32];
    const char *const names[] = {name};
    int64_t began = clock_mono_us();
    for (unsigned i = 0; i < COUNT; i++) {
        snprintf(id, sizeof id, "00000000-0000-4000-8000-%012x", i);
        snprintf(name, sizeof name, "account-%u", i);
        snprintf(token, sizeof token, "token-of-%010u", i);
        const struct directory_row row = {.integration_id = id,
                                          .workspace = name,
                                          .platform = "zoom",
                                          .status = "connected",
                                          .token = token,
                                          .accounts = names,
                                          .account_count = 1};
        assert_non_null(directory_add(directory, &row));
    }
    int64_t built = clock_mono_us();
    for (unsigned i = 0; i < COUNT; i++) {
        snprintf(name, sizeof name, "account-%u", i);
        const struct integration *found = account(directory, "zoom", name, "");
        assert_non_null(found);
        assert_string_equal(found->workspace, name);
    }
    int64_t found_us = clock_mono_us() - built;
    snprintf(token, sizeof token, "token-of-%010u", COUNT - 1);
    assert_non_null(directory_by_token(directory, SLICE_LITERAL("zoom"), slice_of(token)));
    assert_int_equal(directory_count(directory), COUNT);
    assert_true(built - began < 5000000);
    assert_true(found_us < 2000000);
    print_message("# built in %lld us, found in %lld us\n", (long long)(built - began),
                  (long long)found_us);
    directory_unref(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_by_each_key),
        cmocka_unit_test(finds_nothing_else),
        cmocka_unit_test(hostile_addresses),
        cmocka_unit_test(account_counts_before_address_before_domain),
        cmocka_unit_test(the_first_row_with_a_key_counts),
        cmocka_unit_test(unusable_rows_are_told),
        cmocka_unit_test(the_last_reference_frees),
        cmocka_unit_test(tells_whether_others_have_it),
        cmocka_unit_test(keeps_its_setup),
        cmocka_unit_test(a_hundred_thousand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
