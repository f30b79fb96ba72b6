/* How a platform signs and dates its requests: `signatures:`, `timestamp:` and `time:` of a
 * platform.yaml. The rules that make a scheme meaningful stand here, so that verify.c can rely on
 * them: a message holds the body and a timestamp that is sent beside it, a version goes with a
 * list, a {timestamp} with a rule for it. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "platform_parts.h"

#include <string.h>

#define MESSAGE_TOKENS_MAX 16

static const char *const algorithm_words[] = {"hmac-sha256", "hmac-sha1", "hmac-sha512",
                                              "ed25519",     "static",    NULL};
static const char *const form_words[] = {"single", "pairs", "list", NULL};
static const char *const encoding_words[] = {"hex", "base64", NULL};
static const char *const key_words[] = {"text", "base64", "whsec", "hex", NULL};
static const char *const unit_words[] = {"s", "ms", "rfc3339", NULL};

struct raw_scheme {
    int algorithm, form, encoding, key;
    struct yaml_texts headers;
    const char *separator, *version, *prefix, *message, *timestamp_header, *query;
    bool prefix_optional, each_header;
    const struct yaml_node *header_node, *message_node, *timestamp_header_node, *json;
};

static const struct yaml_field scheme_fields[] = {
    {"algorithm", YAML_WORD, offsetof(struct raw_scheme, algorithm), .required = true,
     .words = algorithm_words},
    {"header", YAML_TEXTS, offsetof(struct raw_scheme, headers), .min = 1, .max = 4,
     .node_offset_plus1 = 1 + offsetof(struct raw_scheme, header_node)},
    {"each_header", YAML_FLAG, offsetof(struct raw_scheme, each_header)},
    {"query", YAML_TEXT, offsetof(struct raw_scheme, query), .min = 1, .max = 64},
    {"json", YAML_NODE, offsetof(struct raw_scheme, json)},
    {"form", YAML_WORD, offsetof(struct raw_scheme, form), .words = form_words},
    {"separator", YAML_TEXT, offsetof(struct raw_scheme, separator), .min = 1, .max = 1},
    {"version", YAML_TEXT, offsetof(struct raw_scheme, version), .min = 1, .max = 16},
    {"prefix", YAML_TEXT, offsetof(struct raw_scheme, prefix), .min = 1, .max = 32},
    {"prefix_optional", YAML_FLAG, offsetof(struct raw_scheme, prefix_optional)},
    {"encoding", YAML_WORD, offsetof(struct raw_scheme, encoding), .words = encoding_words},
    {"key", YAML_WORD, offsetof(struct raw_scheme, key), .words = key_words},
    {"message", YAML_TEXT, offsetof(struct raw_scheme, message), .min = 1, .max = 256,
     .node_offset_plus1 = 1 + offsetof(struct raw_scheme, message_node)},
    {"timestamp_header", YAML_TEXT, offsetof(struct raw_scheme, timestamp_header), .min = 1,
     .max = 64, .node_offset_plus1 = 1 + offsetof(struct raw_scheme, timestamp_header_node)},
    {0},
};

struct raw_time {
    const struct yaml_node *json, *header;
    const char *pair;
    int unit;
    int64_t tolerance, future;
    bool optional;
};

static const struct yaml_field timestamp_fields[] = {
    {"json", YAML_NODE, offsetof(struct raw_time, json)},
    {"header", YAML_NODE, offsetof(struct raw_time, header)},
    {"pair", YAML_TEXT, offsetof(struct raw_time, pair), .min = 1, .max = 32},
    {"unit", YAML_WORD, offsetof(struct raw_time, unit), .required = true, .words = unit_words},
    {"tolerance", YAML_DURATION, offsetof(struct raw_time, tolerance), .min = 1000000,
     .max = INT64_C(7) * 86400 * 1000000},
    {"future", YAML_DURATION, offsetof(struct raw_time, future), .min = 1000000,
     .max = INT64_C(7) * 86400 * 1000000},
    {"optional", YAML_FLAG, offsetof(struct raw_time, optional)},
    {0},
};

static const struct yaml_field time_fields[] = {
    {"json", YAML_NODE, offsetof(struct raw_time, json), .required = true},
    {"unit", YAML_WORD, offsetof(struct raw_time, unit), .required = true, .words = unit_words},
    {0},
};

/* One {word} of a message; `word` without its braces. */
static bool read_token(struct platform_reader *reader, const struct yaml_node *node,
                       struct slice word, struct message_token *ret)
{
    static const struct {
        const char *name;
        enum token_kind kind;
    } tokens[] = {{"body", TOKEN_BODY},
                  {"timestamp", TOKEN_TIMESTAMP},
                  {"method", TOKEN_METHOD},
                  {"url", TOKEN_URL}};
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
        if (slice_is(word, tokens[i].name)) {
            *ret = (struct message_token){.kind = tokens[i].kind};
            return true;
        }
    }
    char *text = yaml_alloc(reader->yaml, word.len + 1, 1);
    memcpy(text, word.ptr, word.len);
    if (slice_starts(word, SLICE_LITERAL("header:"))) {
        const char *name = platform_header(reader, node, text + strlen("header:"));
        *ret = (struct message_token){.kind = TOKEN_HEADER, .text = slice_of(name)};
        return name != NULL;
    }
    /* A misspelt {heder:x-id} is meant as a header, whatever the name after it. */
    static const char *const words[] = {"body", "timestamp", "method", "url", "header", NULL};
    const char *name = strchr(text, ':');
    char *front = yaml_alloc(reader->yaml, word.len + 1, 1);
    memcpy(front, text, name != NULL ? (size_t)(name - text) : word.len);
    const char *meant = problem_suggest(front, words);
    bool header = meant != NULL && strcmp(meant, "header") == 0;
    if (meant != NULL)
        PLATFORM_COMPLAIN(reader, node, "unknown token {%s}; did you mean {%s%s}?", text, meant,
                          !header        ? ""
                          : name != NULL ? name
                                         : ":NAME");
    else
        PLATFORM_COMPLAIN(reader, node,
                          "unknown token {%s}; expected {body}, {timestamp}, {method}, {url} or "
                          "{header:NAME}",
                          text);
    return false;
}

/* "v0:{timestamp}:{body}" to tokens; false with a problem. */
static bool read_message(struct platform_reader *reader, const struct yaml_node *node,
                         const char *text, struct signature_scheme *scheme)
{
    struct message_token *tokens = yaml_alloc(reader->yaml, MESSAGE_TOKENS_MAX, sizeof *tokens);
    size_t count = 0;
    for (const char *at = text; *at != '\0';) {
        if (count == MESSAGE_TOKENS_MAX) {
            PLATFORM_COMPLAIN(reader, node, "a message has at most %d pieces", MESSAGE_TOKENS_MAX);
            return false;
        }
        size_t literal = strcspn(at, "{}");
        if (literal > 0) {
            tokens[count++] = (struct message_token){TOKEN_LITERAL, {at, literal}};
            at += literal;
            continue;
        }
        const char *end = *at == '{' ? strchr(at, '}') : NULL;
        if (end == NULL) {
            PLATFORM_COMPLAIN(reader, node, "a brace without its partner; a token is {body}");
            return false;
        }
        if (!read_token(reader, node, (struct slice){at + 1, (size_t)(end - at) - 1},
                        &tokens[count]))
            return false;
        count++;
        at = end + 1;
    }
    scheme->message = tokens;
    scheme->message_count = count;
    return true;
}

static bool message_has(const struct signature_scheme *scheme, enum token_kind kind)
{
    for (size_t i = 0; i < scheme->message_count; i++) {
        if (scheme->message[i].kind == kind)
            return true;
    }
    return false;
}

static void check_message(struct platform_reader *reader, const struct yaml_node *node,
                          const struct raw_scheme *raw, struct signature_scheme *scheme)
{
    if (scheme->algorithm == STATIC_EQUALITY) {
        if (raw->message != NULL)
            PLATFORM_COMPLAIN(reader, raw->message_node,
                              "algorithm static compares with the secret itself: no message");
        return;
    }
    if (raw->message == NULL) {
        PLATFORM_COMPLAIN(reader, node, "message is missing; for example message: \"{body}\"");
        return;
    }
    if (!read_message(reader, raw->message_node, raw->message, scheme))
        return;
    if (!message_has(scheme, TOKEN_BODY))
        PLATFORM_COMPLAIN(reader, raw->message_node,
                          "the message lacks {body}: a signature that does not cover the body "
                          "proves nothing about it");
    enum value_source from = reader->platform->timestamp.from.source;
    if (message_has(scheme, TOKEN_TIMESTAMP) && from != FROM_HEADER && from != FROM_PAIR)
        PLATFORM_COMPLAIN(reader, raw->message_node,
                          "{timestamp} needs timestamp: with header: or pair:");
}

static void check_place(struct platform_reader *reader, const struct yaml_node *node,
                        const struct raw_scheme *raw)
{
    bool header = raw->header_node != NULL;
    if (header + (raw->query != NULL) + (raw->json != NULL) != 1)
        PLATFORM_COMPLAIN(reader, node, "expected one of header:, query:, json:");
    else if (!header && raw->algorithm != STATIC_EQUALITY)
        PLATFORM_COMPLAIN(reader, node, "query: and json: go with algorithm: static");
    if (raw->each_header && raw->headers.count < 2)
        PLATFORM_COMPLAIN(reader, node, "each_header needs several names in header:");
    if (raw->json != NULL && (raw->prefix != NULL || raw->encoding != ENCODING_HEX))
        PLATFORM_COMPLAIN(reader, node, "a value at json: is the secret: no prefix or encoding");
}

static void check_form(struct platform_reader *reader, const struct yaml_node *node,
                       const struct raw_scheme *raw)
{
    enum signature_form form = (enum signature_form)raw->form;
    if (form != FORM_SINGLE && raw->version == NULL)
        PLATFORM_COMPLAIN(reader, node, "form %s needs version, such as version: v1",
                          form_words[form]);
    if (form == FORM_SINGLE && raw->version != NULL)
        PLATFORM_COMPLAIN(reader, node, "version goes with form: pairs or form: list");
    if (form != FORM_PAIRS && raw->separator != NULL)
        PLATFORM_COMPLAIN(reader, node, "separator goes with form: pairs");
    if (raw->separator != NULL && raw->separator[0] != ',' && raw->separator[0] != ';')
        PLATFORM_COMPLAIN(reader, node, "separator is \",\" or \";\"");
    if (raw->prefix_optional && raw->prefix == NULL)
        PLATFORM_COMPLAIN(reader, node, "prefix_optional needs prefix, such as prefix: sha256=");
    if (raw->algorithm == STATIC_EQUALITY && (form != FORM_SINGLE || raw->key != KEY_TEXT))
        PLATFORM_COMPLAIN(reader, node,
                          "algorithm static compares with the secret itself: no form or key");
    if (reader->platform->timestamp.from.source == FROM_PAIR && form != FORM_PAIRS)
        PLATFORM_COMPLAIN(reader, node, "timestamp: {pair: …} needs form: pairs");
}

static void read_timestamp_header(struct platform_reader *reader, const struct raw_scheme *raw,
                                  struct signature_scheme *scheme)
{
    if (raw->timestamp_header == NULL)
        return;
    if (reader->platform->timestamp.from.source != FROM_HEADER)
        PLATFORM_COMPLAIN(reader, raw->timestamp_header_node,
                          "timestamp_header stands in place of the header of timestamp: {header: "
                          "…}, which is not there");
    scheme->timestamp_header =
        platform_header(reader, raw->timestamp_header_node, raw->timestamp_header);
}

static void read_signature(struct platform_reader *reader, const struct yaml_node *node,
                           struct signature_scheme *scheme)
{
    struct raw_scheme raw = {0};
    if (!yaml_bind(reader->yaml, node, scheme_fields, &raw, reader->problems))
        return;
    *scheme = (struct signature_scheme){
        .algorithm = (enum signature_algorithm)raw.algorithm,
        .form = (enum signature_form)raw.form,
        .separator = raw.separator ? raw.separator[0] : ',',
        .version = slice_of(raw.version ? raw.version : ""),
        .prefix = slice_of(raw.prefix ? raw.prefix : ""),
        .prefix_optional = raw.prefix_optional,
        .encoding = (enum signature_encoding)raw.encoding,
        .key = (enum key_decoding)raw.key,
        .each_header = raw.each_header,
        .query = raw.query,
        .json = raw.json != NULL ? platform_pointer(reader, raw.json) : NULL,
    };
    const char **headers = yaml_alloc(reader->yaml, raw.headers.count, sizeof *headers);
    for (size_t i = 0; i < raw.headers.count; i++) {
        headers[scheme->header_count] =
            platform_header(reader, platform_item(raw.header_node, i), raw.headers.items[i]);
        if (headers[scheme->header_count] != NULL)
            scheme->header_count++;
    }
    scheme->headers = headers;
    read_timestamp_header(reader, &raw, scheme);
    check_place(reader, node, &raw);
    check_form(reader, node, &raw);
    check_message(reader, node, &raw, scheme);
}

void platform_read_signatures(struct platform_reader *reader, const struct yaml_node *node)
{
    size_t count = platform_item_count(node);
    if (count > PLATFORM_MAX_SCHEMES) {
        PLATFORM_COMPLAIN(reader, node, "expected at most %d signatures", PLATFORM_MAX_SCHEMES);
        return;
    }
    for (size_t i = 0; i < count; i++)
        read_signature(reader, platform_item(node, i), &reader->platform->schemes[i]);
    reader->platform->scheme_count = count;
    for (size_t i = 0; i < count; i++)
        reader->platform->secret_in_body |= reader->platform->schemes[i].json != NULL;
}

static bool covers_timestamp(const struct platform *platform, const struct signature_scheme *scheme)
{
    const struct value_rule *from = &platform->timestamp.from;
    const char *header = scheme->timestamp_header ? scheme->timestamp_header : from->name;
    for (size_t i = 0; i < scheme->message_count; i++) {
        if (from->source == FROM_HEADER && scheme->message[i].kind == TOKEN_HEADER &&
            slice_is(scheme->message[i].text, header))
            return true;
    }
    return message_has(scheme, TOKEN_TIMESTAMP);
}

/* Whoever replays a request may write anew what nobody has signed. */
void platform_check_timestamp(struct platform_reader *reader, const struct yaml_node *node)
{
    const struct platform *platform = reader->platform;
    enum value_source from = platform->timestamp.from.source;
    bool covered = from != FROM_HEADER && from != FROM_PAIR;
    for (size_t i = 0; i < platform->scheme_count; i++)
        covered |= covers_timestamp(platform, &platform->schemes[i]);
    if (!covered)
        PLATFORM_COMPLAIN(reader, node,
                          "no message covers this timestamp, so it proves nothing: whoever replays "
                          "a request may write it anew; put {timestamp} into message:, or leave "
                          "timestamp: out");
}

/* The one of json, header and pair that the rule names. */
static bool read_source(struct platform_reader *reader, const struct yaml_node *node,
                        const struct raw_time *raw, struct value_rule *ret)
{
    if ((raw->json != NULL) + (raw->header != NULL) + (raw->pair != NULL) != 1) {
        PLATFORM_COMPLAIN(reader, node, "expected one of header:, pair:, json:");
        return false;
    }
    if (raw->json != NULL) {
        *ret = (struct value_rule){FROM_JSON, platform_pointer(reader, raw->json), NULL};
    } else if (raw->header != NULL) {
        const char *text =
            yaml_node_type(raw->header) == YAML_SCALAR ? yaml_node_text(raw->header) : NULL;
        *ret = (struct value_rule){FROM_HEADER, platform_header(reader, raw->header, text), NULL};
    } else {
        *ret = (struct value_rule){FROM_PAIR, raw->pair, NULL};
    }
    return ret->name != NULL;
}

void platform_read_timestamp(struct platform_reader *reader, const struct yaml_node *node)
{
    struct raw_time raw = {.tolerance = INT64_C(300) * 1000000};
    struct timestamp_rule *rule = &reader->platform->timestamp;
    if (node == NULL || !yaml_bind(reader->yaml, node, timestamp_fields, &raw, reader->problems) ||
        !read_source(reader, node, &raw, &rule->from))
        return;
    rule->unit = (enum time_unit)raw.unit;
    rule->past_us = raw.tolerance;
    rule->future_us = raw.future ? raw.future : raw.tolerance;
    rule->optional = raw.optional;
    if (raw.optional && raw.json == NULL)
        PLATFORM_COMPLAIN(reader, node,
                          "optional goes with json: alone; a header that may be left out proves "
                          "nothing");
}

void platform_read_time(struct platform_reader *reader, const struct yaml_node *node)
{
    struct raw_time raw = {0};
    struct timestamp_rule *rule = &reader->platform->time;
    if (node == NULL || !yaml_bind(reader->yaml, node, time_fields, &raw, reader->problems) ||
        !read_source(reader, node, &raw, &rule->from))
        return;
    rule->unit = (enum time_unit)raw.unit;
}
