/* CONNECTIONS: the open client connections of one edge, what they hold in memory, and which of them
 * are shut when memory or places run out. libh2o reads heads of 417,792 bytes and whole bodies into
 * memory for as many clients as connect, and lets an idle or stuck one keep its place; here is the
 * bound.
 *
 * What is shut loses nothing: a request that has come in whole is never shut, and an unfinished one
 * is a transport failure, which every sender repeats. Thread: the edge's. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "list.h"
#include "obj.h"

#include <h2o.h>
#include <stdbool.h>
#include <stdint.h>

struct metrics;

struct connections {
    struct list all; /* struct connection; first the one whose client we have waited for longest */
    size_t count, max;
    size_t bytes, memory; /* held at the last count, by connections and handlers; the bound */
    int64_t patience_us;  /* nothing that is not being handled stays longer without an answer */
    int64_t due_us;       /* of the next count */
    struct metrics *metrics;
    int64_t told_us;                            /* when a line was logged last */
    size_t shed_memory, shed_place, shed_stuck; /* since then */
};

struct connection {
    struct list node;
    struct connections *owner;
    h2o_socket_t *socket;
    void (*on_closed)(void *context);
    void *context;
    size_t fixed;     /* bytes that it costs while nothing has come in */
    int64_t since_us; /* since when we wait for the client: accepted, or answered */
    bool handled;     /* a whole request is with the handler */
    bool shut;
};

/* Follows the socket until it is closed, which it tells. */
void connections_add(struct connections *connections, h2o_socket_t *socket, bool tls,
                     void (*on_closed)(void *context), void *context);
struct connection *connection_of(h2o_req_t *req);
/* A whole request went to the handler; it was answered, or its client is gone. */
void connection_handled(struct connection *connection);
void connection_waits(struct connection *connection);

/* How many more may be accepted; 0 when memory is short as well. */
size_t connections_places(const struct connections *connections);
/* Is there a place for each of `wanted`, and memory to spare? */
bool connections_have_room(const struct connections *connections, size_t wanted);

/* Between two turns of the event loop: counts when it is time to, and shuts what must go. `held` =
 * bytes that the handler's own work holds; `wanted` = places for clients that wait. */
void connections_patrol(struct connections *connections, size_t held, size_t wanted);
