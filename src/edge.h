/* EDGE: the HTTP/1.1 server of one thread: accepts on listening sockets, hands whole requests to a
 * handler as exchanges, and drives a struct loop beside them. The only module that knows h2o.h.
 * HTTP/2 stays off: its unfixed floods are the reason.
 *
 * Thread: everything on the one that runs edge_run(), except edge_new() and edge_listen(), which
 * come before. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "exchange.h"
#include "obj.h"

#include <stdbool.h>
#include <stdint.h>

struct edge;
struct loop;
struct metrics;
struct ssl_ctx_st; /* OpenSSL's SSL_CTX */

struct edge_options {
    exchange_handler_f *handler;
    void *context;
    /* Told of what was refused before the handler could see it (too large, malformed), with a
     * literal that says why; may be NULL. */
    void (*refused)(const struct inbound *in, int status, const char *why, void *context);
    size_t body_max;    /* above this a body is not read to its end: the sender may see a closed
                           connection instead of the 413 */
    int64_t request_us; /* for head and body together, and for an idle keep-alive connection */
    size_t connections; /* above this the listeners pause */
    size_t memory;      /* bytes that connections and `held` may hold; above this they pause as
                           well, and the largest unfinished requests are shut */
    size_t (*held)(void *context); /* bytes that the handler's own work holds; may be NULL */
    bool begin_shut; /* listeners wait for edge_open(); the kernel queues who connects */
    struct metrics *metrics;
};

/* Lives until the process ends: libh2o can't close idle connections one by one. */
MUST_CHECK struct edge *edge_new(const struct edge_options *options);

/* The loop that turns with the edge. */
struct loop *edge_loop(struct edge *edge);

/* Serves a listening socket, which becomes the edge's (several threads each give a duplicate of
 * one). `tls` NULL = plain; a reference to it is taken. */
void edge_listen(struct edge *edge, int fd, struct ssl_ctx_st *tls);

/* Connections that are accepted from now on get `tls`, whose reference is handed over; for those
 * that are open the old one stays. Not for a listener without TLS. */
void edge_take_tls(struct edge *edge, struct ssl_ctx_st *tls);

/* Begins to accept where options.begin_shut said to wait; once. */
void edge_open(struct edge *edge);

/* Runs until edge_stop(). */
void edge_run(struct edge *edge);
void edge_stop(struct edge *edge);

/* No further connections; answers close theirs. */
void edge_drain(struct edge *edge);
/* Requests handed to the handler and not answered yet. */
size_t edge_exchanges(const struct edge *edge);
size_t edge_connections(const struct edge *edge);
