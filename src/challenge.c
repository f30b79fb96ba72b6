/* CHALLENGE: answers a platform's handshake, which proves to it that the URL is ours. Called by
 * delivery.c after VERIFY, and before it for handshakes that come unsigned. What is echoed is the
 * sender's own text, and what is signed is of its choosing, so both are bounded and held to an
 * alphabet in which no event can be spelt. It never records anything. Thread: any. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "challenge.h"

#include "json.h"
#include "query.h"
#include "secret.h"

#define LIKELY_BODY_MAX 1024 /* vendors' handshakes are 100 to 300 bytes */
#define DIGEST_TEXT_MAX 160  /* the longest digest in hex, and a NUL */

struct asked {
    const struct platform *platform;
    const struct keyring *secrets;
    const struct inbound *in;
    const struct json *json;
    const struct verification *verification; /* NULL: not verified */
};

static bool is_letter_or_digit(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

/* A token to be signed must not be a message that an event's signature would cover: no braces, no
 * quotes, none of the separators of message templates. An echo may be any printable text. */
static bool may_answer(const struct challenge_rule *rule, struct slice token)
{
    if (token.len == 0 || token.len > rule->token_max)
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

/* Under the secret that verified the request; for one that comes unsigned the newest live one that
 * can sign. */
static bool make_digest(const struct asked *asked, const struct challenge_rule *rule,
                        struct slice token, char *to, size_t size)
{
    if (asked->verification != NULL)
        return asked->verification->secret != NULL &&
               verify_digest(asked->platform, asked->verification->secret, token,
                             rule->hmac_encoding, to, size);
    for (size_t i = 0; i < asked->secrets->count; i++)
        if (secret_is_live(asked->secrets->secrets[i], asked->in->received_wall_us) &&
            verify_digest(asked->platform, asked->secrets->secrets[i], token, rule->hmac_encoding,
                          to, size))
            return true;
    return false;
}

static bool append_digest(const struct asked *asked, const struct challenge_rule *rule,
                          struct slice token, struct challenge_answer_body *ret)
{
    struct slice prefix = slice_of(rule->hmac_prefix);
    char digest[DIGEST_TEXT_MAX * 2];
    if (rule->hmac_field == NULL || prefix.len > DIGEST_TEXT_MAX)
        return false;
    if (prefix.len > 0)
        memcpy(digest, prefix.ptr, prefix.len);
    return make_digest(asked, rule, token, digest + prefix.len, sizeof digest - prefix.len) &&
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
    if (rule->answer == ANSWER_FIXED)
        return append(ret, rule->fixed);
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
    if ((rule->answer != ANSWER_FIXED && !may_answer(rule, token)) ||
        !write_answer(asked, rule, token, ret))
        return OUTCOME_CHALLENGE_REFUSED;
    return OUTCOME_CHALLENGED;
}

static enum outcome check_post_json(const struct asked *asked, const struct challenge_rule *rule,
                                    struct challenge_answer_body *ret)
{
    struct slice text = {"", 0}, token = {"", 0};
    if (!slice_is(asked->in->method, "POST") || asked->json == NULL ||
        (asked->verification == NULL &&
         (!rule->unsigned_ok || rule->answer == ANSWER_HMAC_JSON))) /* no signing oracle */
        return OUTCOME_NONE;
    /* A repeated key is no challenge: what reads the event type next refuses it. */
    bool found = rule->when.source == FROM_HEADER
                     ? inbound_header_find(asked->in, rule->when.name, &text) == 1
                     : json_text_at(asked->json, rule->when.name, &text) == JSON_FOUND;
    if (!found || (rule->equals != NULL && !slice_is(text, rule->equals)))
        return OUTCOME_NONE;
    if (rule->token != NULL && json_text_at(asked->json, rule->token, &token) != JSON_FOUND)
        return OUTCOME_CHALLENGE_REFUSED;
    return answer(asked, rule, token, ret);
}

static bool has_verify_key(const struct asked *asked, const struct challenge_rule *rule)
{
    char buf[QUERY_VALUE_MAX];
    struct slice value;
    bool match = false;
    if (query_find(asked->in->query, rule->verify_key, buf, &value) != QUERY_FOUND ||
        !slice_starts(value, rule->verify_prefix))
        return false;
    for (size_t i = 0; i < asked->secrets->count; i++)
        if (secret_is_live(asked->secrets->secrets[i], asked->in->received_wall_us))
            match |= secret_equals(asked->secrets->secrets[i], value);
    return match;
}

/* Queries are never signed. */
static enum outcome check_query(const struct asked *asked, const struct challenge_rule *rule,
                                struct challenge_answer_body *ret)
{
    char buf[QUERY_VALUE_MAX];
    struct slice text;
    const char *method = rule->kind == CHALLENGE_GET_QUERY ? "GET" : "POST";
    if (!slice_is(asked->in->method, method))
        return OUTCOME_NONE;
    if (rule->when.name != NULL &&
        (query_find(asked->in->query, rule->when.name, buf, &text) != QUERY_FOUND ||
         (rule->equals != NULL && !slice_is(text, rule->equals))))
        return OUTCOME_NONE;
    enum query_found found = query_find(asked->in->query, rule->token, buf, &text);
    if (found == QUERY_ABSENT && rule->when.name == NULL)
        return OUTCOME_NONE;
    if (found != QUERY_FOUND)
        return OUTCOME_CHALLENGE_REFUSED;
    if (rule->verify_key != NULL && !has_verify_key(asked, rule))
        return OUTCOME_CHALLENGE_UNVERIFIED;
    return answer(asked, rule, text, ret);
}

enum outcome challenge_check(const struct platform *platform, const struct keyring *secrets,
                             const struct inbound *in, const struct json *json,
                             const struct verification *verification,
                             struct challenge_answer_body *ret)
{
    struct asked asked = {platform, secrets, in, json, verification};
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

static bool might_be(const struct challenge_rule *rule, const struct inbound *in)
{
    if (rule->kind == CHALLENGE_GET_QUERY)
        return slice_is(in->method, "GET");
    if (rule->kind == CHALLENGE_POST_QUERY)
        return in->query.len > 0;
    size_t len = rule->equals ? strlen(rule->equals) : 0;
    return in->body.len <= LIKELY_BODY_MAX &&
           (len == 0 || rule->when.source == FROM_HEADER ||
            memmem(in->body.ptr, in->body.len, rule->equals, len) != NULL);
}

bool challenge_is_likely(const struct platform *platform, const struct inbound *in)
{
    for (size_t i = 0; i < platform->challenge_count; i++)
        if (might_be(&platform->challenges[i], in))
            return true;
    return false;
}
