/* The bounded JSON reader behind json.h, over yyjson. Numbers stay the text they were sent as, so
 * that no id passes through a double; the memory of one document is mapped once per reader and
 * touched only as far as documents need it. Called by delivery.c, extract.c, freshness.c and
 * challenge.c, for bodies whose signature has matched, and by verify.c for those that carry their
 * credential inside. Thread: the reader's own. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "json.h"

#include "codec.h"

#include <stdbool.h>
#include <sys/mman.h>
#include <yyjson.h>

#define JSON_READER_MAGIC 0x6a736f6eu
#define POOL_EXTRA 65536

struct json {
    yyjson_val *root;
    bool mended; /* U+FFFD stands where half a surrogate pair was */
};

struct json_reader {
    unsigned magic;
    size_t max_body;
    void *pool;
    size_t pool_size;
    struct json json;
};

struct json_reader *json_reader_new(size_t max_body)
{
    size_t need = yyjson_read_max_memory_usage(max_body, YYJSON_READ_NUMBER_AS_RAW);
    assert(need > 0 && need < SIZE_MAX - POOL_EXTRA);
    struct json_reader *reader = xcalloc(1, sizeof *reader);
    reader->magic = JSON_READER_MAGIC;
    reader->max_body = max_body;
    reader->pool_size = need + POOL_EXTRA;
    reader->pool = mmap(NULL, reader->pool_size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (reader->pool == MAP_FAILED)
        abort();
    return reader;
}

void json_reader_free(struct json_reader *reader)
{
    if (reader == NULL)
        return;
    CHECK_OBJ(reader, JSON_READER_MAGIC);
    munmap(reader->pool, reader->pool_size);
    reader->magic = 0;
    free(reader);
}

/* Values lie in one array, each container before what it holds and knowing where it ends, so one
 * pass with the ends of the open containers tells the depth; nothing recurses. */
static bool is_too_deep(yyjson_val *root)
{
    const yyjson_val *ends[JSON_MAX_DEPTH];
    size_t depth = 0;
    yyjson_val *end = unsafe_yyjson_get_next(root);
    for (yyjson_val *val = root; val < end; val++) {
        while (depth > 0 && val >= ends[depth - 1])
            depth--;
        if (!unsafe_yyjson_is_ctn(val))
            continue;
        if (depth == JSON_MAX_DEPTH)
            return true;
        ends[depth++] = unsafe_yyjson_get_next(val);
    }
    return false;
}

/* The code unit that a \uXXXX at `at` stands for; 0 where none stands. */
static unsigned escaped_unit(const char *at, const char *end)
{
    unsigned char bytes[2];
    size_t len;
    if (end - at < 6 || at[0] != '\\' || at[1] != 'u' ||
        !codec_decode_hex((struct slice){at + 2, 4}, CODEC_ANY_HEX, bytes, sizeof bytes, &len))
        return 0;
    return (unsigned)bytes[0] << 8 | bytes[1];
}

/* Writes \ufffd over each escape of half a surrogate pair; false when there is none. Strings need
 * not be told from the rest: a backslash outside of them is no JSON, whatever follows it. */
static bool replace_lone_surrogates(char *bytes, size_t len)
{
    const char *end = bytes + len;
    bool any = false;
    for (char *at = bytes; at < end && (at = memchr(at, '\\', (size_t)(end - at))) != NULL;) {
        unsigned unit = escaped_unit(at, end);
        if ((unit & 0xfc00) == 0xd800 && (escaped_unit(at + 6, end) & 0xfc00) == 0xdc00) {
            at += 12;
        } else if ((unit & 0xf800) == 0xd800) {
            memcpy(at + 2, "fffd", 4);
            any = true;
            at += 6;
        } else {
            at += 2;
        }
    }
    return any;
}

/* A text that was cut inside an emoji ends in half a surrogate pair: RFC 8259 section 8.2 lets a
 * sender write that, yyjson refuses it. So a copy without is read, which takes no more of the pool
 * than the copy that yyjson makes of other bodies. NULL when that is not what is wrong. */
static yyjson_doc *read_mended(struct slice body, yyjson_alc *alc)
{
    char *copy = alc->malloc(alc->ctx, body.len + YYJSON_PADDING_SIZE);
    if (copy == NULL)
        abort();
    memcpy(copy, body.ptr, body.len);
    memset(copy + body.len, 0, YYJSON_PADDING_SIZE);
    if (!replace_lone_surrogates(copy, body.len))
        return NULL;
    return yyjson_read_opts(copy, body.len, YYJSON_READ_NUMBER_AS_RAW | YYJSON_READ_INSITU, alc,
                            NULL);
}

/* A pool made anew forgets the document before. */
static void forget(struct json_reader *reader, yyjson_alc *alc)
{
    if (!yyjson_alc_pool_init(alc, reader->pool, reader->pool_size))
        abort();
}

enum outcome json_read(struct json_reader *reader, struct slice body, const struct json **ret_json)
{
    CHECK_OBJ(reader, JSON_READER_MAGIC);
    if (body.len == 0 || body.len > reader->max_body)
        return OUTCOME_BAD_JSON;
    yyjson_alc alc;
    forget(reader, &alc);
    /* The bytes are copied, not changed, as YYJSON_READ_INSITU is not set. */
    char *bytes = (char *)(uintptr_t)body.ptr;
    yyjson_doc *doc = yyjson_read_opts(bytes, body.len, YYJSON_READ_NUMBER_AS_RAW, &alc, NULL);
    reader->json.mended = doc == NULL;
    if (doc == NULL) {
        forget(reader, &alc);
        doc = read_mended(body, &alc);
    }
    if (doc == NULL)
        return OUTCOME_BAD_JSON;
    reader->json.root = yyjson_doc_get_root(doc);
    if (is_too_deep(reader->json.root))
        return OUTCOME_JSON_TOO_DEEP;
    *ret_json = &reader->json;
    return OUTCOME_NONE;
}

/* Does the token of a pointer, in which ~1 means / and ~0 means ~, name this key? */
static bool token_is(struct slice token, const char *key, size_t key_len)
{
    size_t at = 0;
    for (size_t i = 0; i < token.len; i++, at++) {
        char c = token.ptr[i];
        if (c == '~') {
            if (++i == token.len || (token.ptr[i] != '0' && token.ptr[i] != '1'))
                return false;
            c = token.ptr[i] == '0' ? '~' : '/';
        }
        if (at == key_len || key[at] != c)
            return false;
    }
    return at == key_len;
}

/* Looks at every key: what comes twice means one thing to us and another to somebody else. */
static enum json_found find_member(yyjson_val *object, struct slice token, yyjson_val **ret)
{
    *ret = NULL;
    yyjson_obj_iter iter = yyjson_obj_iter_with(object);
    for (yyjson_val *key = yyjson_obj_iter_next(&iter); key != NULL;
         key = yyjson_obj_iter_next(&iter)) {
        if (!token_is(token, unsafe_yyjson_get_str(key), unsafe_yyjson_get_len(key)))
            continue;
        if (*ret != NULL)
            return JSON_REPEATED;
        *ret = yyjson_obj_iter_get_val(key);
    }
    return *ret != NULL ? JSON_FOUND : JSON_ABSENT;
}

static enum json_found find_item(yyjson_val *array, struct slice token, yyjson_val **ret)
{
    size_t index = 0;
    if (token.len == 0 || token.len > 9 || (token.len > 1 && token.ptr[0] == '0'))
        return JSON_ABSENT;
    for (size_t i = 0; i < token.len; i++) {
        if (token.ptr[i] < '0' || token.ptr[i] > '9')
            return JSON_ABSENT;
        index = index * 10 + (size_t)(token.ptr[i] - '0');
    }
    *ret = yyjson_arr_get(array, index);
    return *ret != NULL ? JSON_FOUND : JSON_ABSENT;
}

/* Visits the values that a pointer matches until `visit` says to stop. */
struct search {
    /* The value's verdict; JSON_FOUND counts as a match. */
    enum json_found (*visit)(struct search *search, yyjson_val *val);
    bool all;   /* go on after a match */
    bool every; /* one that leads nowhere spoils the rest */
    struct slice *ret_text;
    json_each_f *each;
    void *context;
};

static enum json_found walk(struct search *search, yyjson_val *val, const char *pointer);

/* What several matches come to: a repeated key spoils all, a match beats a wrong type, and that
 * beats nothing. */
static enum json_found walk_all(struct search *search, yyjson_val *container, const char *rest)
{
    enum json_found found = JSON_ABSENT;
    bool object = yyjson_is_obj(container);
    size_t count = unsafe_yyjson_get_len(container);
    yyjson_val *val = unsafe_yyjson_get_first(container);
    for (size_t i = 0; i < count; i++) {
        if (object)
            val++; /* over the key */
        enum json_found one = walk(search, val, rest);
        if (one == JSON_REPEATED)
            return one;
        if (search->every ? one != JSON_FOUND : one == JSON_FOUND && !search->all)
            return one;
        if (one == JSON_FOUND || found == JSON_ABSENT)
            found = one;
        val = unsafe_yyjson_get_next(val);
    }
    return found;
}

/* Recurses once per token, never deeper than the document. */
static enum json_found walk(struct search *search, yyjson_val *val, const char *pointer)
{
    if (pointer[0] == '\0')
        return search->visit(search, val);
    if (pointer[0] != '/')
        return JSON_ABSENT;
    struct slice token = {pointer + 1, strcspn(pointer + 1, "/")};
    const char *rest = token.ptr + token.len;
    if (!yyjson_is_ctn(val))
        return JSON_ABSENT;
    if (slice_is(token, "*"))
        return walk_all(search, val, rest);
    yyjson_val *next;
    enum json_found found =
        yyjson_is_obj(val) ? find_member(val, token, &next) : find_item(val, token, &next);
    return found == JSON_FOUND ? walk(search, next, rest) : found;
}

static enum json_found text_of(yyjson_val *val, struct slice *ret)
{
    switch (yyjson_get_type(val)) {
    case YYJSON_TYPE_NULL:
        return JSON_ABSENT;
    case YYJSON_TYPE_BOOL:
        *ret = yyjson_is_true(val) ? SLICE_LITERAL("true") : SLICE_LITERAL("false");
        return JSON_FOUND;
    case YYJSON_TYPE_RAW: /* a number; JSON leaves integers one spelling but for minus nought */
        *ret = (struct slice){yyjson_get_raw(val), yyjson_get_len(val)};
        if (slice_is(*ret, "-0"))
            *ret = SLICE_LITERAL("0");
        return JSON_FOUND;
    case YYJSON_TYPE_STR:
        if (yyjson_get_len(val) == 0)
            return JSON_ABSENT;
        *ret = (struct slice){yyjson_get_str(val), yyjson_get_len(val)};
        return JSON_FOUND;
    default:
        return JSON_WRONG_TYPE;
    }
}

static enum json_found visit_text(struct search *search, yyjson_val *val)
{
    struct slice text;
    enum json_found found = text_of(val, &text);
    if (found == JSON_FOUND) {
        if (search->each != NULL)
            search->each(text, search->context);
        else
            *search->ret_text = text;
    }
    return found;
}

static enum json_found visit_exists(struct search *search, yyjson_val *val)
{
    (void)search;
    return yyjson_is_null(val) ? JSON_ABSENT : JSON_FOUND;
}

enum json_found json_text_at(const struct json *json, const char *pointer, struct slice *ret_text)
{
    struct search search = {.visit = visit_text, .ret_text = ret_text};
    return walk(&search, json->root, pointer);
}

enum json_found json_each_text_at(const struct json *json, const char *pointer, json_each_f *each,
                                  void *context)
{
    struct search search = {.visit = visit_text, .all = true, .each = each, .context = context};
    return walk(&search, json->root, pointer);
}

enum json_found json_every_text_at(const struct json *json, const char *pointer, json_each_f *each,
                                   void *context)
{
    struct search search = {
        .visit = visit_text, .all = true, .every = true, .each = each, .context = context};
    return walk(&search, json->root, pointer);
}

bool json_is_whole(const struct json *json, struct slice text)
{
    return !json->mended || text.len == 0 || memmem(text.ptr, text.len, "\xef\xbf\xbd", 3) == NULL;
}

bool json_exists(const struct json *json, const char *pointer)
{
    struct search search = {.visit = visit_exists};
    return walk(&search, json->root, pointer) == JSON_FOUND;
}

/* Length of the well-formed UTF-8 sequence at the front of `text`, or 0 and in *ret_skip how many
 * bytes one U+FFFD stands for (the longest beginning of a sequence, as Unicode advises). */
static size_t utf8_sequence(struct slice text, size_t *ret_skip)
{
    unsigned char first = (unsigned char)text.ptr[0], low = 0x80, high = 0xbf;
    size_t len = first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
    *ret_skip = 1;
    if (first < 0x80)
        return 1;
    if (first == 0xe0)
        low = 0xa0; /* no overlong form */
    else if (first == 0xed)
        high = 0x9f; /* no surrogate */
    else if (first == 0xf0)
        low = 0x90;
    else if (first == 0xf4)
        high = 0x8f; /* nothing above U+10FFFF */
    for (size_t i = 1; i < len; i++) {
        unsigned char c = i < text.len ? (unsigned char)text.ptr[i] : 0;
        if (c < low || c > high)
            return 0;
        low = 0x80;
        high = 0xbf;
        *ret_skip = i + 1;
    }
    return len;
}

static bool append(char *buf, size_t size, size_t *len, const char *bytes, size_t count)
{
    if (*len > size || count > size - *len)
        return false;
    memcpy(buf + *len, bytes, count);
    *len += count;
    return true;
}

/* How an ASCII character stands in a string; the escape goes to `to`. */
static size_t escape(char c, char to[6])
{
    static const char plain[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
    static const char hex[] = "0123456789abcdef";
    const char *found = c != '\0' ? strchr(plain, c) : NULL;
    if (found != NULL) {
        to[0] = '\\';
        to[1] = letters[found - plain];
        return 2;
    }
    if ((unsigned char)c >= 0x20) {
        to[0] = c;
        return 1;
    }
    memcpy(to, "\\u00", 4);
    to[4] = hex[(unsigned char)c >> 4];
    to[5] = hex[(unsigned char)c & 15];
    return 6;
}

bool json_quote(char *buf, size_t size, size_t *len, struct slice text)
{
    size_t at = *len;
    if (!append(buf, size, &at, "\"", 1))
        return false;
    while (text.len > 0) {
        size_t skip, sequence = utf8_sequence(text, &skip);
        char escaped[6];
        bool fits;
        if (sequence == 0)
            fits = append(buf, size, &at, "\xef\xbf\xbd", 3);
        else if (sequence == 1)
            fits = append(buf, size, &at, escaped, escape(text.ptr[0], escaped));
        else
            fits = append(buf, size, &at, text.ptr, sequence);
        if (!fits)
            return false;
        text = slice_from(text, sequence ? sequence : skip);
    }
    if (!append(buf, size, &at, "\"", 1))
        return false;
    *len = at;
    return true;
}
