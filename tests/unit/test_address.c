/* Addresses, networks, and who is behind the proxies. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "address.h"
#include "inbound.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static struct address address(const char *text)
{
    struct address parsed;
    assert_true(address_parse(slice_of(text), &parsed));
    return parsed;
}

static void reads_and_writes_addresses(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"192.0.2.1", "192.0.2.1"},
        {"::ffff:192.0.2.1", "192.0.2.1"},
        {"2001:DB8:0:0::1", "2001:db8::1"},
        {"::1", "::1"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        char text[ADDRESS_TEXT];
        struct address parsed = address(pairs[i][0]);
        address_format(&parsed, text);
        assert_string_equal(text, pairs[i][1]);
    }
    static const char *const wrong[] = {
        "",           "1.2.3",
        "1.2.3.4:80", "[::1]",
        "::1%lo",     "1.2.3.256",
        "localhost",  " 1.2.3.4",
        "1.2.3.4 ",   "0001:0002:0003:0004:0005:0006:0007:0008:0009:000a"};
    struct address parsed;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_false(address_parse(slice_of(wrong[i]), &parsed));
    assert_false(address_parse(SLICE_LITERAL("1.2.3.4\0"), &parsed));
}

static bool holds(const char *text, const char *of)
{
    struct network network;
    struct address found = address(of);
    assert_null(network_parse(text, &network));
    return network_holds(&network, &found);
}

static void networks_hold_what_is_theirs(void **state)
{
    (void)state;
    assert_true(holds("10.0.0.0/8", "10.255.0.1"));
    assert_false(holds("10.0.0.0/8", "11.0.0.1"));
    assert_true(holds("192.0.2.128/25", "192.0.2.200"));
    assert_false(holds("192.0.2.128/25", "192.0.2.127"));
    assert_true(holds("192.0.2.7", "192.0.2.7"));
    assert_false(holds("192.0.2.7", "192.0.2.6"));
    assert_true(holds("0.0.0.0/0", "203.0.113.9"));
    assert_false(holds("0.0.0.0/0", "2001:db8::1")); /* a family of its own */
    assert_true(holds("::/0", "2001:db8::1"));
    assert_true(holds("2001:db8::/33", "2001:db8:7fff::1"));
    assert_false(holds("2001:db8::/33", "2001:db8:8000::1"));
    assert_true(holds("127.0.0.0/8", "::ffff:127.0.0.9"));
}

static void refuses_what_is_no_network(void **state)
{
    (void)state;
    static const char *const wrong[] = {"10.0.0.0/33",
                                        "::/129",
                                        "10.0.0.0/",
                                        "10.0.0.0/8x",
                                        "10.0.0.0/-1",
                                        "/8",
                                        "nginx",
                                        "10.0.0.1/8",
                                        "2001:db8::1/64",
                                        "10.0.0.0/0008",
                                        ""};
    struct network network;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_non_null(network_parse(wrong[i], &network));
}

/* ---- the walk ---- */

static void assert_source(const char *peer, const char *first, const char *second,
                          const char *expected)
{
    static struct network items[3];
    static struct inbound in;
    struct networks trusted = {items, 3};
    char text[ADDRESS_TEXT];
    assert_null(network_parse("127.0.0.0/8", &items[0]));
    assert_null(network_parse("10.0.0.0/8", &items[1]));
    assert_null(network_parse("2001:db8:1::/48", &items[2]));
    in.header_count = 0;
    snprintf(in.peer, sizeof in.peer, "%s", peer);
    if (first)
        in.headers[in.header_count++] =
            (struct inbound_header){SLICE_LITERAL("x-forwarded-for"), slice_of(first)};
    in.headers[in.header_count++] =
        (struct inbound_header){SLICE_LITERAL("x-real-ip"), SLICE_LITERAL("198.51.100.99")};
    if (second)
        in.headers[in.header_count++] =
            (struct inbound_header){SLICE_LITERAL("x-forwarded-for"), slice_of(second)};
    address_find_source(&trusted, &in, text);
    assert_string_equal(text, expected);
}

static void a_trusted_proxy_names_the_sender(void **state)
{
    (void)state;
    assert_source("127.0.0.1", "203.0.113.5", NULL, "203.0.113.5");
    assert_source("10.1.2.3", "2001:DB8:7::1", NULL, "2001:db8:7::1");
    assert_source("127.0.0.1", NULL, NULL, "127.0.0.1");
    /* Through two of them; what is left of the first stranger is his own story. */
    assert_source("127.0.0.1", "198.51.100.1, 203.0.113.5, 10.0.0.9", NULL, "203.0.113.5");
    assert_source("127.0.0.1", "203.0.113.5,10.0.0.9 , 2001:db8:1::7", NULL, "203.0.113.5");
    /* Lines are one list. */
    assert_source("127.0.0.1", "203.0.113.5", "10.0.0.9", "203.0.113.5");
    assert_source("127.0.0.1", "203.0.113.5", "203.0.113.6", "203.0.113.6");
    /* All are ours: the one who began. */
    assert_source("127.0.0.1", "10.0.0.1, 10.0.0.2", NULL, "10.0.0.1");
}

static void a_stranger_is_not_believed(void **state)
{
    (void)state;
    assert_source("203.0.113.9", "198.51.100.1", NULL, "203.0.113.9");
    assert_source("2001:db8:2::1", "198.51.100.1", NULL, "2001:db8:2::1");
    assert_source("", "198.51.100.1", NULL, "");
}

static void anything_malformed_gives_the_peer(void **state)
{
    (void)state;
    static const char *const wrong[] = {"",
                                        "unknown",
                                        "203.0.113.5:443",
                                        "[::1]",
                                        "203.0.113.5,",
                                        "203.0.113.5, , 10.0.0.1",
                                        "_hidden",
                                        "203.0.113.5, 10.0.0.1 10.0.0.2"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_source("127.0.0.1", wrong[i], NULL, "127.0.0.1");
    /* But what lies behind the first stranger is not even read. */
    assert_source("127.0.0.1", "rubbish, 203.0.113.5", NULL, "203.0.113.5");
    /* Nor is a chain without end. */
    assert_source(
        "127.0.0.1",
        "203.0.113.5,10.0.0.1,10.0.0.1,10.0.0.1,10.0.0.1,10.0.0.1,10.0.0.1,10.0.0.1,"
        "10.0.0.1,10.0.0.1,10.0.0.1,10.0.0.1,10.0.0.1,10.0.0.1,10.0.0.1,10.0.0.1,10.0.0.1",
        NULL, "127.0.0.1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_and_writes_addresses),
        cmocka_unit_test(networks_hold_what_is_theirs),
        cmocka_unit_test(refuses_what_is_no_network),
        cmocka_unit_test(a_trusted_proxy_names_the_sender),
        cmocka_unit_test(a_stranger_is_not_believed),
        cmocka_unit_test(anything_malformed_gives_the_peer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
