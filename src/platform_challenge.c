/* `challenges:` of a platform.yaml: the handshakes by which a platform tests an address. A signed
 * answer to an unsigned question would be a signing oracle, so the loader refuses that where the
 * platform's protocol does not force it. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "json.h"
#include "platform_parts.h"

#define CHALLENGES_MAX 4

static const char *const via_words[] = {"post-json", "get-query", "post-query", NULL};
static const char *const answer_words[] = {"text", "json", "hmac-json", "fixed", NULL};
static const char *const encoding_words[] = {"hex", "base64", NULL};

struct raw_challenge {
    int via, answer, hmac_encoding;
    const struct yaml_node *when, *token;
    const char *equals, *verify_key, *verify_prefix, *echo_field, *hmac_field, *hmac_prefix, *fixed;
    const struct yaml_node *fixed_node;
    int64_t max;
    bool unsigned_ok;
};

#define AT(member) offsetof(struct raw_challenge, member)

static const struct yaml_field challenge_fields[] = {
    {"via", YAML_WORD, AT(via), .required = true, .words = via_words},
    {"when", YAML_NODE, AT(when)},
    {"equals", YAML_TEXT, AT(equals), .min = 1, .max = 128},
    {"token", YAML_NODE, AT(token)},
    {"max", YAML_INTEGER, AT(max), .min = 1, .max = 256},
    {"unsigned", YAML_FLAG, AT(unsigned_ok)},
    {"verify_key", YAML_TEXT, AT(verify_key), .min = 1, .max = 64},
    {"verify_prefix", YAML_TEXT, AT(verify_prefix), .min = 4, .max = 32},
    {"answer", YAML_WORD, AT(answer), .required = true, .words = answer_words},
    {"echo_field", YAML_TEXT, AT(echo_field), .min = 1, .max = 64},
    {"hmac_field", YAML_TEXT, AT(hmac_field), .min = 1, .max = 64},
    {"hmac_prefix", YAML_TEXT, AT(hmac_prefix), .min = 1, .max = 32},
    {"hmac_encoding", YAML_WORD, AT(hmac_encoding), .words = encoding_words},
    {"fixed", YAML_TEXT, AT(fixed), .min = 2, .max = 256, .node_offset_plus1 = 1 + AT(fixed_node)},
    {0},
};

/* Anybody gets the digest of a token under the key that signs events. No JSON object can be spelt
 * as a token; where a body may be anything else, what is signed might be an event. */
static void check_oracle(struct platform_reader *reader, const struct yaml_node *node,
                         const struct raw_challenge *raw)
{
    const struct platform *platform = reader->platform;
    if (raw->via == CHALLENGE_POST_JSON || raw->answer != ANSWER_HMAC_JSON)
        return;
    if (platform->opaque)
        PLATFORM_COMPLAIN(reader, node,
                          "answer hmac-json by query would sign bodies for anybody, because with "
                          "body: opaque a token is a body too; leave body: opaque out, or this "
                          "challenge");
    for (size_t i = 0; !platform->opaque && i < platform->event_type_count; i++) {
        if (platform->event_types[i].source == FROM_JSON)
            continue;
        PLATFORM_COMPLAIN(reader, node,
                          "answer hmac-json by query would sign bodies for anybody, because an "
                          "event whose type is not in its body may have any body; name a field as "
                          "event_type:, such as /event, or leave this challenge out");
        break;
    }
}

static void check_question(struct platform_reader *reader, const struct yaml_node *node,
                           const struct raw_challenge *raw)
{
    if (raw->via == CHALLENGE_POST_JSON) {
        if (raw->when == NULL)
            PLATFORM_COMPLAIN(
                reader, node,
                "via post-json needs when:, and mostly equals:, such as when: /event, "
                "equals: url_verification");
        if (raw->unsigned_ok && raw->answer == ANSWER_HMAC_JSON)
            PLATFORM_COMPLAIN(reader, node,
                              "unsigned: true with answer: hmac-json would sign what anybody "
                              "sends; leave unsigned out");
        return;
    }
    if (raw->when == NULL && raw->equals != NULL)
        PLATFORM_COMPLAIN(reader, node, "equals: needs when:, the key of the query that it is for");
    if (!raw->unsigned_ok)
        PLATFORM_COMPLAIN(reader, node,
                          "a challenge in the query is never signed: say unsigned: true");
    if (raw->via == CHALLENGE_POST_QUERY && raw->answer != ANSWER_ECHO_TEXT)
        PLATFORM_COMPLAIN(reader, node, "via post-query answers with text only");
}

static void check_verify_key(struct platform_reader *reader, const struct yaml_node *node,
                             const struct raw_challenge *raw)
{
    if (raw->verify_key != NULL && raw->via != CHALLENGE_GET_QUERY)
        PLATFORM_COMPLAIN(reader, node, "verify_key goes with via: get-query");
    else if ((raw->verify_key != NULL) != (raw->verify_prefix != NULL))
        PLATFORM_COMPLAIN(reader, node,
                          "verify_key and verify_prefix go together: secrets that begin with the "
                          "prefix are verify tokens and nothing else, such as verify_prefix: "
                          "verify_");
}

static void check_fixed(struct platform_reader *reader, const struct yaml_node *node,
                        const struct raw_challenge *raw)
{
    if ((raw->answer == ANSWER_FIXED) != (raw->fixed != NULL))
        PLATFORM_COMPLAIN(reader, node, "answer: fixed and fixed: go together");
    if (raw->answer == ANSWER_FIXED && (raw->via != CHALLENGE_POST_JSON || raw->token != NULL))
        PLATFORM_COMPLAIN(reader, node, "answer fixed goes with via: post-json and has no token:");
    if (raw->answer != ANSWER_FIXED && raw->token == NULL)
        PLATFORM_COMPLAIN(reader, node,
                          "token is missing: where the text is that is answered with");
    if (raw->fixed == NULL)
        return;
    struct slice text = slice_of(raw->fixed);
    struct json_reader *json_reader = json_reader_new(text.len);
    const struct json *json;
    if (json_read(json_reader, text, &json) != OUTCOME_NONE)
        PLATFORM_COMPLAIN(reader, raw->fixed_node,
                          "expected JSON in quotes, such as '{\"type\":1}'");
    json_reader_free(json_reader);
}

static void check_answer(struct platform_reader *reader, const struct yaml_node *node,
                         const struct raw_challenge *raw)
{
    if ((raw->answer == ANSWER_ECHO_TEXT || raw->answer == ANSWER_FIXED) &&
        (raw->echo_field != NULL || raw->hmac_field != NULL))
        PLATFORM_COMPLAIN(reader, node, "answer %s has no fields", answer_words[raw->answer]);
    if (raw->answer == ANSWER_ECHO_JSON && (raw->echo_field == NULL || raw->hmac_field != NULL))
        PLATFORM_COMPLAIN(reader, node, "answer json needs echo_field: and has no hmac_field:");
    if (raw->answer == ANSWER_HMAC_JSON && raw->hmac_field == NULL)
        PLATFORM_COMPLAIN(reader, node, "answer hmac-json needs hmac_field:");
    if (raw->answer == ANSWER_HMAC_JSON && reader->platform->scheme_count == 0)
        PLATFORM_COMPLAIN(reader, node, "answer hmac-json needs signatures:, whose key it uses");
}

/* A JSON pointer or the key of a query; NULL when there is none or with a problem. */
static const char *read_token(struct platform_reader *reader, const struct yaml_node *node, int via)
{
    if (node == NULL)
        return NULL;
    if (via == CHALLENGE_POST_JSON)
        return platform_pointer(reader, node);
    if (yaml_node_type(node) == YAML_SCALAR && yaml_node_text(node)[0] != '\0' &&
        yaml_node_text(node)[0] != '/')
        return yaml_node_text(node);
    PLATFORM_COMPLAIN(reader, node, "expected the key of the query, such as hub.challenge");
    return NULL;
}

static void read_challenge(struct platform_reader *reader, const struct yaml_node *node,
                           struct challenge_rule *rule)
{
    struct raw_challenge raw = {.max = 128};
    if (!yaml_bind(reader->yaml, node, challenge_fields, &raw, reader->problems))
        return;
    check_question(reader, node, &raw);
    check_oracle(reader, node, &raw);
    check_verify_key(reader, node, &raw);
    check_answer(reader, node, &raw);
    check_fixed(reader, node, &raw);
    *rule = (struct challenge_rule){
        .kind = (enum challenge_kind)raw.via,
        .equals = raw.equals,
        .token = read_token(reader, raw.token, raw.via),
        .token_max = (size_t)raw.max,
        .unsigned_ok = raw.unsigned_ok,
        .verify_key = raw.verify_key,
        .verify_prefix = slice_of(raw.verify_prefix),
        .answer = (enum challenge_answer)raw.answer,
        .echo_field = raw.echo_field,
        .hmac_field = raw.hmac_field,
        .hmac_prefix = raw.hmac_prefix ? raw.hmac_prefix : "",
        .hmac_encoding = (enum signature_encoding)raw.hmac_encoding,
        .fixed = slice_of(raw.fixed),
    };
    if (raw.when != NULL && raw.via == CHALLENGE_POST_JSON)
        platform_value(reader, raw.when, VALUE_JSON | VALUE_HEADER, &rule->when);
    else
        rule->when.name = read_token(reader, raw.when, raw.via);
    if (raw.via == CHALLENGE_POST_JSON && raw.unsigned_ok)
        reader->platform->greets_unsigned = true;
}

void platform_read_challenges(struct platform_reader *reader, const struct yaml_node *node)
{
    size_t count = platform_item_count(node);
    if (count > CHALLENGES_MAX) {
        PLATFORM_COMPLAIN(reader, node, "expected at most %d challenges", CHALLENGES_MAX);
        return;
    }
    struct challenge_rule *rules = yaml_alloc(reader->yaml, count + 1, sizeof *rules);
    for (size_t i = 0; i < count; i++)
        read_challenge(reader, platform_item(node, i), &rules[i]);
    reader->platform->challenges = rules;
    reader->platform->challenge_count = count;
}
