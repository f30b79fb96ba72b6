/* The reader of raw HTTP/1.1 requests behind sample.h: strict about the head, blind to the body.
 * It is not the edge's parser (that is libh2o's); it makes the same struct inbound for the same
 * bytes, so that a request that was saved to a file goes through the very steps of the edge. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "sample.h"

#include <errno.h>
#include <stdio.h>

static bool is_token_char(char c)
{
    /* RFC 9110 5.6.2 */
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static bool is_token(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        if (!is_token_char(s.ptr[i]))
            return false;
    }
    return s.len > 0;
}

static bool has_control(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        if (((unsigned char)s.ptr[i] < 0x20 && s.ptr[i] != '\t') || s.ptr[i] == 0x7f)
            return true;
    }
    return false;
}

/* Takes the next line, without its end, off *rest; false when no line end is left. */
static bool take_line(struct slice *rest, struct slice *ret_line)
{
    const char *end = rest->len > 0 ? memchr(rest->ptr, '\n', rest->len) : NULL;
    if (end == NULL)
        return false;
    struct slice line = {rest->ptr, (size_t)(end - rest->ptr)};
    *rest = slice_from(*rest, line.len + 1);
    if (line.len > 0 && line.ptr[line.len - 1] == '\r')
        line.len--;
    *ret_line = line;
    return true;
}

static void read_note(struct slice line, struct sample *ret)
{
    struct slice text = slice_trim(slice_from(line, 1));
    size_t len = 0;
    while (len < text.len && ((text.ptr[len] >= 'a' && text.ptr[len] <= 'z') ||
                              text.ptr[len] == '_' || text.ptr[len] == '-'))
        len++;
    if (len == 0 || len == text.len || text.ptr[len] != ':')
        return;
    if (ret->note_count == SAMPLE_MAX_NOTES)
        return;
    ret->notes[ret->note_count++] = (struct sample_note){
        .key = {text.ptr, len}, .value = slice_trim(slice_from(text, len + 1))};
}

static const char *read_request_line(struct slice line, struct inbound *in)
{
    if (has_control(line) || memchr(line.ptr, '\t', line.len) != NULL)
        return "the request line holds a control character";
    const char *first = memchr(line.ptr, ' ', line.len);
    if (first == NULL)
        return "the request line is not METHOD TARGET HTTP/1.1";
    in->method = (struct slice){line.ptr, (size_t)(first - line.ptr)};
    struct slice rest = slice_from(line, in->method.len + 1);
    const char *second = rest.len > 0 ? memchr(rest.ptr, ' ', rest.len) : NULL;
    if (second == NULL)
        return "the request line is not METHOD TARGET HTTP/1.1";
    struct slice target = {rest.ptr, (size_t)(second - rest.ptr)};
    struct slice version = slice_from(rest, target.len + 1);
    if (!is_token(in->method))
        return "the method is not a word";
    if (!slice_is(version, "HTTP/1.1") && !slice_is(version, "HTTP/1.0"))
        return "the version is neither HTTP/1.1 nor HTTP/1.0";
    if (target.len == 0 || target.ptr[0] != '/')
        return "the target does not begin with /";

    in->path = target;
    in->query = slice_from(target, target.len);
    const char *mark = memchr(target.ptr, '?', target.len);
    if (mark != NULL) {
        in->path.len = (size_t)(mark - target.ptr);
        in->query = slice_from(target, in->path.len + 1);
    }
    return NULL;
}

/* `line` lies in `bytes`, where its name is lowered. */
static const char *read_header(char *bytes, struct slice line, struct inbound *in)
{
    if (line.ptr[0] == ' ' || line.ptr[0] == '\t')
        return "a header line is folded";
    const char *colon = memchr(line.ptr, ':', line.len);
    if (colon == NULL)
        return "a header line has no colon";
    struct slice name = {line.ptr, (size_t)(colon - line.ptr)};
    if (!is_token(name))
        return "a header's name is empty or holds a character that is not allowed";
    struct slice value = slice_trim(slice_from(line, name.len + 1));
    if (has_control(value))
        return "a header's value holds a control character";
    if (in->header_count == INBOUND_MAX_HEADERS)
        return "there are more than 100 header lines";

    char *mutable_name = bytes + (name.ptr - bytes);
    for (size_t i = 0; i < name.len; i++) {
        if (mutable_name[i] >= 'A' && mutable_name[i] <= 'Z')
            mutable_name[i] = (char)(mutable_name[i] - 'A' + 'a');
    }
    in->headers[in->header_count++] = (struct inbound_header){name, value};
    return NULL;
}

bool sample_parse(char *bytes, size_t len, struct sample *ret, const char **ret_reason)
{
    *ret = (struct sample){0};
    struct slice rest = {bytes, len};
    struct slice line;
    do {
        if (!take_line(&rest, &line)) {
            *ret_reason = "there is no request line";
            return false;
        }
        if (line.len > 0 && line.ptr[0] == '#')
            read_note(line, ret);
    } while (line.len > 0 && line.ptr[0] == '#');

    const char *reason =
        line.len > 0 ? read_request_line(line, &ret->in) : "the request line is empty";
    while (reason == NULL) {
        if (!take_line(&rest, &line)) {
            reason = "the head does not end with an empty line";
            break;
        }
        if (line.len == 0) {
            ret->in.body = rest;
            return true;
        }
        reason = read_header(bytes, line, &ret->in);
    }
    *ret_reason = reason;
    return false;
}

const char *sample_origin(const struct sample *sample, char buf[SAMPLE_ORIGIN_MAX])
{
    static const struct slice scheme = {"https://", 8};
    struct slice host = {"", 0};
    buf[0] = '\0';
    if (inbound_header_find(&sample->in, "host", &host) != 1 || host.len == 0 ||
        scheme.len + host.len >= SAMPLE_ORIGIN_MAX)
        return buf;
    memcpy(buf, scheme.ptr, scheme.len);
    memcpy(buf + scheme.len, host.ptr, host.len);
    buf[scheme.len + host.len] = '\0';
    return buf;
}

struct slice sample_note(const struct sample *sample, const char *key)
{
    for (size_t i = 0; i < sample->note_count; i++) {
        if (slice_is(sample->notes[i].key, key))
            return sample->notes[i].value;
    }
    return (struct slice){NULL, 0};
}

static char *read_all(FILE *file, size_t *ret_len, const char **ret_reason)
{
    size_t len = 0, size = 64u << 10;
    char *bytes = xmalloc(size);
    size_t got;
    while ((got = fread(bytes + len, 1, size - 1 - len, file)) > 0) {
        len += got;
        if (len > SAMPLE_MAX_BYTES) {
            *ret_reason = "it is larger than 16 MiB";
            free(bytes);
            return NULL;
        }
        if (len == size - 1)
            bytes = xrealloc(bytes, size *= 2);
    }
    if (ferror(file)) {
        *ret_reason = "it can't be read";
        free(bytes);
        return NULL;
    }
    bytes[len] = '\0';
    *ret_len = len;
    return bytes;
}

char *sample_load(const char *path, size_t *ret_len, const char **ret_reason)
{
    if (strcmp(path, "-") == 0)
        return read_all(stdin, ret_len, ret_reason);
    FILE *file = fopen(path, "rbe");
    if (file == NULL) {
        *ret_reason = errno == ENOENT ? "there is no such file" : "it can't be opened";
        return NULL;
    }
    char *bytes = read_all(file, ret_len, ret_reason);
    fclose(file);
    return bytes;
}
