/* The connection behind client.h. One state machine, pumped by readiness: connect, shake hands,
 * write what is left of the request, read until the answer is whole. Thread: the loop's. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "client.h"

#include "answer.h"
#include "clock.h"
#include "destination.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKOFF_FIRST_US 10000
#define BACKOFF_MOST_US 200000
#define READ_SIZE 16384

enum client_state { CLOSED, WAITING /* to connect again */, CONNECTING, SHAKING, OPEN };

#define CLIENT_MAGIC 0x636c6e74u
struct client {
    unsigned magic;
    struct loop *loop;
    struct destination *to;
    client_done_f *on_done;
    void *context;
    enum client_state state;
    struct loop_watch watch;
    struct loop_timer timer; /* deadline of the request; lazy: it may come early and is set again */
    struct loop_timer retry;
    SSL *tls;
    bool busy, write_blocked /* TLS wants to write before it reads on */;
    bool unwritable; /* the peer takes no more, but may have answered */
    int64_t deadline_us, backoff_us, not_before_us;
    char *out, *in;
    size_t out_len, out_sent, out_size, in_len, in_size;
    struct answer answer;
    size_t attempts;
    char failure[160];
};

/* --- the ends of a connection and of a request ---------------------------------------------- */

static void PRINTF_LIKE(2, 3) say(struct client *client, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(client->failure, sizeof client->failure, fmt, args);
    va_end(args);
}

static void disconnect(struct client *client)
{
    int fd = client->watch.fd;
    loop_unwatch(client->loop, &client->watch);
    /* Else OpenSSL takes the session for damaged and never resumes it. */
    if (client->tls != NULL)
        SSL_set_shutdown(client->tls, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(client->tls);
    client->tls = NULL;
    if (fd > 0)
        close(fd);
    client->watch = (struct loop_watch){.fd = -1, .on_ready = client->watch.on_ready};
    client->state = CLOSED;
    client->in_len = 0;
    client->write_blocked = client->unwritable = false;
}

/* No new connection for a while: each failure in a row doubles the wait. */
static void back_off(struct client *client)
{
    client->not_before_us = clock_mono_us() + client->backoff_us;
    client->backoff_us =
        client->backoff_us * 2 > BACKOFF_MOST_US ? BACKOFF_MOST_US : client->backoff_us * 2;
}

/* Must be the last thing that its caller does with the client. */
static void finish(struct client *client, enum client_result result)
{
    client->busy = false;
    loop_timer_clear(client->loop, &client->retry);
    if (result != CLIENT_ANSWERED) {
        disconnect(client);
        back_off(client);
        client->on_done(client, result, NULL, client->context);
        return;
    }
    struct client_answer answer = {client->answer.status, answer_body(&client->answer, client->in)};
    if (client->answer.close || client->out_sent < client->out_len)
        disconnect(client); /* the answer's bytes stay in `in` */
    client->in_len = 0;
    client->backoff_us = BACKOFF_FIRST_US;
    client->not_before_us = 0;
    client->on_done(client, CLIENT_ANSWERED, &answer, client->context);
}

static void connect_later(struct client *client)
{
    disconnect(client);
    back_off(client);
    client->state = WAITING;
    destination_next_address(client->to);
    loop_timer_set(client->loop, &client->retry, client->not_before_us);
}

static void on_deadline(struct loop_timer *timer)
{
    struct client *client = container_of(timer, struct client, timer);
    CHECK_OBJ(client, CLIENT_MAGIC);
    if (!client->busy)
        return;
    if (clock_mono_us() < client->deadline_us) {
        loop_timer_set(client->loop, timer, client->deadline_us);
        return;
    }
    if (client->state == OPEN) {
        say(client, "no answer in time");
        finish(client, CLIENT_TIMEOUT);
        return;
    }
    if (client->failure[0] == '\0')
        say(client, "no connection in time");
    finish(client, CLIENT_UNREACHABLE);
}

/* --- connecting ------------------------------------------------------------------------------ */

static void start_connect(struct client *client)
{
    const struct addrinfo *address = destination_address(client->to);
    client->attempts++;
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        say(client, "socket: %s", strerror(errno));
        connect_later(client);
        return;
    }
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, address->ai_addr, address->ai_addrlen) != 0 && errno != EINPROGRESS) {
        say(client, "connect: %s", strerror(errno));
        close(fd);
        connect_later(client);
        return;
    }
    client->state = CONNECTING;
    loop_watch(client->loop, &client->watch, fd, LOOP_WRITE);
}

static void on_retry(struct loop_timer *timer)
{
    struct client *client = container_of(timer, struct client, retry);
    CHECK_OBJ(client, CLIENT_MAGIC);
    start_connect(client);
}

enum step { GO_ON, WAIT, DONE /* the client may be gone */ };

static enum step pump_connect(struct client *client)
{
    int error = 0;
    socklen_t len = sizeof error;
    if (getsockopt(client->watch.fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0)
        error = errno;
    if (error != 0) {
        say(client, "connect: %s", strerror(error));
        connect_later(client);
        return DONE;
    }
    client->tls = destination_tls_new(client->to, client->watch.fd);
    client->state = client->tls != NULL ? SHAKING : OPEN;
    return GO_ON;
}

static enum step pump_shake(struct client *client)
{
    ERR_clear_error();
    int rc = SSL_connect(client->tls);
    if (rc == 1) {
        destination_note_verdict(client->to, SSL_get_verify_result(client->tls));
        client->state = OPEN;
        return GO_ON;
    }
    int error = SSL_get_error(client->tls, rc);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
        loop_watch(client->loop, &client->watch, client->watch.fd,
                   error == SSL_ERROR_WANT_READ ? LOOP_READ : LOOP_WRITE);
        return WAIT;
    }
    if (error == SSL_ERROR_SYSCALL) { /* a server that just dies: as if it refused */
        say(client, "TLS: the connection ended in the hand-shake");
        connect_later(client);
        return DONE;
    }
    long verified = SSL_get_verify_result(client->tls);
    const char *reason = ERR_reason_error_string(ERR_peek_error());
    say(client, "TLS: %s",
        verified != X509_V_OK ? X509_verify_cert_error_string(verified)
        : reason != NULL      ? reason
                              : "hand-shake failed");
    destination_forget_session(client->to);
    finish(client, CLIENT_UNREACHABLE);
    return DONE;
}

/* --- a request and its answer ----------------------------------------------------------------- */

/* What became of a read or write: bytes, or one of these. */
enum { IO_ENDED = 0, IO_BLOCKED = -1, IO_BROKEN = -2 };

static ssize_t tls_outcome(struct client *client, int rc)
{
    if (rc > 0)
        return rc;
    switch (SSL_get_error(client->tls, rc)) {
    case SSL_ERROR_WANT_READ:
        return IO_BLOCKED;
    case SSL_ERROR_WANT_WRITE:
        client->write_blocked = true;
        return IO_BLOCKED;
    case SSL_ERROR_ZERO_RETURN:
        return IO_ENDED;
    default:
        return IO_BROKEN;
    }
}

static ssize_t io_read(struct client *client, char *buf, size_t size)
{
    if (client->tls != NULL) {
        ERR_clear_error();
        return tls_outcome(client, SSL_read(client->tls, buf, (int)size));
    }
    ssize_t n = recv(client->watch.fd, buf, size, 0);
    return n >= 0 ? n : errno == EAGAIN || errno == EINTR ? IO_BLOCKED : IO_BROKEN;
}

static ssize_t io_write(struct client *client, const char *buf, size_t size)
{
    if (client->tls != NULL) {
        ERR_clear_error();
        return tls_outcome(client, SSL_write(client->tls, buf, (int)size));
    }
    ssize_t n = send(client->watch.fd, buf, size, MSG_NOSIGNAL);
    return n >= 0 ? n : errno == EAGAIN || errno == EINTR ? IO_BLOCKED : IO_BROKEN;
}

static void pump_write(struct client *client)
{
    while (client->out_sent < client->out_len && !client->unwritable) {
        ssize_t n =
            io_write(client, client->out + client->out_sent, client->out_len - client->out_sent);
        if (n > 0) {
            client->out_sent += (size_t)n;
            continue;
        }
        if (n == IO_BLOCKED)
            return;
        client->unwritable = true; /* an early answer (413, 503) may still be there to read */
    }
}

static enum step pump_read(struct client *client)
{
    for (;;) {
        if (client->in_size - client->in_len < READ_SIZE) {
            client->in_size += READ_SIZE + client->in_size;
            client->in = xrealloc(client->in, client->in_size);
        }
        ssize_t n = io_read(client, client->in + client->in_len, READ_SIZE);
        if (n == IO_BLOCKED)
            return WAIT;
        if (!client->busy) { /* idle: the end, or bytes that nobody asked for */
            disconnect(client);
            return DONE;
        }
        if (n > 0)
            client->in_len += (size_t)n;
        enum answer_state state =
            n == IO_BROKEN ? ANSWER_MORE
                           : answer_feed(&client->answer, client->in, &client->in_len, n == 0);
        if (state == ANSWER_MORE && n > 0)
            continue;
        if (state == ANSWER_WHOLE && n == 0)
            client->answer.close = true;
        if (state == ANSWER_MORE)
            say(client, "the connection ended before the answer");
        else if (state == ANSWER_BAD)
            say(client, "the answer is no HTTP/1.1 or too long");
        finish(client, state == ANSWER_WHOLE  ? CLIENT_ANSWERED
                       : state == ANSWER_MORE ? CLIENT_BROKEN
                                              : CLIENT_GARBLED);
        return DONE;
    }
}

static void want(struct client *client)
{
    bool writing =
        !client->unwritable && (client->out_sent < client->out_len || client->write_blocked);
    loop_watch(client->loop, &client->watch, client->watch.fd,
               LOOP_READ | (writing ? LOOP_WRITE : 0u));
}

static void on_ready(struct loop_watch *watch, unsigned events)
{
    (void)events;
    struct client *client = container_of(watch, struct client, watch);
    CHECK_OBJ(client, CLIENT_MAGIC);
    client->write_blocked = false;
    if (client->state == CONNECTING && pump_connect(client) != GO_ON)
        return;
    if (client->state == SHAKING && pump_shake(client) != GO_ON)
        return;
    pump_write(client);
    if (pump_read(client) == WAIT)
        want(client);
}

struct client *client_new(struct loop *loop, struct destination *to, client_done_f *on_done,
                          void *context)
{
    struct client *client = xcalloc(1, sizeof *client);
    client->magic = CLIENT_MAGIC;
    client->loop = loop;
    client->to = to;
    client->on_done = on_done;
    client->context = context;
    client->backoff_us = BACKOFF_FIRST_US;
    client->watch = (struct loop_watch){.fd = -1, .on_ready = on_ready};
    client->timer.on_due = on_deadline;
    client->retry.on_due = on_retry;
    return client;
}

void client_free(struct client *client)
{
    if (client == NULL)
        return;
    CHECK_OBJ(client, CLIENT_MAGIC);
    disconnect(client);
    loop_timer_clear(client->loop, &client->timer);
    loop_timer_clear(client->loop, &client->retry);
    client->magic = 0;
    free(client->out);
    free(client->in);
    free(client);
}

void client_send(struct client *client, struct slice head, struct slice body, int64_t deadline_us)
{
    CHECK_OBJ(client, CLIENT_MAGIC);
    assert(!client->busy);
    size_t len = head.len + body.len;
    if (len > client->out_size)
        client->out = xrealloc(client->out, client->out_size = len);
    memcpy(client->out, head.ptr, head.len);
    if (body.len > 0)
        memcpy(client->out + head.len, body.ptr, body.len);
    client->out_len = len;
    client->out_sent = 0;
    client->answer = (struct answer){0};
    client->failure[0] = '\0';
    client->busy = true;
    client->deadline_us = deadline_us;
    /* A timer that is set already comes no later than the new deadline: setting it once per
     * request would cost a system call. */
    if (client->timer.due_us == 0 || client->timer.due_us > deadline_us)
        loop_timer_set(client->loop, &client->timer, deadline_us);
    if (client->state == OPEN) {
        pump_write(client);
        want(client);
    } else if (clock_mono_us() < client->not_before_us) {
        client->state = WAITING;
        loop_timer_set(client->loop, &client->retry, client->not_before_us);
    } else {
        start_connect(client);
    }
}

size_t client_reconnects(const struct client *client)
{
    return client->attempts > 1 ? client->attempts - 1 : 0;
}

const char *client_failure(const struct client *client)
{
    return client->failure;
}
