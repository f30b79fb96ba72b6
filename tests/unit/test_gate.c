/* The gate: closed from the start, and no opening that overlooks a closing. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "gate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void it_is_closed_until_it_is_opened(void **state)
{
    (void)state;
    struct gate *gate = gate_new();
    assert_false(gate_is_open(gate));
    assert_false(gate_was_open(gate));
    assert_true(gate_closed_us(gate) > 0);
    assert_true(gate_open(gate, gate_epoch(gate)));
    assert_true(gate_is_open(gate));
    assert_int_equal(gate_closed_us(gate), 0);
    free(gate);
}

static void what_was_closed_meanwhile_stays_closed(void **state)
{
    (void)state;
    struct gate *gate = gate_new();
    uint64_t epoch = gate_epoch(gate);
    gate_close(gate); /* it was closed already, but this is another loss */
    assert_false(gate_open(gate, epoch));
    assert_false(gate_is_open(gate));
    assert_false(gate_was_open(gate));
    epoch = gate_epoch(gate);
    assert_true(gate_open(gate, epoch));
    assert_true(gate_open(gate, epoch)); /* two that agree */
    gate_close(gate);
    assert_false(gate_open(gate, epoch));
    assert_false(gate_is_open(gate));
    assert_true(gate_was_open(gate));
    free(gate);
}

static void bytes_are_counted_for_each_closing(void **state)
{
    (void)state;
    struct gate *gate = gate_new();
    assert_int_equal(gate_count(gate, 10), 10);
    assert_int_equal(gate_count(gate, 5), 15);
    gate_close(gate); /* the same outage goes on */
    assert_int_equal(gate_count(gate, 1), 16);
    assert_true(gate_open(gate, gate_epoch(gate)));
    gate_close(gate);
    assert_int_equal(gate_count(gate, 7), 7);
    free(gate);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_closed_until_it_is_opened),
        cmocka_unit_test(what_was_closed_meanwhile_stays_closed),
        cmocka_unit_test(bytes_are_counted_for_each_closing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
