/* The vocabulary of outcomes, judged against the promises: which status an ending may have, and
 * what a sender may learn from it. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "outcome.h"

#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
/* cmocka.h needs those before it */
#include <cmocka.h>

#define EACH(o) for (int o = OUTCOME_NONE + 1; o < OUTCOME_COUNT; o++)

static const struct outcome_info *info(int outcome)
{
    return outcome_info((enum outcome)outcome);
}

static bool is_word(const char *text)
{
    for (const char *p = text; *p; p++)
        if (!islower((unsigned char)*p) && *p != '_')
            return false;
    return *text != '\0';
}

static void test_rows_are_complete(void **state)
{
    (void)state;
    EACH(o)
    {
        assert_true(is_word(info(o)->status_label));
        assert_true(is_word(info(o)->code));
        assert_true(info(o)->sentence[0] != '\0');
        if (info(o)->error_type)
            assert_true(is_word(info(o)->error_type));
    }
}

static void test_only_durable_ones_promise(void **state)
{
    (void)state;
    EACH(o)
    {
        bool durable = outcome_is_durable((enum outcome)o);
        assert_int_equal(durable, o == OUTCOME_ACCEPTED || o == OUTCOME_DUPLICATE);
        if (!strcmp(info(o)->code, "accepted") || !strcmp(info(o)->code, "duplicate"))
            assert_true(durable);
        if (durable) {
            assert_int_equal(info(o)->http_status, 200);
            assert_null(info(o)->error_type);
        }
    }
}

static void test_status_follows_label(void **state)
{
    (void)state;
    static const struct {
        const char *label;
        int from, to;
    } rows[] = {{"accepted", 200, 200},    {"duplicate", 200, 200},    {"challenge", 200, 200},
                {"ignored", 200, 200},     {"unauthorized", 401, 401}, {"not_found", 404, 404},
                {"bad_request", 400, 415}, {"limited", 0, 0},          {"unavailable", 503, 503}};
    EACH(o)
    {
        /* Counted as what it is, a failed signature; answered as a limit. */
        if (o == OUTCOME_SOURCE_LIMITED)
            continue;
        bool known = false;
        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
            if (strcmp(rows[i].label, info(o)->status_label) != 0)
                continue;
            known = true;
            assert_in_range(info(o)->http_status, rows[i].from, rows[i].to);
        }
        assert_true(known);
    }
}

/* Which check failed must not help a forger: all 401s and all 404s look the same from outside. */
static void test_refusals_are_flat(void **state)
{
    (void)state;
    EACH(o) EACH(p)
    {
        int status = info(o)->http_status;
        if ((status != 401 && status != 404) || info(p)->http_status != status)
            continue;
        assert_string_equal(info(o)->code, info(p)->code);
        assert_string_equal(info(o)->message, info(p)->message);
    }
}

static void test_error_types_are_distinct(void **state)
{
    (void)state;
    EACH(o) EACH(p)
    {
        if (o == p || !info(o)->error_type || !info(p)->error_type)
            continue;
        assert_string_not_equal(info(o)->error_type, info(p)->error_type);
    }
}

static void test_later_status(void **state)
{
    (void)state;
    assert_int_equal(outcome_http_status(OUTCOME_LIMITED, 429), 429);
    assert_int_equal(outcome_http_status(OUTCOME_LIMITED, 503), 503);
    assert_int_equal(outcome_http_status(OUTCOME_STORE_DOWN, 429), 503);
    assert_int_equal(outcome_http_status(OUTCOME_SIGNATURE_MISMATCH, 429), 401);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_are_complete),
        cmocka_unit_test(test_only_durable_ones_promise),
        cmocka_unit_test(test_status_follows_label),
        cmocka_unit_test(test_refusals_are_flat),
        cmocka_unit_test(test_error_types_are_distinct),
        cmocka_unit_test(test_later_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
