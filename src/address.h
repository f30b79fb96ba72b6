/* Addresses of senders: networks of proxies that are trusted, and who sent a request in truth. An
 * IPv4 address is kept as ::ffff:a.b.c.d, so that both families compare alike. Thread: any. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "obj.h"
#include "slice.h"

#include <stdbool.h>
#include <stddef.h>

struct inbound;

#define ADDRESS_TEXT 48

struct address {
    unsigned char bytes[16];
};

/* Numeric, without brackets, port or zone. */
MUST_CHECK bool address_parse(struct slice text, struct address *ret);
void address_format(const struct address *address, char ret[ADDRESS_TEXT]);
/* IPv4 alone, IPv6 by its /64: what one sender can choose among. */
struct address address_of_sender(const struct address *address);

struct network {
    struct address prefix;
    unsigned bits; /* of the 128 */
};
/* "192.0.2.0/24", "2001:db8::/32", or one address. NULL, or what would be right (static text). */
MUST_CHECK const char *network_parse(const char *text, struct network *ret);
bool network_holds(const struct network *network, const struct address *address);

struct networks {
    struct network *items;
    size_t count;
};

/* The numeric address of the sender: the peer's, or, where the peer is a trusted proxy, the
 * rightmost of X-Forwarded-For that is none (the leftmost, when all are). Anything that is not an
 * address there gives the peer's. Empty when the peer has no address. */
void address_find_source(const struct networks *trusted, const struct inbound *in,
                         char ret[ADDRESS_TEXT]);
