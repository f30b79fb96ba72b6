/* The audit's table: every id once, whatever its bytes, and all of them again on a walk. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "tally.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#define MANY 5000

/* Ids that agree in all that is hashed but the number's low bits: chains, and wraps around the end.
 */
static struct event_id id_of(uint32_t number)
{
    struct event_id id = {{0}};
    memset(id.bytes, 0xff, 8);
    memcpy(id.bytes + 8, &number, sizeof number);
    id.bytes[0] = (unsigned char)(number % 3);
    return id;
}

static void test_each_id_has_one_entry(void **state)
{
    (void)state;
    struct tally *tally = tally_new();
    for (uint32_t i = 0; i < MANY; i++) {
        struct tally_entry *entry = tally_at(tally, id_of(i));
        assert_int_equal(entry->status, TALLY_NONE);
        assert_int_equal(entry->offset, -1);
        assert_int_equal(entry->partition, -1);
        entry->status = TALLY_PUBLISHED;
        entry->offset = i;
    }
    for (uint32_t i = 0; i < MANY; i++)
        assert_int_equal(tally_at(tally, id_of(i))->offset, i);
    size_t at = 0, count = 0;
    int64_t sum = 0;
    for (const struct tally_entry *entry; (entry = tally_next(tally, &at)) != NULL; count++)
        sum += entry->offset;
    assert_int_equal(count, MANY);
    assert_int_equal(sum, (int64_t)MANY * (MANY - 1) / 2);
    tally_free(tally);
}

static void test_empty(void **state)
{
    (void)state;
    struct tally *tally = tally_new();
    size_t at = 0;
    assert_null(tally_next(tally, &at));
    tally_free(tally);
    tally_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_id_has_one_entry),
        cmocka_unit_test(test_empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
