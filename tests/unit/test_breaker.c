/* When a breaker lets a probe through. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "breaker.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const struct breaker_patience patience = {.first_us = 100, .most_us = 350};

static void waits_grow_to_a_bound(void **state)
{
    (void)state;
    struct breaker breaker = {0};
    assert_false(breaker_probe_is_due(&breaker, 1000)); /* closed: nothing to probe */
    assert_true(breaker_fail(&breaker, &patience, 1000));
    assert_false(breaker_probe_is_due(&breaker, 1099));
    assert_true(breaker_probe_is_due(&breaker, 1100));
    assert_false(breaker_fail(&breaker, &patience, 1100)); /* it was open */
    assert_false(breaker_probe_is_due(&breaker, 1299));
    assert_true(breaker_probe_is_due(&breaker, 1300));
    for (int i = 0; i < 100; i++)
        (void)breaker_fail(&breaker, &patience, 2000);
    assert_false(breaker_probe_is_due(&breaker, 2349));
    assert_true(breaker_probe_is_due(&breaker, 2350));
}

static void closing_forgets(void **state)
{
    (void)state;
    struct breaker breaker = {0};
    assert_false(breaker_close(&breaker));
    for (int i = 0; i < 5; i++)
        (void)breaker_fail(&breaker, &patience, 0);
    assert_true(breaker_close(&breaker));
    assert_false(breaker.open);
    assert_true(breaker_fail(&breaker, &patience, 0));
    assert_true(breaker_probe_is_due(&breaker, 100));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waits_grow_to_a_bound),
        cmocka_unit_test(closing_forgets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
