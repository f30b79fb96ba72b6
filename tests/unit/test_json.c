/* The JSON reader: pointers, one spelling for numbers, and bodies meant to break a reader. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

#include <cmocka.h>

#define MAX 100000

static struct json_reader *reader;

static const struct json *doc(const char *body)
{
    const struct json *json = NULL;
    assert_int_equal(json_read(reader, slice_of(body), &json), OUTCOME_NONE);
    return json;
}

static void expect(const char *body, const char *pointer, const char *text)
{
    struct slice found = {0};
    assert_int_equal(json_text_at(doc(body), pointer, &found), JSON_FOUND);
    if (!slice_is(found, text))
        fail_msg("%s at %s: '%.*s', not '%s'", body, pointer, (int)found.len, found.ptr, text);
}

static void expect_none(const char *body, const char *pointer, enum json_found why)
{
    struct slice found = SLICE_LITERAL("untouched");
    assert_int_equal(json_text_at(doc(body), pointer, &found), why);
    assert_true(slice_is(found, "untouched"));
}

static void test_pointers(void **state)
{
    (void)state;
    expect("\"x\"", "", "x");
    expect("{\"a\":{\"b\":[1,\"two\",{\"c\":true}]}}", "/a/b/1", "two");
    expect("{\"a\":{\"b\":[1,\"two\",{\"c\":true}]}}", "/a/b/2/c", "true");
    expect("{\"a/b\":1,\"m~n\":2,\"~1\":3,\"\":4,\"a\":5}", "/a~1b", "1");
    expect("{\"a/b\":1,\"m~n\":2,\"~1\":3,\"\":4,\"a\":5}", "/m~0n", "2");
    expect("{\"a/b\":1,\"m~n\":2,\"~1\":3,\"\":4,\"a\":5}", "/~01", "3");
    expect("{\"a/b\":1,\"m~n\":2,\"~1\":3,\"\":4,\"a\":5}", "/", "4");
    expect("{\"\\u0061\":\"\\u00e9\"}", "/a", "\xc3\xa9");
    static const char *const absent[] = {"/b", "/a/b", "/a/0", "/A", "a", "/a~", "/a~2", "/aa"};
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++)
        expect_none("{\"a\":1}", absent[i], JSON_ABSENT);
    static const char *const no_item[] = {"/3",  "/-",   "/01", "/+1",
                                          "/ 1", "/1e0", "/",   "/99999999999999999999"};
    for (size_t i = 0; i < sizeof no_item / sizeof *no_item; i++)
        expect_none("[1,2,3]", no_item[i], JSON_ABSENT);
    expect_none("{\"a\\u0000b\":1}", "/a", JSON_ABSENT);
}

static void test_numbers_keep_their_digits(void **state)
{
    (void)state;
    static const char *const numbers[] = {"123",
                                          "0",
                                          "-5",
                                          "9007199254740993",
                                          "18446744073709551615",
                                          "18446744073709551616",
                                          "-9223372036854775809",
                                          "123456789012345678901234567890",
                                          "1.50",
                                          "1E400"};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        char body[100];
        snprintf(body, sizeof body, "{\"n\":%s}", numbers[i]);
        expect(body, "/n", numbers[i]);
    }
    expect("{\"n\":\"123\"}", "/n", "123");
    expect("[-0]", "/0", "0");
}

static void test_types(void **state)
{
    (void)state;
    expect("[true,false]", "/0", "true");
    expect("[true,false]", "/1", "false");
    expect_none("[null]", "/0", JSON_ABSENT);
    expect_none("[\"\"]", "/0", JSON_ABSENT);
    expect_none("[[]]", "/0", JSON_WRONG_TYPE);
    expect_none("[{}]", "/0", JSON_WRONG_TYPE);
    struct slice text;
    assert_int_equal(json_text_at(doc("[\"a\\u0000b\"]"), "/0", &text), JSON_FOUND);
    assert_int_equal(text.len, 3);
    assert_memory_equal(text.ptr, "a\0b", 3);
}

static void test_repeated_keys(void **state)
{
    (void)state;
    expect_none("{\"a\":1,\"a\":1}", "/a", JSON_REPEATED);
    expect_none("{\"a\":{\"b\":1},\"x\":0,\"a\":{}}", "/a/b", JSON_REPEATED);
    expect_none("{\"a\":1,\"\\u0061\":2}", "/a", JSON_REPEATED);
    expect_none("[{\"a\":1,\"a\":2},{\"a\":3}]", "/*/a", JSON_REPEATED);
    expect("{\"b\":1,\"b\":2,\"a\":3}", "/a", "3");
    assert_false(json_exists(doc("{\"a\":1,\"a\":2}"), "/a"));
}

static void collect(struct slice text, void *context)
{
    char *all = context;
    size_t len = strlen(all);
    snprintf(all + len, 200 - len, "%.*s,", (int)text.len, text.ptr);
}

static void test_wildcards(void **state)
{
    (void)state;
    static const char body[] = "{\"l\":[{\"s\":null},{\"s\":{}},{\"s\":\"x\"},7,{\"s\":5}],"
                               "\"o\":{\"p\":{\"s\":\"y\"},\"q\":\"z\"},\"e\":[]}";
    expect(body, "/l/*/s", "x");
    expect(body, "/o/*", "z");
    expect(body, "/*/*/s", "x");
    expect_none(body, "/e/*", JSON_ABSENT);
    expect_none(body, "/e/*/s", JSON_ABSENT);
    expect_none(body, "/l/1/*", JSON_WRONG_TYPE);
    expect_none(body, "/l/1/s/*", JSON_ABSENT);
    expect_none("[[],[1]]", "/*", JSON_WRONG_TYPE);
    char all[200] = "";
    assert_int_equal(json_each_text_at(doc(body), "/l/*/s", collect, all), JSON_FOUND);
    assert_string_equal(all, "x,5,");
    all[0] = '\0';
    assert_int_equal(json_each_text_at(doc(body), "/*/*/s", collect, all), JSON_FOUND);
    assert_string_equal(all, "x,5,y,");
    all[0] = '\0';
    assert_int_equal(json_each_text_at(doc(body), "/e/*", collect, all), JSON_ABSENT);
    assert_string_equal(all, "");
}

static void test_exists(void **state)
{
    (void)state;
    const struct json *json = doc("{\"a\":[],\"b\":null,\"c\":\"\",\"d\":[null,0]}");
    assert_true(json_exists(json, "/a"));
    assert_false(json_exists(json, "/b"));
    assert_true(json_exists(json, "/c"));
    assert_true(json_exists(json, "/d/*"));
    assert_false(json_exists(json, "/a/*"));
    assert_false(json_exists(json, "/e"));
}

#define FFFD "\xef\xbf\xbd"

/* Half a surrogate pair, as writers that count UTF-16 units leave it when they cut a text. */
static void test_lone_surrogates(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"\\ud800", FFFD},
        {"\\uDC00", FFFD},
        {"a\\uD83dz", "a" FFFD "z"},
        {"\\ud83d\\ude00", "\xf0\x9f\x98\x80"},
        {"\\ud83d\\ud83d\\ude00", FFFD "\xf0\x9f\x98\x80"},
        {"\\udc00\\ud800", FFFD FFFD},
        {"\\ud800\\u0041", FFFD "A"},
        {"\\ud800\\n", FFFD "\n"},
        {"\\\\ud800\\ud800", "\\ud800" FFFD},
        {"\\\\\\ud800", "\\" FFFD},
        {"\\\"\\ud800\\\"", "\"" FFFD "\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char body[100], before[100];
        snprintf(body, sizeof body, "{\"n\":1.50,\"%s\":{},\"t\":\"%s\"}", cases[i][0],
                 cases[i][0]);
        memcpy(before, body, sizeof before);
        expect(body, "/t", cases[i][1]);
        expect(body, "/n", "1.50");
        assert_memory_equal(body, before, sizeof before);
    }
}

static void test_texts_that_lost_a_character(void **state)
{
    (void)state;
    const struct json *json = doc("[\"a" FFFD "\",\"a\",\"\\ud800\"]");
    assert_false(json_is_whole(json, SLICE_LITERAL("a" FFFD)));
    assert_false(json_is_whole(json, SLICE_LITERAL(FFFD)));
    assert_true(json_is_whole(json, SLICE_LITERAL("a\xef\xbf\xbe")));
    assert_true(json_is_whole(json, SLICE_LITERAL("")));
    json = doc("[\"a" FFFD "\",\"\\ufffd\"]"); /* sent as such: no other text reads the same */
    assert_true(json_is_whole(json, SLICE_LITERAL("a" FFFD)));
}

static void test_bad_bodies(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      " ",
                                      "{",
                                      "{}{}",
                                      "{} x",
                                      "{\"a\":1,}",
                                      "[1,]",
                                      "[01]",
                                      "[+1]",
                                      "[.5]",
                                      "[1.]",
                                      "[NaN]",
                                      "[Infinity]",
                                      "{'a':1}",
                                      "{a:1}",
                                      "[\"\n\"]",
                                      "[\"\xff\"]",
                                      "[\"\xc0\xaf\"]",
                                      "[\"\xed\xa0\x80\"]",
                                      "[\"\\ud800]",
                                      "[\\ud800]",
                                      "[\"\\ud8\"]",
                                      "[\"\\ud80g\"]",
                                      "{\"a\":\"\\ud800\",}",
                                      "\xef\xbb\xbf{}",
                                      "// c\n{}",
                                      "[1]/* */",
                                      "[\"\\x41\"]",
                                      "[0x10]",
                                      "tru",
                                      "[\"a]"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const struct json *json = NULL;
        assert_int_equal(json_read(reader, slice_of(bad[i]), &json), OUTCOME_BAD_JSON);
        assert_null(json);
    }
    const struct json *json = NULL;
    assert_int_equal(json_read(reader, (struct slice){"{}\0", 3}, &json), OUTCOME_BAD_JSON);
    assert_int_equal(json_read(reader, (struct slice){"[\"\0\"]", 5}, &json), OUTCOME_BAD_JSON);
    assert_int_equal(json_read(reader, (struct slice){NULL, 0}, &json), OUTCOME_BAD_JSON);
}

static void nest(char *to, size_t levels, bool objects)
{
    char *at = to;
    for (size_t i = 0; i < levels; i++)
        at = stpcpy(at, objects ? "{\"a\":" : "[");
    *at++ = '1';
    for (size_t i = 0; i < levels; i++)
        *at++ = objects ? '}' : ']';
    *at = '\0';
}

static void test_depth(void **state)
{
    (void)state;
    static char body[MAX + 1];
    const struct json *json = NULL;
    for (int objects = 0; objects < 2; objects++) {
        nest(body, JSON_MAX_DEPTH, objects);
        assert_int_equal(json_read(reader, slice_of(body), &json), OUTCOME_NONE);
        nest(body, JSON_MAX_DEPTH + 1, objects);
        assert_int_equal(json_read(reader, slice_of(body), &json), OUTCOME_JSON_TOO_DEEP);
        nest(body, 10000, objects);
        assert_int_equal(json_read(reader, slice_of(body), &json), OUTCOME_JSON_TOO_DEEP);
    }
    memset(body, '[', MAX);
    assert_int_equal(json_read(reader, (struct slice){body, MAX}, &json), OUTCOME_BAD_JSON);
    /* Siblings are no depth, brackets in a string are none either. */
    size_t len = 0;
    body[len++] = '[';
    for (int i = 0; i < 1000; i++, len += 5)
        memcpy(body + len, "[[]],", 5);
    memset(body + len, '[', 1002);
    body[len] = body[len + 1001] = '"';
    body[len + 1002] = ']';
    body[len + 1003] = '\0';
    assert_int_equal(json_read(reader, slice_of(body), &json), OUTCOME_NONE);
}

static void test_memory_suffices_for_any_body(void **state)
{
    (void)state;
    static char body[MAX + 1];
    const struct json *json = NULL;
    static const char *const units[] = {"1,",  "[],",          "\"\",",
                                        "{},", "\"\\u0001\",", "\"\\ud800\","};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        size_t unit = strlen(units[i]), len = 1;
        body[0] = '[';
        for (; len + unit + 2 <= MAX; len += unit)
            memcpy(body + len, units[i], unit);
        body[len++] = '1';
        body[len++] = ']';
        assert_int_equal(json_read(reader, (struct slice){body, len}, &json), OUTCOME_NONE);
    }
    memset(body, ' ', MAX);
    body[0] = '1';
    assert_int_equal(json_read(reader, (struct slice){body, MAX}, &json), OUTCOME_NONE);
    assert_int_equal(json_read(reader, (struct slice){body, MAX + 1}, &json), OUTCOME_BAD_JSON);
}

static void expect_quoted(struct slice text, const char *quoted)
{
    char buf[100];
    size_t len = 0;
    assert_true(json_quote(buf, sizeof buf, &len, text));
    assert_int_equal(len, strlen(quoted));
    assert_memory_equal(buf, quoted, len);
    for (size_t size = 0; size < strlen(quoted); size++) { /* never beyond, never a piece */
        len = 0;
        char *exact = malloc(size + 1);
        assert_false(json_quote(exact, size, &len, text));
        assert_int_equal(len, 0);
        free(exact);
    }
}

static void test_quote(void **state)
{
    (void)state;
    expect_quoted(slice_of(""), "\"\"");
    expect_quoted(slice_of("a\"b\\c/\b\f\n\r\t"), "\"a\\\"b\\\\c/\\b\\f\\n\\r\\t\"");
    expect_quoted((struct slice){"\0\x01\x1f\x7f", 4}, "\"\\u0000\\u0001\\u001f\x7f\"");
    expect_quoted(slice_of("\xc3\xa9\xe6\x9d\xb1\xf0\x9f\x98\x80"),
                  "\"\xc3\xa9\xe6\x9d\xb1\xf0\x9f\x98\x80\"");
    expect_quoted(slice_of("a\xff"
                           "b"),
                  "\"a" FFFD "b\"");
    expect_quoted(slice_of("\xc0\xaf"), "\"" FFFD FFFD "\"");
    expect_quoted(slice_of("\xed\xa0\x80"), "\"" FFFD FFFD FFFD "\"");
    expect_quoted(slice_of("\xf0\x9f\x98"), "\"" FFFD "\"");
    expect_quoted(slice_of("\xf0\x9f\x98\""), "\"" FFFD "\\\"\"");
    expect_quoted(slice_of("\xf4\x90\x80\x80"), "\"" FFFD FFFD FFFD FFFD "\"");
    expect_quoted(slice_of("\xe2\x82"
                           "a"),
                  "\"" FFFD "a\"");
    char buf[8] = "{";
    size_t len = 1;
    assert_true(json_quote(buf, sizeof buf, &len, slice_of("k")));
    assert_memory_equal(buf, "{\"k\"", 4);
    assert_int_equal(len, 4);
}

static int set_up(void **state)
{
    (void)state;
    reader = json_reader_new(MAX);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    json_reader_free(reader);
    json_reader_free(NULL);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pointers),
        cmocka_unit_test(test_numbers_keep_their_digits),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_repeated_keys),
        cmocka_unit_test(test_wildcards),
        cmocka_unit_test(test_exists),
        cmocka_unit_test(test_lone_surrogates),
        cmocka_unit_test(test_texts_that_lost_a_character),
        cmocka_unit_test(test_bad_bodies),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_memory_suffices_for_any_body),
        cmocka_unit_test(test_quote),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
