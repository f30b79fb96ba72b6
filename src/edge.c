/* The HTTP server behind edge.h, on libh2o's event loop. Our own loop is nested in it as one
 * readable descriptor; what it puts off is run by a zero timeout at the end of each h2o turn, when
 * all requests of the turn have come in, and inside h2o's callbacks, so that answers are carried on
 * at once. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "edge.h"

#include "clock.h"
#include "edge_connection.h"
#include "edge_head.h"
#include "edge_tls.h"
#include "loop.h"
#include "metrics.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <h2o.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#define LISTENERS_MAX 4
#define ACCEPTS_PER_TURN 16
#define ACCEPT_RETRY_US 100000
/* In a burst, Postgres and Kafka are looked after every so many requests: what they have done waits
 * for no one. */
#define REQUESTS_PER_POLL 8
#define STALLED_TURN_US 20000
/* Two turns that took less made no request old. */
#define AGEING_US 20000
#define PATROL_MS 100
/* What libh2o allows for a handshake and then for a request, and some. */
#define PATIENCE_US 1000000

/* A TLS context (NULL = plain) and the connections that were accepted under it. libh2o keeps its
 * bare pointer until a client's first bytes come, so it is released with the last of them. */
struct tls_use {
    SSL_CTX *tls;
    size_t connections;
    bool replaced;
};

struct listener {
    struct edge *edge;
    h2o_socket_t *socket;
    h2o_accept_ctx_t accept;
    struct tls_use *use;
};

struct edge {
    struct edge_options options;
    h2o_globalconf_t config;
    h2o_context_t h2o;
    struct loop *loop;
    h2o_socket_t *nested;            /* the loop's descriptor */
    int64_t linked_us;               /* since when end_of_turn waits */
    h2o_timeout_entry_t end_of_turn; /* runs what the loop put off */
    struct listener listeners[LISTENERS_MAX];
    size_t listener_count;
    struct connections connections;
    size_t exchanges;
    size_t burst;                        /* requests of all turns */
    int64_t turned_us, turned_before_us; /* when the last two turns ended */
    const char *refusal; /* why a request is being refused; NULL = libh2o's own reasons */
    bool shut, paused, draining, stop;
    int64_t resume_us; /* not before, after descriptors ran out */
};

/* h2o's handler object, with the way back to the edge. */
struct edge_handler {
    h2o_handler_t super;
    struct edge *edge;
};

struct edge_filter {
    h2o_filter_t super;
    struct edge *edge;
};

struct exchange {
    struct edge *edge;
    struct connection *connection; /* lives as long as req */
    h2o_req_t *req;                /* NULL once the client's request is gone */
    struct exchange **link;        /* in the request's pool; tells us when it goes */
};

/* ---- the loop beside ---- */

/* h2o's timeouts follow the wall clock: one that was linked before the clock was set back would
 * wait for it to catch up. */
static void kick(struct edge *edge)
{
    int64_t now = clock_mono_us();
    if (!h2o_timeout_is_linked(&edge->end_of_turn)) {
        edge->linked_us = now;
        h2o_timeout_link(edge->h2o.loop, &edge->h2o.zero_timeout, &edge->end_of_turn);
    } else if (now - edge->linked_us > STALLED_TURN_US) {
        loop_run_deferred(edge->loop);
    }
}

static void on_end_of_turn(h2o_timeout_entry_t *entry)
{
    loop_run_deferred(container_of(entry, struct edge, end_of_turn)->loop);
}

static void on_nested_ready(h2o_socket_t *socket, const char *err)
{
    (void)err;
    struct edge *edge = socket->data;
    loop_poll(edge->loop);
    kick(edge);
}

/* ---- connections ---- */

static void on_accept(h2o_socket_t *socket, const char *err);

static void pause_listeners(struct edge *edge)
{
    edge->paused = true;
    metrics_add(edge->options.metrics, METRIC_LISTENER_PAUSED, 1);
    for (size_t i = 0; i < edge->listener_count; i++)
        h2o_socket_read_stop(edge->listeners[i].socket);
}

static void resume_listeners(struct edge *edge)
{
    if (!edge->paused || edge->shut || edge->draining || clock_mono_us() < edge->resume_us ||
        !connections_have_room(&edge->connections, edge->listener_count))
        return;
    edge->paused = false;
    for (size_t i = 0; i < edge->listener_count; i++)
        h2o_socket_read_start(edge->listeners[i].socket, on_accept);
}

static void release_unused(struct tls_use *use)
{
    if (!use->replaced || use->connections > 0)
        return;
    edge_tls_unref(use->tls);
    free(use);
}

static void on_connection_closed(void *context)
{
    struct tls_use *use = context;
    use->connections--;
    release_unused(use);
}

static void on_accept(h2o_socket_t *socket, const char *err)
{
    if (err != NULL)
        return;
    struct listener *listener = socket->data;
    struct edge *edge = listener->edge;
    /* The last places are shared, or a crowd before one listener would shut out the other. */
    size_t share = connections_places(&edge->connections) / edge->listener_count;
    for (size_t i = 0; i < ACCEPTS_PER_TURN && (i == 0 || i < share); i++) {
        if (connections_places(&edge->connections) == 0) {
            pause_listeners(edge);
            return;
        }
        errno = 0;
        h2o_socket_t *connection = h2o_evloop_socket_accept(socket);
        if (connection == NULL) {
            /* Level-triggered: without a pause the loop would spin until a descriptor is free. */
            if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
                pause_listeners(edge);
                edge->resume_us = clock_mono_us() + ACCEPT_RETRY_US;
            }
            return;
        }
        listener->use->connections++;
        connections_add(&edge->connections, connection, listener->accept.ssl_ctx != NULL,
                        on_connection_closed, listener->use);
        h2o_accept(&listener->accept, connection);
    }
}

/* ---- requests ---- */

static struct slice slice_of_iovec(h2o_iovec_t vec)
{
    return (struct slice){vec.base ? vec.base : "", vec.len};
}

/* What had come while the turn before was busy lay in the kernel: that is part of the time that its
 * sender has waited. tcp(7): TCP_INFO tells milliseconds. */
static int64_t age_of(const struct edge *edge, h2o_req_t *req)
{
    struct tcp_info info;
    socklen_t len = sizeof info;
    if (clock_mono_us() - edge->turned_before_us < AGEING_US ||
        getsockopt(h2o_socket_get_fd(req->conn->callbacks->get_socket(req->conn)), IPPROTO_TCP,
                   TCP_INFO, &info, &len) != 0)
        return 0;
    return (int64_t)info.tcpi_last_data_recv * 1000;
}

static void read_peer(h2o_req_t *req, char *text, size_t size)
{
    struct sockaddr_storage address;
    const void *ip = NULL;
    socklen_t len = req->conn->callbacks->get_peername(req->conn, (void *)&address);
    text[0] = '\0';
    if (len > 0 && address.ss_family == AF_INET)
        ip = &((const struct sockaddr_in *)(const void *)&address)->sin_addr;
    else if (len > 0 && address.ss_family == AF_INET6)
        ip = &((const struct sockaddr_in6 *)(const void *)&address)->sin6_addr;
    if (ip && inet_ntop(address.ss_family, ip, text, (socklen_t)size) == NULL)
        text[0] = '\0';
}

static void fill_inbound(h2o_req_t *req, struct inbound *in)
{
    struct slice path = slice_of_iovec(req->path);
    in->method = slice_of_iovec(req->method);
    in->query = (struct slice){"", 0};
    if (req->query_at < path.len) {
        in->query = slice_from(path, req->query_at + 1);
        path.len = req->query_at;
    }
    in->path = path;
    in->header_count = 0;
    for (size_t i = 0; i < req->headers.size && in->header_count < INBOUND_MAX_HEADERS; i++) {
        const h2o_header_t *header = &req->headers.entries[i];
        /* A folded line has no name: it stays an entry without one, which the route step refuses.
         */
        struct slice name = header->name ? slice_of_iovec(*header->name) : (struct slice){"", 0};
        in->headers[in->header_count++] =
            (struct inbound_header){name, slice_trim(slice_of_iovec(header->value))};
    }
    in->body = slice_of_iovec(req->entity);
    in->received_wall_us = clock_wall_us();
    in->age_us = 0;
    read_peer(req, in->peer, sizeof in->peer);
}

static void on_request_gone(void *pooled)
{
    struct exchange *x = *(struct exchange **)pooled;
    if (x == NULL)
        return;
    connection_waits(x->connection);
    x->req = NULL;
}

/* libh2o keeps a request's bytes at the beginning of its socket's input until it is answered: the
 * head as it came, but for names in lower case, and the body decoded behind it. */
static const char *check_head(h2o_req_t *req)
{
    const h2o_buffer_t *input = req->conn->callbacks->get_socket(req->conn)->input;
    size_t len;
    const char *wrong = edge_head_check((struct slice){input->bytes, input->size}, &len);
    if (wrong == NULL && req->entity.base != NULL && req->entity.base != input->bytes + len)
        return "its end can be read in two ways";
    return wrong;
}

/* Closes: where such a request ends is a matter of opinion, so what follows is nobody's. */
static void refuse(struct edge *edge, h2o_req_t *req, const char *why)
{
    edge->refusal = why;
    h2o_send_error_400(req, "", why, H2O_SEND_ERROR_HTTP1_CLOSE_CONNECTION);
    edge->refusal = NULL;
}

static int on_request(h2o_handler_t *self, h2o_req_t *req)
{
    struct edge *edge = ((struct edge_handler *)(void *)self)->edge;
    const char *wrong = check_head(req);
    if (wrong) {
        refuse(edge, req, wrong);
        return 0;
    }
    struct exchange *x = xcalloc(1, sizeof *x);
    x->edge = edge;
    x->connection = connection_of(req);
    x->req = req;
    x->link = h2o_mem_alloc_shared(&req->pool, sizeof(struct exchange *), on_request_gone);
    *x->link = x;
    edge->exchanges++;
    connection_handled(x->connection);

    struct inbound in;
    fill_inbound(req, &in);
    in.age_us = age_of(edge, req);
    edge->options.handler(x, &in, edge->options.context);
    kick(edge);
    if (++edge->burst % REQUESTS_PER_POLL == 0)
        loop_poll(edge->loop);
    return 0;
}

static void add_header(h2o_req_t *req, const h2o_token_t *token, const char *value)
{
    h2o_iovec_t copy = h2o_strdup(&req->pool, value, SIZE_MAX);
    h2o_add_header(&req->pool, &req->res.headers, token, NULL, copy.base, copy.len);
}

static void send_answer(h2o_req_t *req, const struct exchange_answer *answer)
{
    static h2o_generator_t generator = {NULL, NULL};
    req->res.status = answer->status;
    req->res.reason = "";
    req->res.content_length = answer->body.len;
    if (answer->content_type)
        add_header(req, H2O_TOKEN_CONTENT_TYPE, answer->content_type);
    if (answer->retry_after_s > 0) {
        char seconds[16];
        snprintf(seconds, sizeof seconds, "%d", answer->retry_after_s);
        h2o_iovec_t value = h2o_strdup(&req->pool, seconds, SIZE_MAX);
        h2o_add_header_by_str(&req->pool, &req->res.headers, H2O_STRLIT("retry-after"), 0, NULL,
                              value.base, value.len);
    }
    for (size_t i = 0; i < answer->header_count; i++) {
        h2o_iovec_t name = h2o_strdup(&req->pool, answer->headers[i].name, SIZE_MAX);
        h2o_iovec_t value = h2o_strdup(&req->pool, answer->headers[i].value, SIZE_MAX);
        h2o_add_header_by_str(&req->pool, &req->res.headers, name.base, name.len, 1, NULL,
                              value.base, value.len);
    }
    bool head = h2o_memis(req->method.base, req->method.len, H2O_STRLIT("HEAD"));
    h2o_iovec_t body = h2o_strdup(&req->pool, answer->body.ptr, answer->body.len);
    h2o_start_response(req, &generator);
    h2o_send(req, &body, head || body.len == 0 ? 0 : 1, H2O_SEND_STATE_FINAL);
}

void exchange_answer(struct exchange *x, const struct exchange_answer *answer)
{
    x->edge->exchanges--;
    if (x->req) {
        *x->link = NULL;
        connection_waits(x->connection);
        send_answer(x->req, answer);
    }
    free(x);
}

/* ---- what h2o refuses by itself ---- */

/* Its own errors (too large, malformed) are plain text: ours are JSON. */
static void send_error_body(h2o_ostream_t *self, h2o_req_t *req, h2o_iovec_t *bufs, size_t count,
                            h2o_send_state_t state)
{
    (void)bufs, (void)count;
    const char *text =
        req->res.status == 413
            ? "{\"error\":{\"code\":\"body_too_large\",\"message\":\"The body is larger than the "
              "limit.\"}}"
            : "{\"error\":{\"code\":\"bad_request\",\"message\":\"The request is malformed.\"}}";
    h2o_iovec_t body = {(char *)(uintptr_t)text, strlen(text)};
    h2o_ostream_send_next(self, req, &body, 1, state);
}

static void tell_refusal(struct edge *edge, h2o_req_t *req)
{
    metrics_add(edge->options.metrics, METRIC_HTTP_ERRORS, 1);
    if (edge->options.refused == NULL)
        return;
    struct inbound in;
    fill_inbound(req, &in);
    edge->options.refused(&in, req->res.status,
                          edge->refusal ? edge->refusal : "refused by the HTTP layer",
                          edge->options.context);
}

static void on_setup_ostream(h2o_filter_t *self, h2o_req_t *req, h2o_ostream_t **slot)
{
    struct edge *edge = ((struct edge_filter *)(void *)self)->edge;
    ssize_t at = h2o_find_header(&req->res.headers, H2O_TOKEN_CONTENT_TYPE, -1);
    bool foreign =
        req->res.status >= 400 && at >= 0 &&
        h2o_lcstris(req->res.headers.entries[at].value.base, req->res.headers.entries[at].value.len,
                    H2O_STRLIT("text/plain; charset=utf-8"));
    if (foreign) {
        tell_refusal(edge, req);
        req->res.headers.entries[at].value = h2o_iovec_init(H2O_STRLIT("application/json"));
        req->res.content_length = SIZE_MAX;
        h2o_ostream_t *ostream = h2o_add_ostream(req, sizeof *ostream, slot);
        ostream->do_send = send_error_body;
        slot = &ostream->next;
    }
    h2o_setup_next_ostream(req, slot);
}

static void configure_path(struct edge *edge, h2o_pathconf_t *path)
{
    struct edge_handler *handler = (void *)h2o_create_handler(path, sizeof *handler);
    handler->super.on_req = on_request;
    handler->edge = edge;
    struct edge_filter *filter = (void *)h2o_create_filter(path, sizeof *filter);
    filter->super.on_setup_ostream = on_setup_ostream;
    filter->edge = edge;
}

/* ---- life ---- */

struct edge *edge_new(const struct edge_options *options)
{
    struct edge *edge = xcalloc(1, sizeof *edge);
    edge->options = *options;
    edge->shut = options->begin_shut;
    edge->connections = (struct connections){.max = options->connections,
                                             .memory = options->memory,
                                             .patience_us = 2 * options->request_us + PATIENCE_US,
                                             .metrics = options->metrics};
    list_init(&edge->connections.all);
    /* No body goes into a file: nothing is stored before its signature matched. */
    if (h2o_socket_buffer_mmap_settings.threshold != SIZE_MAX)
        h2o_socket_buffer_mmap_settings.threshold = SIZE_MAX;
    h2o_config_init(&edge->config);
    edge->config.server_name = h2o_iovec_init(NULL, 0);
    edge->config.max_request_entity_size = options->body_max;
    edge->config.http1.req_timeout = (uint64_t)options->request_us / 1000;
    edge->config.http1.upgrade_to_http2 = 0; /* also refuses prior knowledge */
    edge->config.handshake_timeout = (uint64_t)options->request_us / 1000;
    h2o_hostconf_t *host =
        h2o_config_register_host(&edge->config, h2o_iovec_init(H2O_STRLIT("default")), 65535);
    configure_path(edge, h2o_config_register_path(host, "/", 0));
    configure_path(edge, &host->fallback_path);

    h2o_context_init(&edge->h2o, h2o_evloop_create(), &edge->config);
    edge->loop = loop_new();
    edge->end_of_turn.cb = on_end_of_turn;
    /* h2o closes what it is given. */
    int fd = fcntl(loop_fd(edge->loop), F_DUPFD_CLOEXEC, 3);
    assert(fd >= 0);
    edge->nested = h2o_evloop_socket_create(edge->h2o.loop, fd, H2O_SOCKET_FLAG_DONT_READ);
    edge->nested->data = edge;
    h2o_socket_read_start(edge->nested, on_nested_ready);
    return edge;
}

static void set_tls(struct listener *listener, SSL_CTX *tls)
{
    struct tls_use *use = xcalloc(1, sizeof *use);
    use->tls = tls;
    listener->use = use;
    listener->accept.ssl_ctx = tls;
}

void edge_listen(struct edge *edge, int fd, struct ssl_ctx_st *tls)
{
    assert(edge->listener_count < LISTENERS_MAX);
    struct listener *listener = &edge->listeners[edge->listener_count++];
    listener->edge = edge;
    listener->accept = (h2o_accept_ctx_t){.ctx = &edge->h2o, .hosts = edge->config.hosts};
    set_tls(listener, tls ? edge_tls_ref(tls) : NULL);
    listener->socket = h2o_evloop_socket_create(edge->h2o.loop, fd, H2O_SOCKET_FLAG_DONT_READ);
    listener->socket->data = listener;
    if (!edge->shut)
        h2o_socket_read_start(listener->socket, on_accept);
}

void edge_open(struct edge *edge)
{
    assert(edge->shut);
    edge->shut = false;
    for (size_t i = 0; i < edge->listener_count; i++)
        h2o_socket_read_start(edge->listeners[i].socket, on_accept);
}

void edge_take_tls(struct edge *edge, struct ssl_ctx_st *tls)
{
    for (size_t i = 0; i < edge->listener_count; i++) {
        struct listener *listener = &edge->listeners[i];
        struct tls_use *old = listener->use;
        if (old->tls == NULL)
            continue;
        set_tls(listener, edge_tls_ref(tls));
        old->replaced = true;
        release_unused(old);
    }
    edge_tls_unref(tls);
}

struct loop *edge_loop(struct edge *edge)
{
    return edge->loop;
}

void edge_run(struct edge *edge)
{
    while (!edge->stop) {
        int32_t wait_ms = edge->connections.count > 0 || edge->paused ? PATROL_MS : INT32_MAX;
        (void)h2o_evloop_run(edge->h2o.loop, wait_ms); /* -1 on a signal: no reason to end */
        edge->turned_before_us = edge->turned_us;
        edge->turned_us = clock_mono_us();
        size_t held = edge->options.held ? edge->options.held(edge->options.context) : 0;
        connections_patrol(&edge->connections, held, edge->paused ? edge->listener_count : 0);
        resume_listeners(edge);
    }
}

void edge_stop(struct edge *edge)
{
    edge->stop = true;
}

void edge_drain(struct edge *edge)
{
    if (edge->draining)
        return;
    edge->draining = true;
    for (size_t i = 0; i < edge->listener_count; i++) {
        h2o_socket_close(edge->listeners[i].socket);
        edge->listeners[i].socket = NULL;
    }
    edge->listener_count = 0;
    h2o_context_request_shutdown(&edge->h2o);
}

size_t edge_exchanges(const struct edge *edge)
{
    return edge->exchanges;
}

size_t edge_connections(const struct edge *edge)
{
    return edge->connections.count;
}
