/* Parsing of addresses and networks, and the walk through X-Forwarded-For from the right: each
 * proxy appends whom it heard, so what stands left of the first stranger is the stranger's own
 * story. Called by config_check.c and delivery.c. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "address.h"

#include "inbound.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>

/* More proxies than anybody has in a row. */
#define HOPS_MAX 16

static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};

static bool is_mapped(const struct address *address)
{
    return memcmp(address->bytes, mapped, sizeof mapped) == 0;
}

bool address_parse(struct slice text, struct address *ret)
{
    char copy[INET6_ADDRSTRLEN];
    struct address address;
    if (text.len == 0 || text.len >= sizeof copy || memchr(text.ptr, '\0', text.len) != NULL)
        return false;
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    if (inet_pton(AF_INET, copy, address.bytes + sizeof mapped) == 1)
        memcpy(address.bytes, mapped, sizeof mapped);
    else if (inet_pton(AF_INET6, copy, address.bytes) != 1)
        return false;
    *ret = address;
    return true;
}

void address_format(const struct address *address, char ret[ADDRESS_TEXT])
{
    const char *text = is_mapped(address)
                           ? inet_ntop(AF_INET, address->bytes + sizeof mapped, ret, ADDRESS_TEXT)
                           : inet_ntop(AF_INET6, address->bytes, ret, ADDRESS_TEXT);
    assert(text != NULL);
}

struct address address_of_sender(const struct address *address)
{
    struct address sender = *address;
    if (!is_mapped(address))
        memset(sender.bytes + 8, 0, 8);
    return sender;
}

/* A network is written with zeroes behind its first `bits`. */
static bool has_no_host_bits(const struct address *address, unsigned bits)
{
    for (unsigned i = bits; i < 128; i++) {
        if (address->bytes[i / 8] >> (7 - i % 8) & 1)
            return false;
    }
    return true;
}

const char *network_parse(const char *text, struct network *ret)
{
    static const char right[] = "a network like 10.0.0.0/8 or 2001:db8::/32, or one address, would "
                                "be right";
    struct network network = {.bits = 128};
    const char *slash = strchr(text, '/');
    size_t len = slash ? (size_t)(slash - text) : strlen(text);
    if (!address_parse((struct slice){text, len}, &network.prefix))
        return right;
    if (slash != NULL) {
        size_t digits = strspn(slash + 1, "0123456789");
        unsigned width = memchr(text, ':', len) ? 128 : 32, bits = 0;
        if (digits < 1 || digits > 3 || slash[1 + digits] != '\0')
            return right;
        for (const char *p = slash + 1; *p != '\0'; p++)
            bits = bits * 10 + (unsigned)(*p - '0');
        if (bits > width)
            return right;
        network.bits = bits + 128 - width;
    }
    if (!has_no_host_bits(&network.prefix, network.bits))
        return "the address has bits behind the network's length; zeroes there would be right";
    *ret = network;
    return NULL;
}

bool network_holds(const struct network *network, const struct address *address)
{
    unsigned whole = network->bits / 8, rest = network->bits % 8;
    if (memcmp(network->prefix.bytes, address->bytes, whole) != 0)
        return false;
    return rest == 0 || (network->prefix.bytes[whole] ^ address->bytes[whole]) >> (8 - rest) == 0;
}

static bool is_trusted(const struct networks *trusted, const struct address *address)
{
    for (size_t i = 0; i < trusted->count; i++) {
        if (network_holds(&trusted->items[i], address))
            return true;
    }
    return false;
}

/* Takes the last item off a list with commas; false when nothing is left. */
static bool take_last(struct slice *list, struct slice *ret_item)
{
    if (list->ptr == NULL)
        return false;
    const char *comma = list->len > 0 ? memrchr(list->ptr, ',', list->len) : NULL;
    size_t begin = comma ? (size_t)(comma - list->ptr) + 1 : 0;
    *ret_item = slice_trim(slice_from(*list, begin));
    if (comma != NULL)
        list->len = begin - 1;
    else
        *list = (struct slice){0};
    return true;
}

/* The first address from the right that is not trusted; false when there is something else. */
static bool walk(const struct networks *trusted, const struct inbound *in, struct address *source)
{
    size_t hops = 0;
    for (size_t i = in->header_count; i-- > 0;) {
        struct slice list = in->headers[i].value, item;
        if (!slice_is(in->headers[i].name, "x-forwarded-for"))
            continue;
        while (take_last(&list, &item)) {
            if (++hops > HOPS_MAX || !address_parse(item, source))
                return false;
            if (!is_trusted(trusted, source))
                return true;
        }
    }
    return true;
}

void address_find_source(const struct networks *trusted, const struct inbound *in,
                         char ret[ADDRESS_TEXT])
{
    struct slice unused;
    struct address peer, source;
    snprintf(ret, ADDRESS_TEXT, "%s", in->peer);
    if (inbound_header_find(in, "x-forwarded-for", &unused) == 0 ||
        !address_parse(slice_of(in->peer), &peer) || !is_trusted(trusted, &peer))
        return;
    source = peer;
    if (walk(trusted, in, &source))
        address_format(&source, ret);
}
