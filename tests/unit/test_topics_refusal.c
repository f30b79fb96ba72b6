/* A Kafka that lets nobody in but with the right password: what is said, counted and tried again.
 * The broker is a few lines of its protocol: versions, handshake and authentication. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "topics_refusal.h"

#include "clock.h"
#include "config.h"
#include "log.h"
#include "metrics.h"
#include "publisher.h"
#include "topics_ensure.h"

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* https://kafka.apache.org/protocol: API keys, an error code. */
#define API_VERSIONS 18
#define SASL_HANDSHAKE 17
#define SASL_AUTHENTICATE 36
#define SASL_AUTHENTICATION_FAILED 58

static struct {
    int listener;
    pthread_t thread;
    _Atomic bool stop;
    _Atomic int refused, admitted;
    char address[32], path[64];
    struct config config;
    struct config_setting settings[3];
} b;

static bool read_all(int fd, void *bytes, size_t len)
{
    for (size_t got = 0; got < len;) {
        ssize_t n = read(fd, (char *)bytes + got, len - got);
        if (n <= 0)
            return false;
        got += (size_t)n;
    }
    return true;
}

static uint16_t number16(const unsigned char *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

/* Version 3: no error; four requests, each with its least and greatest version; not throttled. */
static size_t answer_versions(unsigned char *answer)
{
    static const unsigned char body[] = {0,
                                         0,
                                         5,
                                         0,
                                         3,
                                         0,
                                         0,
                                         0,
                                         4,
                                         0,
                                         0,
                                         SASL_HANDSHAKE,
                                         0,
                                         0,
                                         0,
                                         1,
                                         0,
                                         0,
                                         API_VERSIONS,
                                         0,
                                         0,
                                         0,
                                         3,
                                         0,
                                         0,
                                         SASL_AUTHENTICATE,
                                         0,
                                         0,
                                         0,
                                         0,
                                         0,
                                         0,
                                         0,
                                         0,
                                         0,
                                         0};
    memcpy(answer, body, sizeof body);
    return sizeof body;
}

/* No error, one mechanism. */
static size_t answer_handshake(unsigned char *answer)
{
    static const unsigned char body[] = {0, 0, 0, 0, 0, 1, 0, 5, 'P', 'L', 'A', 'I', 'N'};
    memcpy(answer, body, sizeof body);
    return sizeof body;
}

/* Of a request's body: four bytes of length, then "\0user\0password". */
static size_t answer_authenticate(const unsigned char *body, size_t len, unsigned char *answer)
{
    static const char right[] = "\0someone\0right";
    bool admitted = len == 4 + sizeof right - 1 && memcmp(body + 4, right, sizeof right - 1) == 0;
    atomic_fetch_add(admitted ? &b.admitted : &b.refused, 1);
    /* Error code, no message (-1), no bytes (0). */
    const unsigned char status[] = {
        0, admitted ? 0 : SASL_AUTHENTICATION_FAILED, 0xff, 0xff, 0, 0, 0, 0};
    memcpy(answer, status, sizeof status);
    return sizeof status;
}

/* Until the client goes, or is refused, or asks for something else: a metadata request ends it. */
static void serve(int fd)
{
    unsigned char head[4], request[512], answer[64];
    while (read_all(fd, head, 4)) {
        size_t len = (size_t)number16(head + 2);
        if (len > sizeof request || !read_all(fd, request, len))
            return;
        size_t body = 10 + number16(request + 8), size = 0;
        uint16_t key = number16(request);
        if (key == API_VERSIONS)
            size = answer_versions(answer + 8);
        else if (key == SASL_HANDSHAKE)
            size = answer_handshake(answer + 8);
        else if (key == SASL_AUTHENTICATE)
            size = answer_authenticate(request + body, len - body, answer + 8);
        else
            return;
        const unsigned char length[] = {0, 0, 0, (unsigned char)(size + 4)};
        memcpy(answer, length, 4);
        memcpy(answer + 4, request + 4, 4);
        if (write(fd, answer, size + 8) < 0 || (key == SASL_AUTHENTICATE && answer[9] != 0))
            return;
    }
}

static void *accept_all(void *unused)
{
    struct pollfd poll_for = {.fd = b.listener, .events = POLLIN};
    while (!atomic_load(&b.stop)) {
        if (poll(&poll_for, 1, 20) != 1)
            continue;
        int fd = accept(b.listener, NULL, NULL);
        struct timeval patience = {.tv_sec = 1};
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        serve(fd);
        close(fd);
    }
    return unused;
}

static void set_password(const char *password)
{
    char next[80];
    snprintf(next, sizeof next, "%s.new", b.path);
    FILE *file = fopen(next, "w");
    assert_non_null(file);
    assert_int_equal(chmod(next, 0600), 0);
    fprintf(file, "%s\n", password);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(rename(next, b.path), 0);
}

static int setup(void **state)
{
    (void)state;
    log_set_level(LOG_ERROR + 1);
    memset(&b, 0, sizeof b);
    b.listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    assert_int_equal(bind(b.listener, (struct sockaddr *)&at, len), 0);
    assert_int_equal(listen(b.listener, 16), 0);
    assert_int_equal(getsockname(b.listener, (struct sockaddr *)&at, &len), 0);
    snprintf(b.address, sizeof b.address, "127.0.0.1:%d", ntohs(at.sin_port));
    snprintf(b.path, sizeof b.path, "/tmp/test_topics_refusal.%d", (int)getpid());
    const struct config_setting settings[] = {{"security.protocol", "sasl_plaintext"},
                                              {"sasl.mechanisms", "PLAIN"},
                                              {"sasl.username", "someone"}};
    memcpy(b.settings, settings, sizeof settings);
    b.config.kafka.brokers = b.address;
    b.config.kafka.password_file = b.path;
    b.config.kafka.settings = b.settings;
    b.config.kafka.setting_count = sizeof settings / sizeof *settings;
    b.config.listen.body = 1 << 20;
    set_password("wrong");
    return pthread_create(&b.thread, NULL, accept_all, NULL);
}

static int teardown(void **state)
{
    (void)state;
    atomic_store(&b.stop, true);
    pthread_join(b.thread, NULL);
    close(b.listener);
    return unlink(b.path);
}

static void whoever_is_not_let_in_is_told_what_to_do(void **state)
{
    (void)state;
    static const char *const names[] = {"t"};
    int32_t partitions;
    struct problems problems = {0}, warnings = {0};
    assert_int_equal(topics_ensure(&b.config, names, 1, 500, &partitions, &problems, &warnings),
                     TOPICS_UNREACHABLE);
    assert_int_equal(problems.count, 1);
    assert_non_null(strstr(problems.lines[0], "the user someone"));
    assert_non_null(strstr(problems.lines[0], "kafka.password_file"));
    assert_null(strstr(problems.lines[0], "wrong"));
    problems_release(&problems);
    set_password("right"); /* it is let in, and then gets no answer: that is no refusal */
    (void)topics_ensure(&b.config, names, 1, 500, &partitions, &problems, &warnings);
    assert_int_equal(problems.count, 0);
    assert_true(b.admitted > 0);
}

static bool turn_until_more(struct loop *loop, const _Atomic int *count, int64_t us)
{
    int before = atomic_load(count);
    for (int64_t until = clock_mono_us() + us; clock_mono_us() < until;) {
        loop_turn(loop, 10);
        if (atomic_load(count) > before)
            return true;
    }
    return false;
}

/* librdkafka tells of the second refusal half a minute after the first. */
static void a_password_that_is_mended_is_taken_without_a_restart(void **state)
{
    (void)state;
    struct loop *loop = loop_new();
    char *reason = NULL;
    struct publisher *publisher = publisher_new(loop, &b.config, metrics_shard_new(), &reason);
    assert_non_null(publisher);
    for (int i = 0; i < 3; i++)
        assert_true(turn_until_more(loop, &b.refused, 3000000));
    assert_int_equal(b.admitted, 0);
    set_password("right");
    assert_true(turn_until_more(loop, &b.admitted, 5000000));
    publisher_free(publisher);
    loop_free(loop);
}

static void other_errors_are_no_refusals(void **state)
{
    (void)state;
    assert_int_equal(topics_refusal_of(RD_KAFKA_RESP_ERR_NO_ERROR), REFUSAL_NONE);
    assert_int_equal(topics_refusal_of(RD_KAFKA_RESP_ERR__TRANSPORT), REFUSAL_NONE);
    assert_int_equal(topics_refusal_of(RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED),
                     REFUSAL_RIGHT);
    char text[256];
    topics_refusal_tell(&b.config, REFUSAL_RIGHT, "topic t: no", text, sizeof text);
    assert_non_null(strstr(text, "the user someone write: topic t: no; grant it Write"));
}

static void scram_of_an_old_library_is_named(void **state)
{
    (void)state;
    char text[1024];
    topics_refusal_tell(&b.config, REFUSAL_LOGIN, "no", text, sizeof text);
    assert_null(strstr(text, "librdkafka")); /* PLAIN */
    b.settings[1].value = (char[]){"SCRAM-SHA-512"};
    topics_refusal_tell(&b.config, REFUSAL_LOGIN, "no", text, sizeof text);
    assert_int_equal(strstr(text, "librdkafka 2.6.1") != NULL, rd_kafka_version() < 0x02060100);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(whoever_is_not_let_in_is_told_what_to_do),
        TEST(a_password_that_is_mended_is_taken_without_a_restart),
        TEST(other_errors_are_no_refusals),
        TEST(scram_of_an_old_library_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
