/* HEAD: the raw head of a request (request line, header lines, empty line), judged more strictly
 * than libh2o 2.2.5 does: it takes a Content-Length beside a Transfer-Encoding, two lengths, folded
 * lines, bare line feeds and a missing Host, each of which a proxy in front may read differently.
 * What passes here reads the same for everybody (RFC 9112 2.2, 3.2, 5.2, 6.1 and 6.3).
 *
 * One thing can't be judged afterwards: how a chunked body was framed. libh2o decodes it in place,
 * and takes whatever follows a chunk's size, up to a line feed, for an extension. A proxy that
 * passes chunks on unread must not send several clients' requests over one connection; nginx reads
 * the body and sends a length. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "obj.h"
#include "slice.h"

/* `bytes` begins with the head, names in any case, and may go on behind it. NULL when it is sound,
 * with *ret_len = its length including the empty line; else why not: a literal without a byte of
 * the request. Touches nothing but its arguments. Thread: any. */
MUST_CHECK const char *edge_head_check(struct slice bytes, size_t *ret_len);
