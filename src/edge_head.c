/* The strict second reading of a request's head. Called by edge.c for each request that libh2o has
 * parsed, on the bytes as they came. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "edge_head.h"

struct head {
    size_t lengths, codings, hosts;
    bool http10;
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* RFC 9110 5.6.2: what names and methods are made of. */
static bool is_token(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        bool alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c);
        if (!alnum && (c == '\0' || strchr("!#$%&'*+-.^_`|~", c) == NULL))
            return false;
    }
    return s.len > 0;
}

/* Everything but control characters; bytes above ASCII may be there (RFC 9110 5.5). */
static bool is_value(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if ((c < ' ' && c != '\t') || c == 0x7f)
            return false;
    }
    return true;
}

static bool is_visible(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] <= ' ' || s.ptr[i] >= 0x7f)
            return false;
    return s.len > 0;
}

/* Takes one line off `rest`, without its CRLF. */
static const char *take_line(struct slice *rest, struct slice *ret_line)
{
    const char *feed = rest->len > 0 ? memchr(rest->ptr, '\n', rest->len) : NULL;
    if (feed == NULL)
        return "the head has no end";
    size_t len = (size_t)(feed - rest->ptr);
    if (len == 0 || feed[-1] != '\r')
        return "a line ends in a bare line feed";
    *ret_line = (struct slice){rest->ptr, len - 1};
    *rest = slice_from(*rest, len + 1);
    return NULL;
}

/* Up to the first `mark`, which is taken off as well. */
static bool take_word(struct slice *rest, char mark, struct slice *ret_word)
{
    const char *end = rest->len > 0 ? memchr(rest->ptr, mark, rest->len) : NULL;
    if (end == NULL)
        return false;
    *ret_word = (struct slice){rest->ptr, (size_t)(end - rest->ptr)};
    *rest = slice_from(*rest, ret_word->len + 1);
    return true;
}

static const char *check_request_line(struct head *head, struct slice line)
{
    struct slice method, target;
    if (!take_word(&line, ' ', &method) || !is_token(method) || !take_word(&line, ' ', &target) ||
        !is_visible(target))
        return "the request line is malformed";
    head->http10 = slice_is(line, "HTTP/1.0");
    return head->http10 || slice_is(line, "HTTP/1.1") ? NULL : "another version than HTTP/1.1";
}

/* host[:port] in plain characters (RFC 3986 3.2.2): no user, path, list or blank. */
static bool is_host(struct slice value)
{
    for (size_t i = 0; i < value.len; i++)
        if (value.ptr[i] == '\0' || strchr("/\\@?#,; \t\"<>^`{|}", value.ptr[i]) != NULL)
            return false;
    return is_visible(value);
}

static bool is_number(struct slice value)
{
    for (size_t i = 0; i < value.len; i++)
        if (!is_digit(value.ptr[i]))
            return false;
    return value.len > 0;
}

static const char *check_framing(struct head *head, struct slice name, struct slice value)
{
    if (slice_is_nocase(name, "content-length")) {
        head->lengths++;
        if (!is_number(value))
            return "Content-Length is not a number";
    } else if (slice_is_nocase(name, "transfer-encoding")) {
        head->codings++;
        if (!slice_is_nocase(value, "chunked"))
            return "another Transfer-Encoding than chunked";
    } else if (slice_is_nocase(name, "host")) {
        head->hosts++;
        if (!is_host(value))
            return "Host is malformed";
    }
    return NULL;
}

static const char *check_header_line(struct head *head, struct slice line)
{
    struct slice name;
    if (line.ptr[0] == ' ' || line.ptr[0] == '\t')
        return "a header line is folded";
    if (!take_word(&line, ':', &name) || !is_token(name))
        return "a header name is malformed";
    if (!is_value(line))
        return "a header value holds a control character";
    return check_framing(head, name, slice_trim(line));
}

static const char *check_whole(const struct head *head)
{
    if (head->lengths > 1)
        return "more than one Content-Length";
    if (head->codings > 1)
        return "more than one Transfer-Encoding";
    if (head->lengths > 0 && head->codings > 0)
        return "Content-Length beside Transfer-Encoding";
    if (head->codings > 0 && head->http10)
        return "Transfer-Encoding in HTTP/1.0";
    if (head->hosts > 1)
        return "more than one Host";
    if (head->hosts == 0 && !head->http10)
        return "no Host";
    return NULL;
}

const char *edge_head_check(struct slice bytes, size_t *ret_len)
{
    struct slice rest = bytes, line;
    struct head head = {0};
    if (slice_starts(rest, SLICE_LITERAL("\r\n"))) /* old clients end a body so; libh2o skips it */
        rest = slice_from(rest, 2);
    const char *wrong = take_line(&rest, &line);
    if (wrong == NULL)
        wrong = check_request_line(&head, line);
    while (wrong == NULL) {
        wrong = take_line(&rest, &line);
        if (wrong == NULL && line.len == 0)
            break;
        if (wrong == NULL)
            wrong = check_header_line(&head, line);
    }
    *ret_len = bytes.len - rest.len;
    return wrong ? wrong : check_whole(&head);
}
