/* Who sent it in truth: trusted networks and X-Forwarded-For. Whatever a stranger writes there, the
 * source is an address or nothing, and a peer that is no trusted proxy is believed nothing. Input:
 * a network, the peer, then up to two header values, each on a line. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "address.h"
#include "inbound.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static struct slice next_line(struct slice *rest)
{
    const char *newline = memchr(rest->ptr, '\n', rest->len);
    struct slice line = {rest->ptr, newline ? (size_t)(newline - rest->ptr) : rest->len};
    *rest = slice_from(*rest, line.len + 1);
    return line;
}

static void check(const struct networks *trusted, const struct inbound *in)
{
    char source[ADDRESS_TEXT];
    memset(source, 'x', sizeof source);
    address_find_source(trusted, in, source);
    assert(memchr(source, '\0', sizeof source) != NULL);
    struct address peer, address;
    if (!address_parse(slice_of(in->peer), &peer)) {
        assert(strcmp(source, in->peer) == 0);
        return;
    }
    assert(address_parse(slice_of(source), &address));
    bool is_proxy = trusted->count > 0 && network_holds(&trusted->items[0], &peer);
    if (!is_proxy)
        assert(memcmp(&peer, &address, sizeof peer) == 0);
    struct address sender = address_of_sender(&address), twice = address_of_sender(&sender);
    assert(memcmp(&sender, &twice, sizeof sender) == 0);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    struct slice rest = {(const char *)data, size};
    struct slice network_text = next_line(&rest), peer = next_line(&rest);
    char *text = xstrndup(network_text.len ? network_text.ptr : "", network_text.len);
    struct network network;
    const char *wrong = network_parse(text, &network);
    if (wrong == NULL)
        assert(network.bits <= 128 && network_holds(&network, &network.prefix));
    struct networks trusted = {&network, wrong == NULL};
    struct inbound *in = xcalloc(1, sizeof *in);
    if (peer.len > 0 && peer.len < sizeof in->peer)
        memcpy(in->peer, peer.ptr, peer.len);
    for (int i = 0; i < 2 && rest.len > 0; i++)
        in->headers[in->header_count++] =
            (struct inbound_header){SLICE_LITERAL("x-forwarded-for"), next_line(&rest)};
    check(&trusted, in);
    free(in);
    free(text);
    return 0;
}
