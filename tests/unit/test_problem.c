/* problem.c: lines that point, bounds, hostile bytes, and guesses at a misspelt word. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "problem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h> /* needs those above */

static const char *const words[] = {"address", "answer", "on", "topic", "time", "tune", NULL};

static void lines_say_where(void **state)
{
    struct problems problems = {0};
    (void)state;

    assert_false(problems_any(&problems));
    problem_add(&problems, "a.yaml", 3, 7, "x: %d is wrong", 5);
    problem_add(&problems, "a.yaml", 3, 0, "no column");
    problem_add(&problems, "a.yaml", 0, 0, "no line");
    problem_add(&problems, NULL, 0, 0, "text alone");
    assert_true(problems_any(&problems));
    assert_string_equal(problems.lines[0], "a.yaml:3:7: x: 5 is wrong");
    assert_string_equal(problems.lines[1], "a.yaml:3: no column");
    assert_string_equal(problems.lines[2], "a.yaml: no line");
    assert_string_equal(problems.lines[3], "text alone");
    problems_release(&problems);
    assert_false(problems_any(&problems));
}

static void too_many_are_counted(void **state)
{
    struct problems problems = {0};
    (void)state;

    for (int i = 0; i < PROBLEMS_MAX + 3; i++)
        problem_add(&problems, "f", 1, 1, "%d", i);
    assert_int_equal(problems.count, PROBLEMS_MAX);
    assert_int_equal(problems.dropped, 3);
    problems_release(&problems);
    assert_int_equal(problems.dropped, 0);
}

static void control_characters_do_not_pass(void **state)
{
    struct problems problems = {0};
    (void)state;

    problem_add(&problems, "f\n", 1, 1, "a\033[2Jb\r\nc\177 \xc3\xa9");
    assert_string_equal(problems.lines[0], "f?:1:1: a?[2Jb??c? \xc3\xa9");
    problems_release(&problems);
}

/* Cut, and never inside a UTF-8 sequence, wherever the sequences happen to lie. */
static void long_lines_are_cut(void **state)
{
    (void)state;
    for (size_t shift = 0; shift < 3; shift++) {
        struct problems problems = {0};
        char text[6001];
        for (size_t i = 0; i < 6000; i++)
            text[i] = "\xe2\x82\xac"[i % 3];
        text[6000] = '\0';
        problem_add(&problems, NULL, 0, 0, "%.*s%s", (int)shift, "xx", text);
        size_t len = strlen(problems.lines[0]);
        assert_true(len <= 2047 && len > 2000);
        assert_string_equal(problems.lines[0] + len - 3, "...");
        assert_int_equal((len - 3 - shift) % 3, 0);
        problems_release(&problems);
    }
}

/* A name that fills the line leaves room for nothing else, and writes nowhere else. */
static void long_file_names_are_cut(void **state)
{
    struct problems problems = {0};
    char name[4001];
    (void)state;

    memset(name, 'f', 4000);
    name[4000] = '\0';
    problem_add(&problems, name, 1, 1, "text");
    assert_int_equal(strlen(problems.lines[0]), 2047);
    problems_release(&problems);
}

static void guesses_are_near(void **state)
{
    (void)state;
    assert_string_equal(problem_suggest("adress", words), "address");
    assert_string_equal(problem_suggest("addresss", words), "address");
    assert_string_equal(problem_suggest("adresz", words), "address");
    assert_string_equal(problem_suggest("tpoic", words), "topic"); /* a swap is one edit */
    assert_string_equal(problem_suggest("ANSWER", words), "answer");
    assert_string_equal(problem_suggest("tume", words), "time");  /* the first of equals */
    assert_string_equal(problem_suggest("tunee", words), "tune"); /* the nearest */
    assert_string_equal(problem_suggest("no", words), "on");
}

static void guesses_are_not_wild(void **state)
{
    char text[500];
    static const char *const none[] = {NULL};
    (void)state;

    assert_null(problem_suggest("adxxss", words)); /* three edits */
    assert_null(problem_suggest("x", words));      /* anything is near to a letter */
    assert_null(problem_suggest("", words));
    assert_null(problem_suggest("answer", none));
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    assert_null(problem_suggest(text, words));
    const char *const long_words[] = {text, NULL};
    assert_null(problem_suggest("aaaa", long_words));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_say_where),
        cmocka_unit_test(too_many_are_counted),
        cmocka_unit_test(control_characters_do_not_pass),
        cmocka_unit_test(long_lines_are_cut),
        cmocka_unit_test(long_file_names_are_cut),
        cmocka_unit_test(guesses_are_near),
        cmocka_unit_test(guesses_are_not_wild),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
