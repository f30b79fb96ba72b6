/* Log lines read back through a pipe that stands for standard error. Hostile input is the point:
 * whatever a sender puts into a value, a line stays one line of valid JSON. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "log.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>
#include <yyjson.h>
/* cmocka.h needs those before it */
#include <cmocka.h>

static int saved_stderr, pipe_read;

static int redirect(void **state)
{
    (void)state;
    int fds[2];
    if (pipe(fds) != 0)
        return -1;
    saved_stderr = dup(STDERR_FILENO);
    dup2(fds[1], STDERR_FILENO);
    close(fds[1]);
    pipe_read = fds[0];
    fcntl(pipe_read, F_SETPIPE_SZ, 65536);
    log_set_level(LOG_INFO);
    return 0;
}

static int restore(void **state)
{
    (void)state;
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    close(pipe_read);
    return 0;
}

/* One line without its newline, parsed; fails the test when it is not valid JSON. */
static yyjson_doc *parse(const char *text, size_t len)
{
    yyjson_read_err err;
    yyjson_doc *doc = yyjson_read_opts((char *)(uintptr_t)text, len, 0, NULL, &err);
    if (doc == NULL)
        fail_msg("not JSON (%s): %.*s", err.msg, (int)len, text);
    return doc;
}

static yyjson_doc *read_line(void)
{
    char text[4096];
    ssize_t n = read(pipe_read, text, sizeof(text));
    assert_true(n > 1);
    assert_int_equal(text[n - 1], '\n');
    assert_ptr_equal(memchr(text, '\n', (size_t)n), text + n - 1);
    return parse(text, (size_t)n - 1);
}

static const char *text_of(yyjson_doc *doc, const char *key)
{
    return yyjson_get_str(yyjson_obj_get(yyjson_doc_get_root(doc), key));
}

static void log_value(struct slice value)
{
    struct log_line line;
    log_begin(&line, LOG_INFO, "test");
    log_slice(&line, "value", value);
    log_end(&line);
}

static void assert_value(struct slice value, const char *expected, size_t expected_len)
{
    log_value(value);
    yyjson_doc *doc = read_line();
    yyjson_val *got = yyjson_obj_get(yyjson_doc_get_root(doc), "value");
    assert_int_equal(yyjson_get_len(got), expected_len);
    assert_memory_equal(yyjson_get_str(got), expected, expected_len);
    yyjson_doc_free(doc);
}

#define BECOMES(in, out) assert_value(SLICE_LITERAL(in), out, sizeof(out) - 1)
#define FFFD "\xef\xbf\xbd"

static void test_head(void **state)
{
    (void)state;
    time_t before = time(NULL);
    log_event(LOG_WARNING, "store_lost", "lane %d", 3);
    yyjson_doc *doc = read_line();
    const char *ts = text_of(doc, "ts");
    struct tm tm = {0};
    const char *rest = strptime(ts, "%Y-%m-%dT%H:%M:%S", &tm);
    assert_non_null(rest);
    assert_int_equal(strlen(rest), 5); /* .123Z */
    assert_int_equal(rest[4], 'Z');
    assert_in_range(timegm(&tm), before, time(NULL));
    assert_string_equal(text_of(doc, "level"), "warning");
    assert_string_equal(text_of(doc, "event"), "store_lost");
    assert_string_equal(text_of(doc, "msg"), "lane 3");
    yyjson_doc_free(doc);
}

static void test_escapes(void **state)
{
    (void)state;
    BECOMES("", "");
    BECOMES("a\"b\\c/d", "a\"b\\c/d");
    BECOMES("\n\r\t\b\f\0\x01\x1f\x7f", "\n\r\t\b\f\0\x01\x1f\x7f");
    BECOMES("\xc2\x9b[31m", "\xc2\x9b[31m");
    BECOMES("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80",
            "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80");
}

static void test_invalid_utf8(void **state)
{
    (void)state;
    BECOMES("\xff", FFFD);
    BECOMES("a\xc3", "a" FFFD);
    BECOMES("\xc0\xaf", FFFD FFFD);          /* overlong */
    BECOMES("\xe0\x80\xaf", FFFD FFFD FFFD); /* overlong */
    BECOMES("\xf0\x8f\xbf\xbf", FFFD FFFD FFFD FFFD);
    BECOMES("\xed\xa0\x80", FFFD FFFD FFFD);          /* surrogate */
    BECOMES("\xf4\x90\x80\x80", FFFD FFFD FFFD FFFD); /* beyond U+10FFFF */
    BECOMES("\xf0\x9f\x98", FFFD FFFD FFFD);
    BECOMES("\x80x", FFFD "x");
}

/* A terminal that shows the log must not obey it. */
static void test_no_raw_controls(void **state)
{
    (void)state;
    char all[256], text[4096];
    for (int i = 0; i < 256; i++)
        all[i] = (char)i;
    log_value((struct slice){all, sizeof(all)});
    log_value(SLICE_LITERAL("\xc2\x9b[31m\x7f"));
    ssize_t n = read(pipe_read, text, sizeof(text));
    assert_true(n > 0);
    for (ssize_t i = 0; i < n; i++) {
        assert_true(text[i] == '\n' || (unsigned char)text[i] >= 0x20);
        assert_int_not_equal(text[i], 0x7f);
        assert_false((unsigned char)text[i] == 0xc2 && (unsigned char)text[i + 1] < 0xa0);
    }
}

static void test_numbers(void **state)
{
    (void)state;
    struct log_line line;
    log_begin(&line, LOG_INFO, "test");
    log_int(&line, "zero", 0);
    log_int(&line, "least", INT64_MIN);
    log_int(&line, "most", INT64_MAX);
    log_seconds(&line, "took", 1500001);
    log_seconds(&line, "short", 7);
    log_seconds(&line, "back", -1500000);
    log_text(&line, "none", NULL);
    log_end(&line);
    char text[1024];
    ssize_t n = read(pipe_read, text, sizeof(text) - 1);
    assert_true(n > 0);
    text[n] = '\0';
    assert_non_null(strstr(text, "\"zero\":0,\"least\":-9223372036854775808,"
                                 "\"most\":9223372036854775807,\"took\":1.500001,"
                                 "\"short\":0.000007,\"back\":-1.500000}\n"));
}

/* Every length around the limits, with characters that escaping makes longer. */
static void test_cut_lines_stay_valid(void **state)
{
    (void)state;
    static const char *const fillers[] = {"x", "\"", "\x01", "\xe2\x82\xac", "\xff"};
    char value[2400];
    for (size_t f = 0; f < sizeof(fillers) / sizeof(fillers[0]); f++) {
        size_t width = strlen(fillers[f]);
        for (size_t at = 0; at + width <= sizeof(value); at += width)
            memcpy(value + at, fillers[f], width);
        for (size_t len = 0; len < sizeof(value); len += len < 900 ? 37 : 1) {
            struct log_line line;
            log_begin(&line, LOG_INFO, "test");
            log_slice(&line, "a", (struct slice){value, len / 2});
            log_slice(&line, "b", (struct slice){value, len});
            log_int(&line, "n", INT64_MIN);
            log_slice(&line, "c", (struct slice){value, len});
            bool cut = line.cut;
            log_end(&line);
            assert_true(line.len <= sizeof(line.text));
            yyjson_doc *doc = read_line();
            assert_int_equal(yyjson_get_bool(yyjson_obj_get(yyjson_doc_get_root(doc), "cut")), cut);
            assert_true(len < 2000 || cut);
            yyjson_doc_free(doc);
        }
    }
}

/* A sender's long value must not push out what comes after it. */
static void test_long_value_leaves_room(void **state)
{
    (void)state;
    static char value[100000];
    memset(value, 'x', sizeof(value));
    struct log_line line;
    log_begin(&line, LOG_INFO, "delivery");
    log_slice(&line, "external_id", (struct slice){value, sizeof(value)});
    log_text(&line, "outcome", "accepted");
    log_end(&line);
    yyjson_doc *doc = read_line();
    assert_string_equal(text_of(doc, "outcome"), "accepted");
    assert_true(yyjson_get_bool(yyjson_obj_get(yyjson_doc_get_root(doc), "cut")));
    yyjson_doc_free(doc);
    log_event(LOG_INFO, "x", "%s%*s", "begins", 5000, "ends");
    doc = read_line();
    assert_memory_equal(text_of(doc, "msg"), "begins", 6);
    yyjson_doc_free(doc);
}

static void test_level(void **state)
{
    (void)state;
    log_set_level(LOG_ERROR);
    log_event(LOG_WARNING, "hidden", "x");
    log_event(LOG_ERROR, "shown", "x");
    yyjson_doc *doc = read_line();
    assert_string_equal(text_of(doc, "event"), "shown");
    yyjson_doc_free(doc);
}

#define WRITERS 4
#define LINES 2000

static void *write_lines(void *number)
{
    for (int i = 0; i < LINES; i++)
        log_event(LOG_INFO, number, "%d", i);
    return NULL;
}

static void *read_lines(void *ret_count)
{
    FILE *in = fdopen(dup(pipe_read), "r");
    int next[WRITERS] = {0}, *count = ret_count;
    char *text = NULL;
    size_t size = 0;
    ssize_t n;
    while (*count < WRITERS * LINES && (n = getline(&text, &size, in)) > 0) {
        yyjson_doc *doc = parse(text, (size_t)n - 1);
        int writer = text_of(doc, "event")[0] - '0';
        assert_int_equal(strtol(text_of(doc, "msg"), NULL, 10), next[writer]++);
        yyjson_doc_free(doc);
        (*count)++;
    }
    free(text);
    fclose(in);
    return NULL;
}

/* Through the writer thread: nothing lost, torn or out of order of its own thread. */
static void test_many_threads(void **state)
{
    (void)state;
    pthread_t threads[WRITERS], reader;
    static char names[WRITERS][2] = {"0", "1", "2", "3"};
    int count = 0;
    uint64_t dropped = log_dropped();
    log_start();
    pthread_create(&reader, NULL, read_lines, &count);
    for (size_t i = 0; i < WRITERS; i++)
        pthread_create(&threads[i], NULL, write_lines, names[i]);
    for (size_t i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    log_stop();
    assert_int_equal(log_dropped(), dropped);
    pthread_join(reader, NULL);
    assert_int_equal(count, WRITERS * LINES);
}

/* A reader that stalls: callers go on at once, lines are counted, and the gap is told. */
static void test_stalled_reader(void **state)
{
    (void)state;
    uint64_t before = log_dropped();
    log_start();
    int written = 0;
    char text[1000];
    memset(text, 'x', sizeof(text));
    while (log_dropped() == before && written < 100000) {
        log_value((struct slice){text, sizeof(text)});
        written++;
    }
    assert_true(log_dropped() > before);
    assert_in_range(written, 1000, 99999);

    FILE *in = fdopen(dup(pipe_read), "r");
    char *line = NULL;
    size_t size = 0;
    ssize_t n;
    bool told = false;
    int seen = 0;
    while (!told && (n = getline(&line, &size, in)) > 0) {
        yyjson_doc *doc = parse(line, (size_t)n - 1);
        told = strcmp(text_of(doc, "event"), "log_lines_dropped") == 0;
        seen += !told;
        yyjson_doc_free(doc);
    }
    assert_true(told);
    assert_true(seen > 0);
    free(line);
    /* The rest is drained so that the stop can end. */
    fcntl(pipe_read, F_SETFL, O_NONBLOCK);
    static char rest[1 << 22];
    while (poll(&(struct pollfd){.fd = pipe_read, .events = POLLIN}, 1, 200) > 0)
        if (read(pipe_read, rest, sizeof(rest)) <= 0)
            break;
    fclose(in);
    log_stop();
}

/* Standard error is gone: lines are counted as dropped, nobody dies or spins. */
static void test_closed_pipe(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    close(pipe_read);
    uint64_t before = log_dropped();
    log_event(LOG_INFO, "x", "nobody reads this");
    assert_int_equal(log_dropped(), before + 1);
    log_start();
    log_event(LOG_INFO, "x", "nor this");
    log_stop();
    assert_true(log_dropped() >= before + 2);
    pipe_read = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

/* Stopping ends although nobody reads, and later lines do not block either. Last: the log stays
 * stuck for good. */
static void test_stop_with_stalled_reader(void **state)
{
    (void)state;
    char text[1000];
    memset(text, 'x', sizeof(text));
    log_start();
    for (int i = 0; i < 500; i++)
        log_value((struct slice){text, sizeof(text)});
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    log_stop();
    clock_gettime(CLOCK_MONOTONIC, &to);
    assert_in_range(to.tv_sec - from.tv_sec, 0, 5);
    uint64_t before = log_dropped();
    log_event(LOG_INFO, "x", "late");
    assert_int_equal(log_dropped(), before + 1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, redirect, restore)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_head),
        TEST(test_escapes),
        TEST(test_invalid_utf8),
        TEST(test_no_raw_controls),
        TEST(test_numbers),
        TEST(test_cut_lines_stay_valid),
        TEST(test_long_value_leaves_room),
        TEST(test_level),
        TEST(test_many_threads),
        TEST(test_stalled_reader),
        TEST(test_closed_pipe),
        TEST(test_stop_with_stalled_reader),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
