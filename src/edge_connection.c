/* Counting and shedding behind edge_connection.h. Called by edge.c, the patrol between two turns of
 * libh2o's loop, so that no socket is shut inside a callback of its own. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "edge_connection.h"

#include "clock.h"
#include "log.h"
#include "metrics.h"

#include <sys/socket.h>

#define COUNT_EVERY_US 100000
#define TELL_EVERY_US 1000000
/* An idle connection must have been idle for so long before another client gets its place; an
 * unfinished request goes when there is no idle one. */
#define IDLE_US 1000000
#define UNFINISHED_US 3000000
/* libh2o's first buffer, and more than any it can grow to. */
#define BUFFER_MIN (2 * H2O_SOCKET_INITIAL_INPUT_BUFFER_SIZE)
#define BUFFER_MAX ((size_t)256 << 20)
/* A turn of the loop reads before it is counted, so shedding begins an eighth below the bound, and
 * goes down another eighth, so that not every turn sheds. */
#define EIGHTHS(bytes, n) ((bytes) / 8 * (n))
/* Measured with 5,000 idle connections: OpenSSL 3.0 with released buffers, libh2o's structures. */
#define TLS_BYTES 20480
#define PLAIN_BYTES 4096

static size_t buffered(const struct connection *connection)
{
    const h2o_buffer_t *input = connection->socket->input;
    return input->bytes != NULL ? input->capacity : 0; /* else the shared prototype */
}

/* libh2o awaits bytes of the client. */
static bool is_reading(const struct connection *connection)
{
    return !connection->handled && !connection->shut && connection->socket->_cb.read != NULL;
}

static void on_socket_closed(void *data)
{
    struct connection *connection = data;
    struct connections *owner = connection->owner;
    list_remove(&connection->node);
    owner->count--;
    metrics_add(owner->metrics, METRIC_CONNECTIONS_OPEN, -1);
    connection->on_closed(connection->context);
    free(connection);
}

void connections_add(struct connections *connections, h2o_socket_t *socket, bool tls,
                     void (*on_closed)(void *context), void *context)
{
    struct connection *connection = xcalloc(1, sizeof *connection);
    connection->owner = connections;
    connection->socket = socket;
    connection->on_closed = on_closed;
    connection->context = context;
    connection->fixed = tls ? TLS_BYTES : PLAIN_BYTES;
    connection->since_us = clock_mono_us();
    list_init(&connection->node);
    list_append(&connections->all, &connection->node);
    connections->count++;
    connections->bytes += connection->fixed;
    metrics_add(connections->metrics, METRIC_CONNECTIONS_OPEN, 1);
    metrics_add(connections->metrics, METRIC_CONNECTIONS_TOTAL, 1);
    socket->on_close.cb = on_socket_closed;
    socket->on_close.data = connection;
}

struct connection *connection_of(h2o_req_t *req)
{
    return req->conn->callbacks->get_socket(req->conn)->on_close.data;
}

void connection_handled(struct connection *connection)
{
    connection->handled = true;
}

void connection_waits(struct connection *connection)
{
    connection->handled = false;
    connection->since_us = clock_mono_us();
    list_remove(&connection->node);
    list_append(&connection->owner->all, &connection->node);
}

size_t connections_places(const struct connections *connections)
{
    if (connections->count >= connections->max ||
        connections->bytes > EIGHTHS(connections->memory, 7))
        return 0;
    return connections->max - connections->count;
}

bool connections_have_room(const struct connections *connections, size_t wanted)
{
    return (connections->count + wanted <= connections->max || connections->count == 0) &&
           connections->bytes <= EIGHTHS(connections->memory, 6);
}

/* While libh2o reads, its own way out of a read error takes everything down at once; while it
 * writes, its callback would go on with the next request, so the socket has to fail. */
static void shut(struct connection *connection)
{
    bool reading = is_reading(connection);
    connection_waits(connection); /* for its end */
    connection->shut = true;
    if (reading)
        connection->socket->_cb.read(connection->socket, "shed"); /* connection may be gone */
    else
        shutdown(h2o_socket_get_fd(connection->socket), SHUT_RDWR);
}

static size_t count_bytes(const struct connections *connections)
{
    size_t bytes = 0;
    list_each(node, &connections->all)
    {
        const struct connection *connection = container_of(node, struct connection, node);
        bytes += connection->fixed + buffered(connection);
    }
    return bytes;
}

/* The largest unfinished requests first, by powers of two as libh2o's buffers grow; then whoever
 * has been idle longest. */
static void shed_for_memory(struct connections *connections)
{
    size_t goal = EIGHTHS(connections->memory, 6);
    for (size_t floor = BUFFER_MAX; connections->bytes > goal;
         floor = floor > BUFFER_MIN ? floor / 2 : 0) {
        list_each_safe(node, &connections->all)
        {
            struct connection *connection = container_of(node, struct connection, node);
            size_t bytes = buffered(connection);
            if (connections->bytes <= goal)
                return;
            if (!is_reading(connection) || bytes < floor)
                continue;
            connections->bytes -= bytes + connection->fixed;
            connections->shed_memory++;
            metrics_add(connections->metrics, METRIC_SHED_MEMORY, 1);
            shut(connection);
        }
        if (floor == 0)
            return;
    }
}

/* Clients wait for a place. Idle ones make some, a few at a time. */
static void shed_for_place(struct connections *connections, size_t wanted, int64_t now)
{
    for (int pass = 0; pass < 2; pass++) {
        list_each_safe(node, &connections->all)
        {
            struct connection *connection = container_of(node, struct connection, node);
            int64_t waited = now - connection->since_us;
            if (wanted == 0 || waited < IDLE_US)
                break;
            bool idle = connection->socket->input->size == 0;
            if (!is_reading(connection) || (pass == 0 ? !idle : idle || waited < UNFINISHED_US))
                continue;
            wanted--;
            connections->shed_place++;
            metrics_add(connections->metrics, METRIC_SHED_PLACE, 1);
            shut(connection);
        }
    }
}

/* libh2o's timeouts follow the wall clock, and it has none for a client that doesn't read. */
static void shut_stuck(struct connections *connections, int64_t now)
{
    list_each_safe(node, &connections->all)
    {
        struct connection *connection = container_of(node, struct connection, node);
        if (now - connection->since_us < connections->patience_us)
            break;
        if (connection->handled)
            continue;
        connections->shed_stuck++;
        metrics_add(connections->metrics, METRIC_SHED_STUCK, 1);
        shut(connection);
    }
}

static void tell(struct connections *connections, int64_t now)
{
    size_t sum = connections->shed_memory + connections->shed_place + connections->shed_stuck;
    if (sum == 0 || now - connections->told_us < TELL_EVERY_US)
        return;
    log_event(LOG_WARNING, "connections_shed",
              "%zu unfinished for listen.memory, %zu for listen.connections, %zu stuck; %zu open",
              connections->shed_memory, connections->shed_place, connections->shed_stuck,
              connections->count);
    connections->shed_memory = connections->shed_place = connections->shed_stuck = 0;
    connections->told_us = now;
}

void connections_patrol(struct connections *connections, size_t held, size_t wanted)
{
    int64_t now = clock_mono_us();
    /* Under pressure each turn is counted: one turn may read from 256 sockets. */
    if (now < connections->due_us && connections->bytes < connections->memory / 2)
        return;
    bool due = now >= connections->due_us;
    connections->bytes = count_bytes(connections) + held;
    if (connections->bytes > EIGHTHS(connections->memory, 7))
        shed_for_memory(connections);
    metrics_set(connections->metrics, METRIC_CONNECTION_BYTES, (int64_t)connections->bytes);
    if (!due)
        return;
    connections->due_us = now + COUNT_EVERY_US;
    if (wanted > 0 && connections->count + wanted > connections->max)
        shed_for_place(connections, wanted + connections->max / 16, now);
    shut_stuck(connections, now);
    tell(connections, now);
}
