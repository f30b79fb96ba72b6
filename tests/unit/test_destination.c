/* What is no URL to send to. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "destination.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void bad_urls_are_refused(void **state)
{
    (void)state;
    static const char *const urls[] = {"",
                                       "ftp://a/",
                                       "http://",
                                       "http:///x",
                                       "http://a b/",
                                       "http://127.0.0.1:x/",
                                       "http://127.0.0.1:123456789/",
                                       "http://user@127.0.0.1/",
                                       "http://[::1/",
                                       "http://127.0.0.1/#f",
                                       "http://127.0.0.1/a\r\nb: c"};
    for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
        char error[256] = "";
        assert_null(destination_new(urls[i], NULL, error, sizeof error));
        assert_string_not_equal(error, "");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_urls_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
