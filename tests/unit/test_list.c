/* The intrusive list: order, removal while walking, and a node that leaves and comes again. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "list.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
/* cmocka.h needs those before it */
#include <cmocka.h>

struct item {
    int number;
    struct list node;
};

static int number_of(struct list *node)
{
    return container_of(node, struct item, node)->number;
}

/* -1 when the list is empty. */
static int pop_number(struct list *head)
{
    struct list *node = list_pop(head);
    return node ? number_of(node) : -1;
}

static void fill(struct list *head, struct item *items, size_t count)
{
    list_init(head);
    for (size_t i = 0; i < count; i++) {
        items[i].number = (int)i;
        list_init(&items[i].node);
        list_append(head, &items[i].node);
    }
}

static void test_order(void **state)
{
    (void)state;
    struct list head;
    struct item items[4];
    fill(&head, items, 4);
    int expected = 0;
    list_each(node, &head) assert_int_equal(number_of(node), expected++);
    assert_int_equal(expected, 4);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pop_number(&head), i);
    assert_true(list_is_empty(&head));
    assert_null(list_pop(&head));
}

static void test_remove(void **state)
{
    (void)state;
    struct list head;
    struct item items[3];
    fill(&head, items, 3);
    list_remove(&items[1].node);
    assert_true(list_is_empty(&items[1].node));
    list_remove(&items[1].node); /* of a node in no list: nothing happens */
    assert_ptr_equal(items[0].node.next, &items[2].node);
    assert_ptr_equal(items[2].node.prev, &items[0].node);
    list_append(&head, &items[1].node);
    assert_ptr_equal(head.prev, &items[1].node);
}

static void test_remove_while_walking(void **state)
{
    (void)state;
    struct list head;
    struct item items[5];
    fill(&head, items, 5);
    int visited = 0;
    list_each_safe(node, &head)
    {
        if (number_of(node) % 2 == 0)
            list_remove(node);
        visited++;
    }
    assert_int_equal(visited, 5);
    assert_int_equal(pop_number(&head), 1);
    assert_int_equal(pop_number(&head), 3);
    assert_null(list_pop(&head));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_remove),
        cmocka_unit_test(test_remove_while_walking),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
