/* Timestamps: each unit, both tolerances, and text that is nearly a time. The expected Unix times
 * come from Python's datetime. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "freshness.h"
#include "json.h"
#include "rfc3339.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define SECOND INT64_C(1000000)

static void test_numbers(void **state)
{
    (void)state;
    int64_t us = 0;
    assert_true(freshness_parse(slice_of("1531420618"), UNIT_SECONDS, &us));
    assert_int_equal(us, 1531420618 * SECOND);
    assert_true(freshness_parse(slice_of("1710876543210"), UNIT_MILLISECONDS, &us));
    assert_int_equal(us, INT64_C(1710876543210000));
    assert_true(freshness_parse(slice_of("0"), UNIT_SECONDS, &us));
    assert_true(freshness_parse(slice_of("253402300799"), UNIT_SECONDS, &us));
    assert_int_equal(us, 253402300799 * SECOND);
    assert_true(freshness_parse(slice_of("253402300799999"), UNIT_MILLISECONDS, &us));
    static const char *const wrong[] = {"",
                                        "-1",
                                        "+1",
                                        " 1",
                                        "1 ",
                                        "1.5",
                                        "1e9",
                                        "0x10",
                                        "12a",
                                        "253402300800",
                                        "9999999999999999999",
                                        "18446744073709551617",
                                        "00000000000000000001",
                                        "\xd9\xa1",
                                        "1\n"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_false(freshness_parse(slice_of(wrong[i]), UNIT_SECONDS, &us));
    assert_false(freshness_parse(slice_of("253402300800000"), UNIT_MILLISECONDS, &us));
    assert_false(freshness_parse(slice_of("9223372036854775807"), UNIT_MILLISECONDS, &us));
    assert_false(freshness_parse((struct slice){"1\0", 2}, UNIT_SECONDS, &us));
}

static void test_rfc3339(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t us;
    } cases[] = {
        {"1970-01-01T00:00:00Z", 0},
        {"2024-02-29T23:59:59Z", 1709251199 * SECOND},
        {"2024-02-29t23:59:59z", 1709251199 * SECOND},
        {"2000-02-29T12:00:00+05:30", 951805800 * SECOND},
        {"1969-12-31T23:59:59.5Z", -SECOND / 2},
        {"1900-03-01T00:00:00-00:00", -2203891200 * SECOND},
        {"2025-01-27T23:27:47.096395+00:00", 1738020467 * SECOND + 96395},
        {"2025-01-27T23:27:47.0963959999999999999999Z", 1738020467 * SECOND + 96395},
        {"2025-01-27T18:27:47.1-05:00", 1738020467 * SECOND + 100000},
        {"2016-12-31T23:59:60Z", 1483228800 * SECOND},
        {"9999-12-31T23:59:59Z", 253402300799 * SECOND},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t us = 1;
        assert_true(freshness_parse(slice_of(cases[i].text), UNIT_RFC3339, &us));
        assert_int_equal(us, cases[i].us);
    }
}

static void test_nearly_rfc3339(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "",
        "2024-02-29",
        "2024-02-29T23:59:59",
        "2023-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "2024-00-01T00:00:00Z",
        "2024-13-01T00:00:00Z",
        "2024-04-31T00:00:00Z",
        "2024-01-00T00:00:00Z",
        "2024-01-01T24:00:00Z",
        "2024-01-01T00:60:00Z",
        "2024-01-01T00:00:61Z",
        "2024-01-01T00:00:00.Z",
        "2024-01-01T00:00:00,5Z",
        "2024-01-01 00:00:00Z",
        "2024-01-01T00:00:00+0530",
        "2024-01-01T00:00:00+05",
        "2024-01-01T00:00:00+24:00",
        "2024-01-01T00:00:00+05:60",
        "2024-01-01T00:00:00ZZ",
        "2024-01-01T00:00:00Z ",
        "24-01-01T00:00:00Z",
        "+024-01-01T00:00:00Z",
        "2024-1-01T00:00:00Z",
        "9999-12-31T23:59:59-00:01",
        "1700000000",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        int64_t us = 1;
        assert_false(freshness_parse(slice_of(wrong[i]), UNIT_RFC3339, &us));
        assert_int_equal(us, 1);
    }
}

static const struct platform header_platform = {
    .timestamp = {.from = {FROM_HEADER, .name = "x-time"},
                  .unit = UNIT_SECONDS,
                  .past_us = 300 * SECOND,
                  .future_us = 60 * SECOND}};

static enum outcome at(int64_t sent_s, int64_t now_us)
{
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)sent_s);
    return freshness_check(&header_platform, slice_of(text), NULL, now_us);
}

static void test_rfc3339_is_written(void **state)
{
    (void)state;
    static const struct {
        int64_t wall_us;
        int digits;
        const char *text;
    } cases[] = {{0, 0, "1970-01-01T00:00:00Z"},
                 {1709164799999999, 0, "2024-02-28T23:59:59Z"},
                 {1709251200001999, 3, "2024-03-01T00:00:00.001Z"},
                 {1709251200000042, 6, "2024-03-01T00:00:00.000042Z"},
                 {RFC3339_MAX_US + 999999, 6, "9999-12-31T23:59:59.999999Z"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[RFC3339_TEXT];
        int64_t back;
        assert_int_equal(rfc3339_format(cases[i].wall_us, cases[i].digits, text),
                         strlen(cases[i].text));
        assert_string_equal(text, cases[i].text);
        assert_true(rfc3339_parse(slice_of(text), &back));
        assert_in_range(cases[i].wall_us - back, 0, 999999);
    }
}

static void test_tolerances(void **state)
{
    (void)state;
    int64_t now = 1700000000 * SECOND;
    assert_int_equal(at(1700000000, now), OUTCOME_NONE);
    assert_int_equal(at(1700000000 - 300, now), OUTCOME_NONE);
    assert_int_equal(at(1700000000 - 300, now + 1), OUTCOME_TIMESTAMP_STALE);
    assert_int_equal(at(1700000000 + 60, now), OUTCOME_NONE);
    assert_int_equal(at(1700000000 + 60, now - 1), OUTCOME_TIMESTAMP_FUTURE);
    assert_int_equal(at(0, now), OUTCOME_TIMESTAMP_STALE);
    assert_int_equal(at(253402300799, now), OUTCOME_TIMESTAMP_FUTURE);
    assert_int_equal(at(1700000000000, now), OUTCOME_TIMESTAMP_MALFORMED); /* ms for s */
    assert_int_equal(freshness_check(&header_platform, (struct slice){0}, NULL, now),
                     OUTCOME_TIMESTAMP_MISSING);
    assert_int_equal(freshness_check(&header_platform, slice_of("now"), NULL, now),
                     OUTCOME_TIMESTAMP_MALFORMED);
}

static void test_no_rule_no_check(void **state)
{
    (void)state;
    const struct platform platform = {0};
    assert_int_equal(freshness_check(&platform, slice_of("junk"), NULL, 0), OUTCOME_NONE);
}

static enum outcome in_body(const char *body, int64_t now)
{
    struct platform platform = {.timestamp = {.from = {FROM_JSON, .name = "/ts"},
                                              .unit = UNIT_MILLISECONDS,
                                              .past_us = 300 * SECOND,
                                              .future_us = 300 * SECOND}};
    struct json_reader *reader = json_reader_new(1000);
    const struct json *json = NULL;
    assert_int_equal(json_read(reader, slice_of(body), &json), OUTCOME_NONE);
    /* What a header says does not count under this rule. */
    enum outcome outcome = freshness_check(&platform, slice_of("1"), json, now);
    assert_int_equal(freshness_check(&platform, slice_of("1"), NULL, now), OUTCOME_NONE);
    platform.timestamp.optional = true; /* forgives absence and nothing else */
    assert_int_equal(freshness_check(&platform, slice_of("1"), json, now),
                     outcome == OUTCOME_TIMESTAMP_MISSING ? OUTCOME_NONE : outcome);
    json_reader_free(reader);
    return outcome;
}

static void test_time_in_the_body(void **state)
{
    (void)state;
    int64_t now = INT64_C(1710876543210000);
    assert_int_equal(in_body("{\"ts\":1710876543210}", now), OUTCOME_NONE);
    assert_int_equal(in_body("{\"ts\":\"1710876543210\"}", now), OUTCOME_NONE);
    assert_int_equal(in_body("{\"ts\":1710876543210}", now + 301 * SECOND),
                     OUTCOME_TIMESTAMP_STALE);
    assert_int_equal(in_body("{\"ts\":1710876543210}", now - 301 * SECOND),
                     OUTCOME_TIMESTAMP_FUTURE);
    assert_int_equal(in_body("{\"ts\":1.71e12}", now), OUTCOME_TIMESTAMP_MALFORMED);
    assert_int_equal(in_body("{\"ts\":[1]}", now), OUTCOME_TIMESTAMP_MALFORMED);
    assert_int_equal(in_body("{\"ts\":1,\"ts\":1710876543210}", now), OUTCOME_TIMESTAMP_MALFORMED);
    assert_int_equal(in_body("{\"ts\":null}", now), OUTCOME_TIMESTAMP_MISSING);
    assert_int_equal(in_body("{}", now), OUTCOME_TIMESTAMP_MISSING);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_rfc3339),
        cmocka_unit_test(test_nearly_rfc3339),
        cmocka_unit_test(test_tolerances),
        cmocka_unit_test(test_rfc3339_is_written),
        cmocka_unit_test(test_no_rule_no_check),
        cmocka_unit_test(test_time_in_the_body),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
