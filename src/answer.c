/* The parser behind answer.h. Strict where leniency could join two answers: a length must be plain
 * digits and tell the same when it comes twice, chunked must be the only coding. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "answer.h"

#include <stdint.h>

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Digits only, at most ANSWER_BODY_MAX. */
static bool parse_length(struct slice text, size_t *ret)
{
    if (text.len == 0)
        return false;
    size_t value = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (!is_digit(text.ptr[i]))
            return false;
        value = value * 10 + (size_t)(text.ptr[i] - '0');
        if (value > ANSWER_BODY_MAX)
            return false;
    }
    *ret = value;
    return true;
}

static bool parse_header(struct answer *answer, struct slice line, bool *has_length)
{
    const char *colon = memchr(line.ptr, ':', line.len);
    if (colon == NULL || colon == line.ptr)
        return false;
    struct slice name = {line.ptr, (size_t)(colon - line.ptr)};
    struct slice value = slice_trim(slice_from(line, name.len + 1));
    if (slice_is_nocase(name, "content-length")) {
        size_t length;
        if (!parse_length(value, &length) || (*has_length && length != answer->length))
            return false;
        answer->length = length;
        *has_length = true;
    } else if (slice_is_nocase(name, "transfer-encoding")) {
        if (!slice_is_nocase(value, "chunked") || answer->framing == FRAMING_CHUNKED)
            return false;
        answer->framing = FRAMING_CHUNKED;
    } else if (slice_is_nocase(name, "connection") && slice_is_nocase(value, "close")) {
        answer->close = true;
    }
    return true;
}

static bool parse_status(struct answer *answer, struct slice line)
{
    if (!slice_starts(line, SLICE_LITERAL("HTTP/1.")) || line.len < 12 || line.ptr[8] != ' ' ||
        !is_digit(line.ptr[9]) || !is_digit(line.ptr[10]) || !is_digit(line.ptr[11]) ||
        (line.len > 12 && line.ptr[12] != ' '))
        return false;
    answer->status = (line.ptr[9] - '0') * 100 + (line.ptr[10] - '0') * 10 + (line.ptr[11] - '0');
    answer->close = line.ptr[7] != '1'; /* HTTP/1.0 closes */
    return answer->status >= 100;
}

/* The head is there as a whole: `head` ends with the empty line. */
static bool parse_head(struct answer *answer, struct slice head)
{
    bool has_length = false;
    bool first = true;
    while (head.len > 2) {
        const char *end = memmem(head.ptr, head.len, "\r\n", 2);
        if (end == NULL)
            return false;
        struct slice line = {head.ptr, (size_t)(end - head.ptr)};
        if (first ? !parse_status(answer, line) : !parse_header(answer, line, &has_length))
            return false;
        first = false;
        head = slice_from(head, line.len + 2);
    }
    if (first)
        return false;
    if (answer->status < 200 || answer->status == 204 || answer->status == 304) {
        answer->framing = FRAMING_LENGTH;
        answer->length = 0;
        return answer->status != 101;
    }
    if (answer->framing == FRAMING_CHUNKED)
        return !has_length; /* both is what smuggling looks like */
    if (!has_length) {
        answer->framing = FRAMING_UNTIL_CLOSE;
        answer->close = true;
    }
    return true;
}

static bool parse_chunk_size(struct slice line, size_t *ret)
{
    size_t value = 0, digits = 0;
    for (; digits < line.len; digits++) {
        char c = line.ptr[digits];
        char lower = (char)(c | 0x20);
        if (is_digit(c))
            value = value * 16 + (size_t)(c - '0');
        else if (lower >= 'a' && lower <= 'f')
            value = value * 16 + (size_t)(lower - 'a' + 10);
        else
            break;
        if (value > ANSWER_BODY_MAX)
            return false;
    }
    *ret = value;
    return digits > 0 && (digits == line.len || line.ptr[digits] == ';' ||
                          line.ptr[digits] == ' ' || line.ptr[digits] == '\t');
}

static enum answer_state feed_chunks(struct answer *answer, char *buf, size_t *len)
{
    for (;;) {
        char *at = buf + answer->raw;
        size_t left = *len - answer->raw;
        const char *end = memmem(at, left, "\r\n", 2);
        if (end == NULL)
            return left > ANSWER_HEAD_MAX ? ANSWER_BAD : ANSWER_MORE;
        struct slice line = {at, (size_t)(end - at)};
        if (answer->trailers) {
            answer->raw += line.len + 2;
            if (line.len == 0)
                return ANSWER_WHOLE;
            continue;
        }
        size_t size;
        if (!parse_chunk_size(line, &size) || answer->body_len + size > ANSWER_BODY_MAX)
            return ANSWER_BAD;
        if (size == 0) {
            answer->trailers = true;
            answer->raw += line.len + 2;
            continue;
        }
        if (left < line.len + 2 + size + 2)
            return ANSWER_MORE;
        const char *data = at + line.len + 2;
        if (memcmp(data + size, "\r\n", 2) != 0)
            return ANSWER_BAD;
        memmove(buf + answer->head_len + answer->body_len, data, size);
        answer->body_len += size;
        answer->raw += line.len + 2 + size + 2;
    }
}

static enum answer_state feed_body(struct answer *answer, char *buf, size_t *len, bool ended)
{
    size_t got = *len - answer->head_len;
    enum answer_state state = ANSWER_MORE;
    size_t end = *len;
    switch (answer->framing) {
    case FRAMING_LENGTH:
        if (got >= answer->length) {
            answer->body_len = answer->length;
            end = answer->head_len + answer->length;
            state = ANSWER_WHOLE;
        }
        break;
    case FRAMING_UNTIL_CLOSE:
        answer->body_len = got;
        state = got > ANSWER_BODY_MAX ? ANSWER_BAD : ended ? ANSWER_WHOLE : ANSWER_MORE;
        break;
    case FRAMING_CHUNKED:
        state = feed_chunks(answer, buf, len);
        end = answer->raw;
        break;
    }
    if (state == ANSWER_WHOLE && end < *len)
        answer->close = true; /* bytes that nobody asked for */
    return state;
}

enum answer_state answer_feed(struct answer *answer, char *buf, size_t *len, bool ended)
{
    while (answer->head_len == 0) {
        const char *end = memmem(buf, *len, "\r\n\r\n", 4);
        if (end == NULL)
            return *len > ANSWER_HEAD_MAX ? ANSWER_BAD : ANSWER_MORE;
        size_t head_len = (size_t)(end - buf) + 4;
        if (head_len > ANSWER_HEAD_MAX || !parse_head(answer, (struct slice){buf, head_len}))
            return ANSWER_BAD;
        if (answer->status < 200) {
            *len -= head_len;
            memmove(buf, buf + head_len, *len);
            *answer = (struct answer){0};
            continue;
        }
        answer->head_len = answer->raw = head_len;
    }
    return feed_body(answer, buf, len, ended);
}
