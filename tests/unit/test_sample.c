/* Raw requests from files: what is taken, and each way to be malformed. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "sample.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <unistd.h>

static struct sample sample;
static char bytes[8192];

/* NULL, or the reason; the request stands in `sample`. */
static const char *parse(struct slice text)
{
    const char *reason = NULL;
    assert_true(text.len < sizeof bytes);
    memcpy(bytes, text.ptr, text.len);
    return sample_parse(bytes, text.len, &sample, &reason) ? NULL : reason;
}

static void assert_slice(struct slice s, const char *text)
{
    assert_int_equal(s.len, strlen(text));
    assert_memory_equal(s.ptr, text, s.len);
}

static void takes_both_line_ends(void **state)
{
    (void)state;
    static const char *const requests[] = {
        "POST /a/b?c=d&e HTTP/1.1\nX-Mixed-CASE:  two words \t\nB:\n\nbody\r\n\r\n",
        "POST /a/b?c=d&e HTTP/1.1\r\nX-Mixed-CASE:  two words \t\r\nB:\r\n\r\nbody\r\n\r\n"};
    for (size_t i = 0; i < 2; i++) {
        assert_null(parse(slice_of(requests[i])));
        assert_slice(sample.in.method, "POST");
        assert_slice(sample.in.path, "/a/b");
        assert_slice(sample.in.query, "c=d&e");
        assert_int_equal(sample.in.header_count, 2);
        assert_slice(sample.in.headers[0].name, "x-mixed-case");
        assert_slice(sample.in.headers[0].value, "two words");
        assert_slice(sample.in.headers[1].value, "");
        assert_slice(sample.in.body, "body\r\n\r\n");
    }
}

static void body_may_hold_anything(void **state)
{
    (void)state;
    static const char request[] = "POST / HTTP/1.1\nContent-Length: 1\n\n\0#\n\xff";
    assert_null(parse((struct slice){request, sizeof request - 1}));
    assert_int_equal(sample.in.body.len, 4);
    assert_memory_equal(sample.in.body.ptr, "\0#\n\xff", 4);
}

static void notes_stand_before_the_request_line(void **state)
{
    (void)state;
    assert_null(parse(slice_of("# expect: accepted\n#now:5\n# A remark: no note\n#\n"
                               "GET / HTTP/1.0\n#x: header\n\n# expect: body\n")));
    assert_int_equal(sample.note_count, 2);
    assert_slice(sample_note(&sample, "expect"), "accepted");
    assert_slice(sample_note(&sample, "now"), "5");
    assert_null(sample_note(&sample, "secret").ptr);
    assert_slice(sample.in.headers[0].name, "#x");
}

static void malformed_is_told(void **state)
{
    (void)state;
    static const struct {
        const char *text, *reason;
    } cases[] = {
        {"", "there is no request line"},
        {"POST / HTTP/1.1", "there is no request line"},
        {"\n\n", "the request line is empty"},
        {"# expect: x\n", "there is no request line"},
        {"POST /\n\n", "the request line is not METHOD TARGET HTTP/1.1"},
        {"POST\n\n", "the request line is not METHOD TARGET HTTP/1.1"},
        {"POST / HTTP/2\n\n", "the version is neither HTTP/1.1 nor HTTP/1.0"},
        {"POST / HTTP/1.1 \n\n", "the version is neither HTTP/1.1 nor HTTP/1.0"},
        {"P(ST / HTTP/1.1\n\n", "the method is not a word"},
        {" / HTTP/1.1\n\n", "the method is not a word"},
        {"POST http://x/ HTTP/1.1\n\n", "the target does not begin with /"},
        {"POST  / HTTP/1.1\n\n", "the version is neither HTTP/1.1 nor HTTP/1.0"},
        {"POST /\r HTTP/1.1\n\n", "the request line holds a control character"},
        {"POST / HTTP/1.1\n", "the head does not end with an empty line"},
        {"POST / HTTP/1.1\nA: b", "the head does not end with an empty line"},
        {"POST / HTTP/1.1\nA: b\n c\n\n", "a header line is folded"},
        {"POST / HTTP/1.1\nA b\n\n", "a header line has no colon"},
        {"POST / HTTP/1.1\n: b\n\n",
         "a header's name is empty or holds a character that is not allowed"},
        {"POST / HTTP/1.1\nA : b\n\n",
         "a header's name is empty or holds a character that is not allowed"},
        {"POST / HTTP/1.1\nA: b\rc\n\n", "a header's value holds a control character"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *reason = parse(slice_of(cases[i].text));
        assert_non_null(reason);
        assert_string_equal(reason, cases[i].reason);
    }
    static const char nul[] = "POST / HTTP/1.1\nA: b\0c\n\n";
    assert_string_equal(parse((struct slice){nul, sizeof nul - 1}),
                        "a header's value holds a control character");
}

static void headers_are_bounded(void **state)
{
    (void)state;
    char text[4096] = "POST / HTTP/1.1\n";
    size_t len = strlen(text);
    for (int i = 0; i < INBOUND_MAX_HEADERS; i++)
        len += (size_t)snprintf(text + len, sizeof text - len, "A: b\n");
    snprintf(text + len, sizeof text - len, "\n");
    assert_null(parse(slice_of(text)));
    assert_int_equal(sample.in.header_count, INBOUND_MAX_HEADERS);
    snprintf(text + len, sizeof text - len, "A: b\n\n");
    assert_string_equal(parse(slice_of(text)), "there are more than 100 header lines");
}

static void loads_whole_files(void **state)
{
    (void)state;
    char path[] = "/tmp/sample-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    size_t want = 300001;
    char *written = xmalloc(want);
    memset(written, 'x', want);
    assert_int_equal(write(fd, written, want), want);
    close(fd);
    size_t len = 0;
    const char *reason = NULL;
    char *read = sample_load(path, &len, &reason);
    unlink(path);
    assert_non_null(read);
    assert_int_equal(len, want);
    assert_memory_equal(read, written, want);
    assert_int_equal(read[len], '\0');
    free(read);
    free(written);
    assert_null(sample_load(path, &len, &reason));
    assert_string_equal(reason, "there is no such file");
    assert_null(sample_load("/", &len, &reason));
    assert_string_equal(reason, "it can't be read");
}

static void origin_is_that_of_the_host(void **state)
{
    (void)state;
    char origin[SAMPLE_ORIGIN_MAX], request[SAMPLE_ORIGIN_MAX + 100];
    static const struct {
        const char *request, *origin;
    } cases[] = {
        {"POST / HTTP/1.1\nHost: hooks.example.com:8443\n\n", "https://hooks.example.com:8443"},
        {"POST / HTTP/1.1\n\n", ""},
        {"POST / HTTP/1.1\nHost:\n\n", ""},
        {"POST / HTTP/1.1\nHost: a\nHost: b\n\n", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_null(parse(slice_of(cases[i].request)));
        assert_string_equal(sample_origin(&sample, origin), cases[i].origin);
    }
    for (int len = 290; len < 294; len++) { /* with https:// and the NUL, 291 just fits */
        snprintf(request, sizeof request, "POST / HTTP/1.1\nHost: %0*d\n\n", len, 1);
        assert_null(parse(slice_of(request)));
        assert_int_equal(strlen(sample_origin(&sample, origin)), len <= 291 ? len + 8 : 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_both_line_ends),
        cmocka_unit_test(body_may_hold_anything),
        cmocka_unit_test(notes_stand_before_the_request_line),
        cmocka_unit_test(malformed_is_told),
        cmocka_unit_test(headers_are_bounded),
        cmocka_unit_test(loads_whole_files),
        cmocka_unit_test(origin_is_that_of_the_host),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
