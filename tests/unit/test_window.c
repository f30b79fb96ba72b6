/* Sliding windows against a clock of the test's own. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "window.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define S INT64_C(1000000)
#define MINUTE (60 * S)
#define START (1000 * MINUTE)

static void counts_what_is_within_the_span(void **state)
{
    (void)state;
    struct window window = {0};
    assert_int_equal(window_sum(&window, MINUTE, START), 0);
    window_add(&window, MINUTE, START, 3);
    window_add(&window, MINUTE, START + 30 * S, 4);
    assert_int_equal(window_sum(&window, MINUTE, START + 30 * S), 7);
    assert_int_equal(window_sum(&window, MINUTE, START + 60 * S), 7); /* the whole span */
    assert_int_equal(window_sum(&window, MINUTE, START + 65 * S), 4);
    assert_int_equal(window_sum(&window, MINUTE, START + 95 * S), 0);
}

static void a_slot_counts_until_all_of_it_is_out(void **state)
{
    (void)state;
    struct window window = {0};
    window_add(&window, MINUTE, START + 5 * S - 1, 1); /* the last moment of a slot */
    assert_int_equal(window_sum(&window, MINUTE, START + 65 * S - 1), 1);
    assert_int_equal(window_sum(&window, MINUTE, START + 65 * S), 0);
}

static void never_tells_less_than_an_exact_window(void **state)
{
    (void)state;
    struct window window = {0};
    int64_t at[400];
    size_t count = 0;
    unsigned seed = 7;
    for (int64_t now = START; count < 400;) {
        seed = seed * 1103515245 + 12345;
        now += (int64_t)(seed >> 8) % (2 * S);
        window_add(&window, MINUTE, now, 1);
        at[count++] = now;
        int64_t exact = 0, longest = 0;
        for (size_t i = 0; i < count; i++) {
            exact += now - at[i] < MINUTE;
            longest += now - at[i] < MINUTE + 5 * S;
        }
        assert_true(window_sum(&window, MINUTE, now) >= exact);
        assert_true(window_sum(&window, MINUTE, now) <= longest);
    }
}

static void tells_when_there_is_room(void **state)
{
    (void)state;
    struct window window = {0};
    window_add(&window, MINUTE, START + S, 5);
    window_add(&window, MINUTE, START + 22 * S, 5);
    assert_int_equal(window_wait_us(&window, MINUTE, START + 23 * S, 11), 0);
    /* Below ten when the first five are out, below five when the others are too. */
    assert_int_equal(window_wait_us(&window, MINUTE, START + 23 * S, 10), (65 - 23) * S);
    assert_int_equal(window_wait_us(&window, MINUTE, START + 23 * S, 6), (65 - 23) * S);
    assert_int_equal(window_wait_us(&window, MINUTE, START + 23 * S, 5), (85 - 23) * S);
    assert_int_equal(window_wait_us(&window, MINUTE, START + 65 * S, 10), 0);
}

static void a_clock_that_goes_back_loses_nothing(void **state)
{
    (void)state;
    struct window window = {0};
    window_add(&window, MINUTE, START + 40 * S, 2);
    window_add(&window, MINUTE, START, 3);
    assert_int_equal(window_sum(&window, MINUTE, START), 5);
    assert_int_equal(window_sum(&window, MINUTE, START + 99 * S), 5);
    assert_int_equal(window_sum(&window, MINUTE, START + 105 * S), 0);
}

static void a_long_pause_empties_it(void **state)
{
    (void)state;
    struct window window = {0};
    for (int64_t i = 0; i < 13; i++)
        window_add(&window, MINUTE, START + i * 5 * S, 1);
    assert_int_equal(window_sum(&window, MINUTE, START + 60 * S), 13);
    assert_int_equal(window_sum(&window, MINUTE, START + 1000 * MINUTE), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_what_is_within_the_span),
        cmocka_unit_test(a_slot_counts_until_all_of_it_is_out),
        cmocka_unit_test(never_tells_less_than_an_exact_window),
        cmocka_unit_test(tells_when_there_is_room),
        cmocka_unit_test(a_clock_that_goes_back_loses_nothing),
        cmocka_unit_test(a_long_pause_empties_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
