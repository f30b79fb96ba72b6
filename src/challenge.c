/* CHALLENGE: answers a platform's handshake, which proves to it that the URL is ours. Called by
 * delivery.c after VERIFY, and before it for handshakes that come unsigned. What is echoed is the
 * sender's own text, and what is signed is of its choosing, so both are bounded and held to an
 * alphabet in which no event can be spelt. It never records anything. Thread: any. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "challenge.h"

#include "json.h"
#include "secret.h"

#define TOKEN_MAX 512       /* where the platform's file says nothing */
#define DIGEST_TEXT_MAX 160 /* the longest digest in hex, and a NUL */
#define QUERY_VALUE_MAX 1024

struct asked {
    const struct platform *platform;
    const struct inbound *in;
    const struct json *json;
    const struct verification *verification; /* NULL: not verified */
};

enum query_found { QUERY_FOUND, QUERY_ABSENT, QUERY_BAD };

static int hex_value(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* Percent-decoding with + for a blank, as forms and the platforms' query strings use it. */
static bool decode_query(struct slice text, char *buf, size_t size, struct slice *ret)
{
    size_t at = 0;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i] == '+' ? ' ' : text.ptr[i];
        if (c == '%') {
            int high = i + 2 < text.len ? hex_value(text.ptr[i + 1]) : -1;
            int low = i + 2 < text.len ? hex_value(text.ptr[i + 2]) : -1;
            if (high < 0 || low < 0)
                return false;
            c = (char)(high << 4 | low);
            i += 2;
        }
        if (at == size)
            return false;
        buf[at++] = c;
    }
    *ret = (struct slice){buf, at};
    return true;
}

/* Takes what stands before the separator, and the separator itself, off the front of *rest. */
static struct slice cut(struct slice *rest, char separator)
{
    struct slice front = {rest->ptr, 0};
    while (front.len < rest->len && rest->ptr[front.len] != separator)
        front.len++;
    *rest = slice_from(*rest, front.len + 1);
    return front;
}

/* A key that comes twice is as bad as a value that can't be decoded. */
static enum query_found find_query(struct slice query, const char *key, char *buf, size_t size,
                                   struct slice *ret)
{
    enum query_found found = QUERY_ABSENT;
    while (query.len > 0) {
        struct slice value = cut(&query, '&'), name = cut(&value, '=');
        if (!slice_is(name, key))
            continue;
        if (found != QUERY_ABSENT || !decode_query(value, buf, size, ret))
            return QUERY_BAD;
        found = QUERY_FOUND;
    }
    return found;
}

static bool is_letter_or_digit(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

/* A token to be signed must not be a message that an event's signature would cover: no braces, no
 * quotes, none of the separators of message templates. An echo may be any printable text. */
static bool may_answer(const struct challenge_rule *rule, struct slice token)
{
    if (token.len == 0 || token.len > (rule->token_max != 0 ? rule->token_max : TOKEN_MAX))
        return false;
    for (size_t i = 0; i < token.len; i++) {
        char c = token.ptr[i];
        bool safe = is_letter_or_digit(c) || (c != '\0' && strchr("+/=_-", c) != NULL);
        bool printable = c >= 0x20 && c < 0x7f;
        if (rule->answer == ANSWER_HMAC_JSON ? !safe : !printable)
            return false;
    }
    return true;
}

/* The secret that verified the request; for one that comes unsigned the newest live one. */
static const struct secret *signing_secret(const struct asked *asked)
{
    if (asked->verification != NULL)
        return asked->verification->secret;
    const struct keyring *secrets = &asked->platform->secrets;
    for (size_t i = 0; i < secrets->count; i++)
        if (secret_is_live(secrets->secrets[i], asked->in->received_wall_us))
            return secrets->secrets[i];
    return NULL;
}

static bool append(struct challenge_answer_body *ret, struct slice text)
{
    if (text.len > sizeof ret->body - ret->len)
        return false;
    if (text.len > 0)
        memcpy(ret->body + ret->len, text.ptr, text.len);
    ret->len += text.len;
    return true;
}

/* "field":"value" */
static bool append_field(struct challenge_answer_body *ret, const char *field, struct slice value)
{
    return json_quote(ret->body, sizeof ret->body, &ret->len, slice_of(field)) &&
           append(ret, SLICE_LITERAL(":")) &&
           json_quote(ret->body, sizeof ret->body, &ret->len, value);
}

static bool append_digest(const struct asked *asked, const struct challenge_rule *rule,
                          struct slice token, struct challenge_answer_body *ret)
{
    const struct secret *secret = signing_secret(asked);
    struct slice prefix = slice_of(rule->hmac_prefix);
    char digest[DIGEST_TEXT_MAX * 2];
    if (secret == NULL || rule->hmac_field == NULL || prefix.len > DIGEST_TEXT_MAX)
        return false;
    if (prefix.len > 0)
        memcpy(digest, prefix.ptr, prefix.len);
    return verify_digest(asked->platform, secret, token, rule->hmac_encoding, digest + prefix.len,
                         sizeof digest - prefix.len) &&
           append_field(ret, rule->hmac_field, slice_of(digest));
}

static bool write_answer(const struct asked *asked, const struct challenge_rule *rule,
                         struct slice token, struct challenge_answer_body *ret)
{
    ret->len = 0;
    if (rule->answer == ANSWER_ECHO_TEXT) {
        ret->content_type = "text/plain";
        return append(ret, token);
    }
    ret->content_type = "application/json";
    bool echo = rule->echo_field != NULL, digest = rule->answer == ANSWER_HMAC_JSON;
    if (!echo && !digest)
        return false;
    return append(ret, SLICE_LITERAL("{")) &&
           (!echo || append_field(ret, rule->echo_field, token)) &&
           (!echo || !digest || append(ret, SLICE_LITERAL(","))) &&
           (!digest || append_digest(asked, rule, token, ret)) && append(ret, SLICE_LITERAL("}"));
}

static enum outcome answer(const struct asked *asked, const struct challenge_rule *rule,
                           struct slice token, struct challenge_answer_body *ret)
{
    if (!may_answer(rule, token) || !write_answer(asked, rule, token, ret))
        return OUTCOME_CHALLENGE_REFUSED;
    return OUTCOME_CHALLENGED;
}

static enum outcome check_post_json(const struct asked *asked, const struct challenge_rule *rule,
                                    struct challenge_answer_body *ret)
{
    struct slice text = {0}, token;
    if (!slice_is(asked->in->method, "POST") || asked->json == NULL ||
        (asked->verification == NULL &&
         (!rule->unsigned_ok || rule->answer == ANSWER_HMAC_JSON))) /* no signing oracle */
        return OUTCOME_NONE;
    /* A repeated key is no challenge: what reads the event type next refuses it. */
    bool found = rule->when.source == FROM_HEADER
                     ? inbound_header_find(asked->in, rule->when.name, &text) == 1
                     : json_text_at(asked->json, rule->when.name, &text) == JSON_FOUND;
    if (!found || !slice_is(text, rule->equals))
        return OUTCOME_NONE;
    if (json_text_at(asked->json, rule->token, &token) != JSON_FOUND)
        return OUTCOME_CHALLENGE_REFUSED;
    return answer(asked, rule, token, ret);
}

static bool has_verify_key(const struct asked *asked, const struct challenge_rule *rule)
{
    char buf[QUERY_VALUE_MAX];
    struct slice value;
    bool match = false;
    if (find_query(asked->in->query, rule->verify_key, buf, sizeof buf, &value) != QUERY_FOUND)
        return false;
    const struct keyring *secrets = &asked->platform->secrets;
    for (size_t i = 0; i < secrets->count; i++)
        if (secret_is_live(secrets->secrets[i], asked->in->received_wall_us))
            match |= secret_equals(secrets->secrets[i], value);
    return match;
}

static enum outcome check_query(const struct asked *asked, const struct challenge_rule *rule,
                                struct challenge_answer_body *ret)
{
    char buf[QUERY_VALUE_MAX];
    struct slice text;
    const char *method = rule->kind == CHALLENGE_GET_QUERY ? "GET" : "POST";
    if (!slice_is(asked->in->method, method))
        return OUTCOME_NONE;
    if (asked->verification == NULL && !rule->unsigned_ok && rule->verify_key == NULL)
        return OUTCOME_NONE;
    bool told = rule->when.name != NULL && rule->equals != NULL;
    if (told &&
        (find_query(asked->in->query, rule->when.name, buf, sizeof buf, &text) != QUERY_FOUND ||
         !slice_is(text, rule->equals)))
        return OUTCOME_NONE;
    enum query_found found = find_query(asked->in->query, rule->token, buf, sizeof buf, &text);
    if (found == QUERY_ABSENT && !told)
        return OUTCOME_NONE;
    if (found != QUERY_FOUND || (rule->verify_key != NULL && !has_verify_key(asked, rule)))
        return OUTCOME_CHALLENGE_REFUSED;
    return answer(asked, rule, text, ret);
}

enum outcome challenge_check(const struct platform *platform, const struct inbound *in,
                             const struct json *json, const struct verification *verification,
                             struct challenge_answer_body *ret)
{
    struct asked asked = {platform, in, json, verification};
    for (size_t i = 0; i < platform->challenge_count; i++) {
        const struct challenge_rule *rule = &platform->challenges[i];
        enum outcome outcome = rule->kind == CHALLENGE_POST_JSON
                                   ? check_post_json(&asked, rule, ret)
                                   : check_query(&asked, rule, ret);
        if (outcome != OUTCOME_NONE)
            return outcome;
    }
    return OUTCOME_NONE;
}
