/* An HTTP/1.1 client connection on a loop, plain or TLS: kept alive, one request in flight, made
 * again by itself when it breaks. For `hookgate send`. A request is never sent twice: the caller
 * hears of every request exactly once, with an answer or with the reason why there is none. The
 * program must ignore SIGPIPE. Thread: the loop's. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "loop.h"
#include "slice.h"

struct destination;

enum client_result {
    CLIENT_ANSWERED,
    CLIENT_UNREACHABLE, /* no connection until the deadline, or TLS refused */
    CLIENT_BROKEN,      /* the connection ended before the whole answer was there */
    CLIENT_TIMEOUT,     /* sent, but no whole answer until the deadline */
    CLIENT_GARBLED, /* what came is not HTTP/1.1, or beyond the bounds (16 KiB head, 1 MiB body) */
};

struct client_answer {
    int status;
    struct slice body; /* valid until the callback returns */
};

struct client;

/* The last thing that the client does in its turn: `client` may be sent on again or freed in it.
 * `answer` is NULL unless CLIENT_ANSWERED. Never comes from within client_send(). */
typedef void client_done_f(struct client *client, enum client_result result,
                           const struct client_answer *answer, void *context);

MUST_CHECK struct client *client_new(struct loop *loop, struct destination *to,
                                     client_done_f *on_done, void *context);
/* A request in flight is forgotten: no callback comes. */
void client_free(struct client *client);

/* Sends `head` (with the empty line) and `body`, both copied; connects before when there is no
 * connection, again and again with 10..200 ms between, until `deadline_us` (clock_mono_us() time).
 * The client must be idle. */
void client_send(struct client *client, struct slice head, struct slice body, int64_t deadline_us);

/* How often a connection was made or tried after the first; the last failure in words ("" = none).
 */
size_t client_reconnects(const struct client *client);
const char *client_failure(const struct client *client);
