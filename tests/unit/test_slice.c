/* Slices: comparisons that must not read beyond the end, and trimming of optional white space. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "slice.h"

#include "obj.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
/* cmocka.h needs those before it */
#include <cmocka.h>

/* On the heap and exactly as long as the text, so that the address sanitizer sees a read beyond. */
static struct slice exact(const char *text)
{
    size_t len = strlen(text);
    char *bytes = xmalloc(len);
    memcpy(bytes, text, len);
    return (struct slice){bytes, len};
}

static void drop(struct slice s)
{
    free((void *)(uintptr_t)s.ptr);
}

static void test_is(void **state)
{
    (void)state;
    struct slice s = exact("post");
    assert_true(slice_is(s, "post"));
    assert_false(slice_is(s, "pos"));
    assert_false(slice_is(s, "posts"));
    assert_false(slice_is(s, "POST"));
    assert_true(slice_is_nocase(s, "POST"));
    assert_false(slice_is_nocase(s, "POSTS"));
    assert_true(slice_is(SLICE_LITERAL(""), ""));
    assert_false(slice_is(SLICE_LITERAL("a\0b"), "a"));
    drop(s);
}

static void test_equal(void **state)
{
    (void)state;
    assert_true(slice_equal((struct slice){0}, SLICE_LITERAL("")));
    assert_true(slice_equal(SLICE_LITERAL("a\0b"), SLICE_LITERAL("a\0b")));
    assert_false(slice_equal(SLICE_LITERAL("a\0b"), SLICE_LITERAL("a\0c")));
    assert_false(slice_equal(SLICE_LITERAL("a"), SLICE_LITERAL("ab")));
    assert_int_equal(slice_of(NULL).len, 0);
}

static void test_starts_and_from(void **state)
{
    (void)state;
    struct slice s = exact("/webhooks/zoom");
    assert_true(slice_starts(s, SLICE_LITERAL("/webhooks/")));
    assert_true(slice_starts(s, (struct slice){0}));
    assert_false(slice_starts(s, SLICE_LITERAL("/webhooks/zoom/")));
    assert_true(slice_is(slice_from(s, 10), "zoom"));
    assert_true(slice_is(slice_from(s, 14), ""));
    assert_true(slice_is(slice_from(s, 15), ""));
    assert_ptr_equal(slice_from(s, SIZE_MAX).ptr, s.ptr + s.len);
    drop(s);
}

static void test_trim(void **state)
{
    (void)state;
    static const struct {
        const char *text, *trimmed;
    } cases[] = {{" \t a b\t", "a b"}, {"", ""}, {" \t ", ""}, {"a", "a"}, {"\na\r", "\na\r"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct slice s = exact(cases[i].text);
        assert_true(slice_is(slice_trim(s), cases[i].trimmed));
        drop(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_is),
        cmocka_unit_test(test_equal),
        cmocka_unit_test(test_starts_and_from),
        cmocka_unit_test(test_trim),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
