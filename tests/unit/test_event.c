/* Event ids: the same facts always give the same id, computed once with Python. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "event.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void id_text(const char *workspace, const char *platform, const char *type,
                    const char *external_id, char text[EVENT_ID_TEXT])
{
    event_id_format(
        event_id_of(slice_of(workspace), slice_of(platform), slice_of(type), slice_of(external_id)),
        text);
}

static void test_known_id(void **state)
{
    (void)state;
    char text[EVENT_ID_TEXT];
    id_text("w1", "zoom", "recording.completed", "abc==", text);
    assert_string_equal(text, "31bc66dd-24c1-8957-b577-60e43b6c3f7e");
}

static void test_parts_do_not_run_together(void **state)
{
    (void)state;
    char one[EVENT_ID_TEXT], two[EVENT_ID_TEXT];
    id_text("ab", "c", "d", "e", one);
    id_text("a", "bc", "d", "e", two);
    assert_string_not_equal(one, two);
    id_text("", "ab", "", "", one);
    id_text("ab", "", "", "", two);
    assert_string_not_equal(one, two);
}

static void test_version_and_variant(void **state)
{
    (void)state;
    for (char c = 'a'; c <= 'z'; c++) {
        char id[2] = {c, 0}, text[EVENT_ID_TEXT];
        id_text("w", "p", "t", id, text);
        assert_int_equal(strlen(text), 36);
        assert_int_equal(text[14], '8');
        assert_non_null(strchr("89ab", text[19]));
    }
}

static void test_long_and_odd_parts(void **state)
{
    (void)state;
    static char many[100000];
    memset(many, 'x', sizeof many);
    struct slice w = SLICE_LITERAL("w"), nul = {"a\0b", 3}, cut = {"a", 1};
    struct event_id one = event_id_of(w, w, nul, (struct slice){many, sizeof many});
    struct event_id two = event_id_of(w, w, cut, (struct slice){many, sizeof many});
    struct event_id three = event_id_of(w, w, nul, (struct slice){many, sizeof many - 1});
    assert_memory_not_equal(one.bytes, two.bytes, 16);
    assert_memory_not_equal(one.bytes, three.bytes, 16);
    event_id_of((struct slice){0}, (struct slice){0}, (struct slice){0}, (struct slice){0});
}

static void test_text_and_back(void **state)
{
    (void)state;
    char text[EVENT_ID_TEXT];
    struct event_id id =
        event_id_of(slice_of("w1"), slice_of("zoom"), slice_of("t"), slice_of("x"));
    struct event_id back;
    event_id_format(id, text);
    assert_true(event_id_parse(slice_of(text), &back));
    assert_memory_equal(back.bytes, id.bytes, sizeof id.bytes);
    static const char *const wrong[] = {
        "",
        "31bc66dd-24c1-8957-b577-60e43b6c3f7",
        "31bc66dd-24c1-8957-b577-60e43b6c3f7e0",
        "31BC66DD-24c1-8957-b577-60e43b6c3f7e",
        "31bc66dd024c1-8957-b577-60e43b6c3f7e",
        "31bc66dd-24c1-8957-b577-60e43b6c3f-e",
        "{31bc66dd-24c1-8957-b577-60e43b6c3fe}",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_false(event_id_parse(slice_of(wrong[i]), &back));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_and_back),
        cmocka_unit_test(test_known_id),
        cmocka_unit_test(test_parts_do_not_run_together),
        cmocka_unit_test(test_version_and_variant),
        cmocka_unit_test(test_long_and_odd_parts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
