/* What is a URL to send to, what is none, and what is said of it. */
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
    static const struct {
        const char *url, *why;
    } cases[] = {
        {"", "must begin with"},
        {"ftp://a/", "must begin with"},
        {"http://", "needs a host"},
        {"http:///x", "needs a host"},
        {"http://a b/", "a blank"},
        {"http://127.0.0.1:", "after the host comes"},
        {"http://127.0.0.1:x/", "port must be a number"},
        {"http://127.0.0.1:123456789/", "port must be a number"},
        {"http://127.0.0.1:65536", "from 1 to 65535"},
        {"http://[::1]:0", "from 1 to 65535"},
        {"http://user@127.0.0.1/", "without a user"},
        {"http://[::1/", "no closing"},
        {"http://[::1]x/", "after the host comes"},
        {"http://127.0.0.1?y", "a query needs a path"},
        {"http://127.0.0.1/#f", "a fragment"},
        {"http://127.0.0.1/a\r\nb: c", "a control character"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char error[256] = "";
        assert_null(destination_new(cases[i].url, NULL, error, sizeof error));
        if (strstr(error, cases[i].why) == NULL)
            fail_msg("%s: %s", cases[i].url, error);
    }
}

static void ports_are_taken(void **state)
{
    (void)state;
    static const char *const urls[] = {"http://127.0.0.1", "http://127.0.0.1:1/",
                                       "http://[::1]:65535/x"};
    for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
        char error[256] = "";
        struct destination *to = destination_new(urls[i], NULL, error, sizeof error);
        if (to == NULL)
            fail_msg("%s: %s", urls[i], error);
        destination_free(to);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_urls_are_refused),
        cmocka_unit_test(ports_are_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
