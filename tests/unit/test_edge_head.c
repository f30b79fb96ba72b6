/* The strict reading of a head: what may pass, and each shape that two readers could take for two
 * things. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "edge_head.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#define LINE "POST /webhooks/zoom HTTP/1.1\r\n"
#define HOST "host: a\r\n"

static const char *check(const char *text, size_t len, size_t *ret_len)
{
    char *exact = malloc(len ? len : 1); /* so that a byte too far is seen */
    memcpy(exact, text, len);
    const char *wrong = edge_head_check((struct slice){exact, len}, ret_len);
    free(exact);
    return wrong;
}

static void test_sound(void **state)
{
    (void)state;
    static const char *const heads[] = {
        LINE HOST "\r\n",
        LINE "Host: example.com:8443\r\nContent-Length: 5\r\n\r\n",
        LINE "HOST: [::1]:8443\r\nTransfer-Encoding: Chunked\r\n\r\n",
        LINE HOST "content-length:0005 \r\nx-empty:\r\nx-tab: a\tb\r\n\r\n",
        LINE HOST "x-latin: \xc3\xa4\xff\r\n\r\n",
        "POST / HTTP/1.0\r\n\r\n",
        "\r\n" LINE HOST "\r\n",
        "M-SEARCH * HTTP/1.1\r\n" HOST "\r\n",
    };
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        char text[512];
        size_t len = 0, head = strlen(heads[i]);
        snprintf(text, sizeof text, "%sbody\n\r\n\r\n", heads[i]);
        const char *wrong = check(text, strlen(text), &len);
        if (wrong)
            print_error("%s: %s\n", heads[i], wrong);
        assert_null(wrong);
        assert_int_equal(len, head);
    }
}

struct shape {
    const char *head, *wrong;
};

static const struct shape shapes[] = {
    {LINE HOST "content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
     "Content-Length beside Transfer-Encoding"},
    {LINE HOST "transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n",
     "Content-Length beside Transfer-Encoding"},
    {LINE HOST "content-length: 5\r\ncontent-length: 6\r\n\r\n", "more than one Content-Length"},
    {LINE HOST "content-length: 5\r\nCONTENT-LENGTH: 5\r\n\r\n", "more than one Content-Length"},
    {LINE HOST "content-length: 5, 5\r\n\r\n", "Content-Length is not a number"},
    {LINE HOST "content-length: +5\r\n\r\n", "Content-Length is not a number"},
    {LINE HOST "content-length:\r\n\r\n", "Content-Length is not a number"},
    {LINE HOST "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
     "more than one Transfer-Encoding"},
    {LINE HOST "transfer-encoding: gzip, chunked\r\n\r\n",
     "another Transfer-Encoding than chunked"},
    {LINE HOST "transfer-encoding: chunked, chunked\r\n\r\n",
     "another Transfer-Encoding than chunked"},
    {LINE HOST "transfer-encoding: xchunked\r\n\r\n", "another Transfer-Encoding than chunked"},
    {LINE HOST "transfer-encoding: \vchunked\r\n\r\n", "a header value holds a control character"},
    {"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n", "Transfer-Encoding in HTTP/1.0"},
    {LINE "\r\n", "no Host"},
    {LINE HOST HOST "\r\n", "more than one Host"},
    {LINE "host: a, b\r\n\r\n", "Host is malformed"},
    {LINE "host: user@a\r\n\r\n", "Host is malformed"},
    {LINE "host: a/b\r\n\r\n", "Host is malformed"},
    {LINE "host:\r\n\r\n", "Host is malformed"},
    {LINE HOST "x: a\r\n b\r\n\r\n", "a header line is folded"},
    {LINE HOST "content-length: 5\r\n\t6\r\n\r\n", "a header line is folded"},
    {LINE " x: a\r\n" HOST "\r\n", "a header line is folded"},
    {LINE HOST "content-length : 5\r\n\r\n", "a header name is malformed"},
    {LINE HOST "content\x7flength: 5\r\n\r\n", "a header name is malformed"},
    {LINE HOST ": 5\r\n\r\n", "a header name is malformed"},
    {LINE HOST "nonsense\r\n\r\n", "a header name is malformed"},
    {LINE HOST "x: a\rb\r\n\r\n", "a header value holds a control character"},
    {LINE HOST "x: a\n\r\n", "a line ends in a bare line feed"},
    {LINE HOST "x: a\r\n\n", "a line ends in a bare line feed"},
    {"POST / HTTP/1.1\n" HOST "\r\n", "a line ends in a bare line feed"},
    {"\n" LINE HOST "\r\n", "a line ends in a bare line feed"},
    {"POST  / HTTP/1.1\r\n" HOST "\r\n", "the request line is malformed"},
    {"POST / / HTTP/1.1\r\n" HOST "\r\n", "another version than HTTP/1.1"},
    {"POST\t/\tHTTP/1.1\r\n" HOST "\r\n", "the request line is malformed"},
    {"P@ST / HTTP/1.1\r\n" HOST "\r\n", "the request line is malformed"},
    {"POST /\xc3\xa4 HTTP/1.1\r\n" HOST "\r\n", "the request line is malformed"},
    {"POST / HTTP/1.2\r\n" HOST "\r\n", "another version than HTTP/1.1"},
    {"POST / HTTP/2.0\r\n" HOST "\r\n", "another version than HTTP/1.1"},
    {"POST / HTTP/1.1 \r\n" HOST "\r\n", "another version than HTTP/1.1"},
    {"POST /\r\n" HOST "\r\n", "the request line is malformed"},
    {LINE HOST, "the head has no end"},
    {LINE, "the head has no end"},
    {"\r\n", "the head has no end"},
    {"", "the head has no end"},
};

static void test_ambiguous(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        size_t len = 0;
        const char *wrong = check(shapes[i].head, strlen(shapes[i].head), &len);
        if (wrong == NULL || strcmp(wrong, shapes[i].wrong) != 0)
            print_error("%s: %s\n", shapes[i].head, wrong ? wrong : "passes");
        assert_non_null(wrong);
        assert_string_equal(wrong, shapes[i].wrong);
        assert_true(len <= strlen(shapes[i].head));
    }
}

/* Every byte at every place of a short request: what passes has exactly one end, the first empty
 * line, and no byte that a line could be cut at. */
static void test_every_byte(void **state)
{
    (void)state;
    static const char sound[] = LINE HOST "content-length: 12\r\n\r\n";
    for (size_t at = 0; at < sizeof sound - 1; at++) {
        for (int byte = 0; byte < 256; byte++) {
            char text[sizeof sound];
            memcpy(text, sound, sizeof sound);
            text[at] = (char)byte;
            size_t len = 0;
            if (check(text, sizeof sound - 1, &len) != NULL)
                continue;
            const char *end = strstr(text + 2, "\r\n\r\n");
            assert_non_null(end);
            assert_int_equal(len, (size_t)(end - text) + 4);
            for (size_t i = 0; i < len; i++) {
                assert_false(text[i] == '\n' && (i == 0 || text[i - 1] != '\r'));
                assert_false(text[i] == '\r' && text[i + 1] != '\n');
                assert_int_not_equal(text[i], 0);
            }
        }
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sound),
        cmocka_unit_test(test_ambiguous),
        cmocka_unit_test(test_every_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
