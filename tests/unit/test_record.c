/* Headers as the outbox keeps them, and back. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "record.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void what_is_packed_comes_back(void **state)
{
    (void)state;
    static const char odd[] = {'a', '\n', '\0', (char)0xff};
    struct publish_record in = {.header_count = 3,
                                .headers = {{"ce_id", slice_of("1")},
                                            {"", slice_of("")},
                                            {"content-type", {odd, sizeof odd}}}};
    size_t len;
    char *packed = record_pack(&in, &len);
    assert_int_equal(len, 3 * 6 + 5 + 1 + 12 + 4);
    struct publish_record out;
    char *names;
    assert_true(record_unpack((struct slice){packed, len}, &out, &names));
    assert_int_equal(out.header_count, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_string_equal(out.headers[i].name, in.headers[i].name);
        assert_true(slice_equal(out.headers[i].value, in.headers[i].value));
    }
    free(names);
    for (size_t cut = 1; cut < len; cut++) { /* never past the end, whatever is missing */
        char *exact = xmalloc(cut);
        memcpy(exact, packed, cut);
        if (record_unpack((struct slice){exact, cut}, &out, &names)) {
            assert_true(out.header_count < 3);
            free(names);
        }
        free(exact);
    }
    free(packed);
}

static void nothing_is_a_record_without_headers(void **state)
{
    (void)state;
    struct publish_record out;
    char *names;
    assert_true(record_unpack((struct slice){"", 0}, &out, &names));
    assert_int_equal(out.header_count, 0);
    free(names);
}

static void too_many_headers_are_no_record(void **state)
{
    (void)state;
    char packed[6 * (PUBLISH_HEADERS_MAX + 1)] = {0};
    struct publish_record out;
    char *names;
    assert_true(record_unpack((struct slice){packed, sizeof packed - 6}, &out, &names));
    free(names);
    assert_false(record_unpack((struct slice){packed, sizeof packed}, &out, &names));
    assert_null(names);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_packed_comes_back),
        cmocka_unit_test(nothing_is_a_record_without_headers),
        cmocka_unit_test(too_many_headers_are_no_record),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
