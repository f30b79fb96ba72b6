/* The client against a server of scripted answers in a thread, on a port of the kernel's choice,
 * plain and with TLS (certificate made in memory). */
/* SPDX-License-Identifier: Apache-2.0 */
#include "client.h"
#include "clock.h"
#include "destination.h"

#include <arpa/inet.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* One step of the script: wait for a request (unless `silent`), write `text`, then maybe close. */
struct step {
    const char *text;
    bool close;  /* the connection, after the text */
    bool refuse; /* accept a connection and close it at once */
};

struct server {
    const struct step *steps;
    size_t step_count;
    int listener;
    unsigned port;
    SSL_CTX *tls;
    size_t accepted, resumed;
    pthread_t thread;
};

struct line {
    int fd;
    SSL *tls;
};

static ssize_t line_read(struct line *line, char *buf, size_t size)
{
    return line->tls ? SSL_read(line->tls, buf, (int)size) : read(line->fd, buf, size);
}

static void line_write(struct line *line, const char *text)
{
    size_t len = strlen(text);
    if (line->tls)
        (void)!SSL_write(line->tls, text, (int)len);
    else
        (void)!send(line->fd, text, len, MSG_NOSIGNAL);
}

static void line_close(struct line *line)
{
    if (line->tls)
        SSL_shutdown(line->tls);
    SSL_free(line->tls);
    if (line->fd >= 0)
        close(line->fd);
    *line = (struct line){.fd = -1};
}

static void line_accept(struct server *server, struct line *line)
{
    line->fd = accept(server->listener, NULL, NULL);
    server->accepted++;
    if (server->tls == NULL)
        return;
    line->tls = SSL_new(server->tls);
    SSL_set_fd(line->tls, line->fd);
    if (SSL_accept(line->tls) != 1)
        line_close(line);
    else
        server->resumed += (size_t)SSL_session_reused(line->tls);
}

/* Reads to the end of a request "...\r\n\r\nbody!"; false at the end of the connection. */
static bool line_read_request(struct line *line)
{
    char buf[70000];
    size_t len = 0;
    while (len == 0 || buf[len - 1] != '!') {
        ssize_t n = line_read(line, buf + len, sizeof buf - len);
        if (n <= 0)
            return false;
        len += (size_t)n;
    }
    return true;
}

static void *serve(void *argument)
{
    struct server *server = argument;
    struct line line = {.fd = -1};
    for (size_t i = 0; i < server->step_count; i++) {
        const struct step *step = &server->steps[i];
        if (line.fd < 0)
            line_accept(server, &line);
        if (!step->refuse && line.fd >= 0 && line_read_request(&line) && step->text != NULL)
            line_write(&line, step->text);
        if (step->close || step->refuse)
            line_close(&line);
    }
    char byte;
    if (line.fd >= 0)
        (void)!line_read(&line, &byte, 1); /* until the client leaves */
    line_close(&line);
    return NULL;
}

static SSL_CTX *make_tls(void)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = X509_new();
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate), -60);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    X509_set_pubkey(certificate, key);
    X509_NAME *name = X509_get_subject_name(certificate);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"test", -1, -1, 0);
    X509_set_issuer_name(certificate, name);
    X509_sign(certificate, key, EVP_sha256());
    SSL_CTX *tls = SSL_CTX_new(TLS_server_method());
    assert_int_equal(SSL_CTX_use_certificate(tls, certificate), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(tls, key), 1);
    X509_free(certificate);
    EVP_PKEY_free(key);
    return tls;
}

struct bench {
    struct server server;
    struct loop *loop;
    struct destination *to;
    struct client *client;
    bool done;
    enum client_result result;
    int status;
    char body[4096];
};

static void on_done(struct client *client, enum client_result result,
                    const struct client_answer *answer, void *context)
{
    struct bench *bench = context;
    assert_ptr_equal(client, bench->client);
    assert_false(bench->done); /* once for each request */
    bench->done = true;
    bench->result = result;
    bench->status = answer ? answer->status : 0;
    bench->body[0] = '\0';
    if (answer != NULL && answer->body.len < sizeof bench->body) {
        memcpy(bench->body, answer->body.ptr, answer->body.len);
        bench->body[answer->body.len] = '\0';
    }
}

static void begin(struct bench *bench, const struct step *steps, size_t count, bool tls)
{
    struct server *server = &bench->server;
    server->steps = steps;
    server->step_count = count;
    server->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    assert_int_equal(bind(server->listener, (void *)&address, len), 0);
    assert_int_equal(listen(server->listener, 8), 0);
    getsockname(server->listener, (void *)&address, &len);
    server->port = ntohs(address.sin_port);
    server->tls = tls ? make_tls() : NULL;
    assert_int_equal(pthread_create(&server->thread, NULL, serve, server), 0);

    char url[64], error[256] = "";
    snprintf(url, sizeof url, "http%s://127.0.0.1:%u/x?y=1", tls ? "s" : "", server->port);
    bench->to = destination_new(url, NULL, error, sizeof error);
    assert_string_equal(error, "");
    assert_string_equal(destination_path(bench->to), "/x?y=1");
    bench->loop = loop_new();
    bench->client = client_new(bench->loop, bench->to, on_done, bench);
}

static void wait_done(struct bench *bench)
{
    int64_t end = clock_mono_us() + 10000000;
    while (!bench->done && clock_mono_us() < end)
        loop_turn(bench->loop, 100);
    assert_true(bench->done);
}

static void request_within(struct bench *bench, size_t padding, int64_t timeout_us)
{
    char *body = xmalloc(padding + 1);
    memset(body, 'x', padding);
    body[padding] = '!';
    bench->done = false;
    client_send(bench->client, SLICE_LITERAL("POST /x HTTP/1.1\r\nhost: a\r\n\r\n"),
                (struct slice){body, padding + 1}, clock_mono_us() + timeout_us);
    assert_false(bench->done); /* never from within */
    free(body);
    wait_done(bench);
}

static void request(struct bench *bench)
{
    request_within(bench, 10, 5000000);
}

static void expect_answer(const struct bench *bench, int status, const char *body)
{
    assert_int_equal(bench->result, CLIENT_ANSWERED);
    assert_int_equal(bench->status, status);
    assert_string_equal(bench->body, body);
}

static void end(struct bench *bench)
{
    client_free(bench->client);
    destination_free(bench->to);
    loop_free(bench->loop);
    shutdown(bench->server.listener, SHUT_RDWR);
    pthread_join(bench->server.thread, NULL);
    close(bench->server.listener);
    SSL_CTX_free(bench->server.tls);
}

#define BEGIN(bench, steps, tls)                                                                   \
    struct bench bench = {.done = false};                                                          \
    begin(&bench, steps, sizeof steps / sizeof *steps, tls)

#define OK(body, len) "HTTP/1.1 200 OK\r\nContent-Length: " len "\r\n\r\n" body

static void keeps_alive_and_understands_framings(void **state)
{
    static const struct step steps[] = {
        {.text = OK("one", "3")},
        {.text = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
                 "2\r\ntw\r\n1;ext=1\r\no\r\n0\r\nTrailer: x\r\n\r\n"},
        {.text = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"},
        {.text = "HTTP/1.1 204 None\r\n\r\n"},
        {.text = "HTTP/1.1 200 OK\r\n\r\nuntil the end", .close = true},
    };
    for (int tls = 0; tls < 2; tls++) {
        BEGIN(bench, steps, tls == 1);
        request(&bench);
        expect_answer(&bench, 200, "one");
        request_within(&bench, 60000, 5000000);
        expect_answer(&bench, 200, "two");
        request(&bench);
        expect_answer(&bench, 503, "");
        request(&bench);
        expect_answer(&bench, 204, "");
        request(&bench);
        expect_answer(&bench, 200, "until the end");
        assert_int_equal(client_reconnects(bench.client), 0);
        assert_int_equal(destination_doubt(bench.to) != NULL, tls);
        end(&bench);
        assert_int_equal(bench.server.accepted, 1);
    }
    (void)state;
}

static void connects_again_when_closed_between_requests(void **state)
{
    (void)state;
    static const struct step steps[] = {
        {.text = OK("one", "3"), .close = true},
        {.text = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\ntwo",
         .close = true},
        {.text = OK("three", "5")},
    };
    for (int tls = 0; tls < 2; tls++) {
        BEGIN(bench, steps, tls == 1);
        request(&bench);
        expect_answer(&bench, 200, "one");
        loop_turn(bench.loop, 1000); /* the end is seen while idle */
        request(&bench);
        expect_answer(&bench, 200, "two");
        request(&bench);
        expect_answer(&bench, 200, "three");
        assert_int_equal(client_reconnects(bench.client), 2);
        end(&bench);
        assert_int_equal(bench.server.resumed, tls ? 2 : 0);
    }
}

static void half_an_answer_is_broken(void **state)
{
    (void)state;
    static const struct step steps[] = {
        {.text = "HTTP/1.1 200 OK\r\nContent-Le", .close = true},
        {.text = OK("one", "4"), .close = true},
        {.text = NULL, .close = true},
        {.text = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\non", .close = true},
        {.text = OK("fine", "4")},
    };
    for (int tls = 0; tls < 2; tls++) {
        BEGIN(bench, steps, tls == 1);
        for (int i = 0; i < 4; i++) {
            request(&bench);
            assert_int_equal(bench.result, CLIENT_BROKEN);
            assert_string_not_equal(client_failure(bench.client), "");
        }
        request(&bench);
        expect_answer(&bench, 200, "fine");
        end(&bench);
    }
}

static void garbage_is_garbled(void **state)
{
    (void)state;
    static const char *const answers[] = {
        "SSH-2.0-x\r\n\r\n",
        "HTTP/1.1 2x0 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\na",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    };
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        const struct step steps[] = {{.text = answers[i]}};
        BEGIN(bench, steps, false);
        request(&bench);
        assert_int_equal(bench.result, CLIENT_GARBLED);
        end(&bench);
    }
}

static void too_much_after_an_answer_ends_the_connection(void **state)
{
    (void)state;
    static const struct step steps[] = {{.text = OK("one", "3") OK("two", "3"), .close = true},
                                        {.text = OK("three", "5")}};
    BEGIN(bench, steps, false);
    request(&bench);
    expect_answer(&bench, 200, "one");
    request(&bench);
    expect_answer(&bench, 200, "three");
    end(&bench);
}

static void slow_answers_time_out(void **state)
{
    (void)state;
    static const struct step steps[] = {{.text = "HTTP/1.1 200 OK\r\n"}};
    for (int tls = 0; tls < 2; tls++) {
        BEGIN(bench, steps, tls == 1);
        int64_t start = clock_mono_us();
        request_within(&bench, 10, 300000);
        assert_int_equal(bench.result, CLIENT_TIMEOUT);
        assert_in_range(clock_mono_us() - start, 299000, 5000000);
        end(&bench);
    }
}

static void waits_for_a_server_until_the_deadline(void **state)
{
    (void)state;
    static const struct step steps[] = {{.text = NULL}};
    BEGIN(bench, steps, false);
    char url[64], error[256] = "";
    int held = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); /* bound, but nobody listens */
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    assert_int_equal(bind(held, (void *)&address, len), 0);
    getsockname(held, (void *)&address, &len);
    snprintf(url, sizeof url, "http://127.0.0.1:%u", ntohs(address.sin_port));
    struct destination *to = destination_new(url, NULL, error, sizeof error);
    struct client *first = bench.client;
    bench.client = client_new(bench.loop, to, on_done, &bench);
    request_within(&bench, 10, 300000);
    assert_int_equal(bench.result, CLIENT_UNREACHABLE);
    assert_in_range(client_reconnects(bench.client), 2, 10);
    client_free(bench.client);
    destination_free(to);
    close(held);
    bench.client = first;
    request_within(&bench, 10, 100000); /* lets the server's thread end */
    end(&bench);
}

static void a_given_authority_insists(void **state)
{
    (void)state;
    static const struct step steps[] = {{.refuse = true}};
    BEGIN(bench, steps, true);
    char path[] = "/tmp/test_client.XXXXXX", url[64], error[256] = "";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    snprintf(url, sizeof url, "https://127.0.0.1:%u", bench.server.port);
    assert_null(destination_new(url, path, error, sizeof error)); /* an empty file */
    FILE *file = fopen(path, "w");
    SSL_CTX *other = make_tls();
    PEM_write_X509(file, SSL_CTX_get0_certificate(other));
    fclose(file);
    struct destination *to = destination_new(url, path, error, sizeof error);
    assert_non_null(to);
    client_free(bench.client);
    bench.client = client_new(bench.loop, to, on_done, &bench);
    request(&bench);
    assert_int_equal(bench.result, CLIENT_UNREACHABLE);
    assert_non_null(strstr(client_failure(bench.client), "certificate"));
    client_free(bench.client);
    bench.client = NULL;
    destination_free(to);
    SSL_CTX_free(other);
    remove(path);
    end(&bench);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_alive_and_understands_framings),
        cmocka_unit_test(connects_again_when_closed_between_requests),
        cmocka_unit_test(half_an_answer_is_broken),
        cmocka_unit_test(garbage_is_garbled),
        cmocka_unit_test(too_much_after_an_answer_ends_the_connection),
        cmocka_unit_test(slow_answers_time_out),
        cmocka_unit_test(waits_for_a_server_until_the_deadline),
        cmocka_unit_test(a_given_authority_insists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
