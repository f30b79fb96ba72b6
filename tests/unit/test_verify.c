/* Signatures: published vectors, every form of the vocabulary signed by OpenSSL's one-shot HMAC()
 * (not the code under test), and what a forger would send instead. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "codec.h"
#include "request.h"
#include "secret.h"
#include "verify.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define NOW INT64_C(1700000000000000)
#define BASE "https://hooks.example.com"

static const struct message_token only_body[] = {{TOKEN_BODY, {0}}};
static const struct message_token v0_time_body[] = {{TOKEN_LITERAL, {"v0:", 3}},
                                                    {TOKEN_TIMESTAMP, {0}},
                                                    {TOKEN_LITERAL, {":", 1}},
                                                    {TOKEN_BODY, {0}}};
static const struct message_token time_dot_body[] = {
    {TOKEN_TIMESTAMP, {0}}, {TOKEN_LITERAL, {".", 1}}, {TOKEN_BODY, {0}}};
static const struct message_token webhook_message[] = {{TOKEN_HEADER, {"webhook-id", 10}},
                                                       {TOKEN_LITERAL, {".", 1}},
                                                       {TOKEN_TIMESTAMP, {0}},
                                                       {TOKEN_LITERAL, {".", 1}},
                                                       {TOKEN_BODY, {0}}};
static const struct message_token svix_message[] = {{TOKEN_HEADER, {"svix-id", 7}},
                                                    {TOKEN_LITERAL, {".", 1}},
                                                    {TOKEN_TIMESTAMP, {0}},
                                                    {TOKEN_LITERAL, {".", 1}},
                                                    {TOKEN_BODY, {0}}};
static const struct message_token method_url_body_time[] = {
    {TOKEN_METHOD, {0}}, {TOKEN_URL, {0}}, {TOKEN_BODY, {0}}, {TOKEN_TIMESTAMP, {0}}};

static const char *const x_signature[] = {"x-signature"};
static const char *const two_names[] = {"x-hub-signature", "x-fireflies-signature"};
static const char *const webhook_signature[] = {"webhook-signature"};
static const char *const svix_signature[] = {"svix-signature"};

static const struct platform bare = {.schemes = {{.headers = x_signature,
                                                  .header_count = 1,
                                                  .message = only_body,
                                                  .message_count = 1}},
                                     .scheme_count = 1};
static const struct platform zoom = {.schemes = {{.headers = x_signature,
                                                  .header_count = 1,
                                                  .prefix = {"v0=", 3},
                                                  .message = v0_time_body,
                                                  .message_count = 4}},
                                     .scheme_count = 1,
                                     .timestamp = {.from = {FROM_HEADER, .name = "x-time"}}};
static const struct platform fireflies = {.schemes = {{.headers = two_names,
                                                       .header_count = 2,
                                                       .prefix = {"sha256=", 7},
                                                       .prefix_optional = true,
                                                       .message = only_body,
                                                       .message_count = 1}},
                                          .scheme_count = 1};
static const struct platform stripe = {.schemes = {{.headers = x_signature,
                                                    .header_count = 1,
                                                    .form = FORM_PAIRS,
                                                    .separator = ',',
                                                    .version = {"v1", 2},
                                                    .message = time_dot_body,
                                                    .message_count = 3}},
                                       .scheme_count = 1,
                                       .timestamp = {.from = {FROM_PAIR, .name = "t"}}};
#define STANDARD(header, words, kind, letters)                                                     \
    .algorithm = kind, .headers = header, .header_count = 1, .form = FORM_LIST,                    \
    .version = {letters, sizeof letters - 1}, .encoding = ENCODING_BASE64, .key = KEY_WHSEC,       \
    .message = words, .message_count = 5
static const struct platform standard = {
    .schemes = {{STANDARD(webhook_signature, webhook_message, HMAC_SHA256, "v1")},
                {STANDARD(webhook_signature, webhook_message, ED25519, "v1a")},
                {STANDARD(svix_signature, svix_message, HMAC_SHA256, "v1"),
                 .timestamp_header = "svix-timestamp"}},
    .scheme_count = 3,
    .timestamp = {.from = {FROM_HEADER, .name = "webhook-timestamp"}}};

static struct keyring keys_of(const struct platform *platform, const char *const *texts)
{
    struct keyring keys = {0};
    for (; *texts != NULL; texts++) {
        const char *reason = NULL;
        struct secret *secret = secret_new(platform, *texts, slice_of(*texts), 0, &reason);
        if (secret == NULL)
            fail_msg("%s: %s", *texts, reason);
        keys.secrets[keys.count++] = secret;
    }
    return keys;
}
#define KEYS(platform, ...) keys_of(platform, (const char *const[]){__VA_ARGS__, NULL})

static enum outcome judge(const struct platform *platform, const struct keyring *keys,
                          const struct inbound *in)
{
    struct verification found = {0};
    enum outcome outcome = verify_signature(platform, keys, in, NULL, BASE, NOW, &found);
    if ((outcome == OUTCOME_NONE) != (found.secret != NULL))
        fail_msg("outcome %d and a secret that does not go with it", outcome);
    return outcome;
}

static enum outcome once(const struct platform *platform, const char *secret, const char *header,
                         const char *value, struct slice body)
{
    struct keyring keys = KEYS(platform, secret);
    struct inbound in = request_of(body);
    request_add(&in, header, slice_of(value));
    request_add(&in, "x-time", slice_of("1531420618"));
    enum outcome outcome = judge(platform, &keys, &in);
    keyring_release(&keys);
    return outcome;
}

/* An implementation of its own: OpenSSL's one-shot function. */
static void sign(const EVP_MD *md, const char *key, struct slice text, bool base64, char *out,
                 size_t size)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned len;
    assert_non_null(
        HMAC(md, key, (int)strlen(key), (const unsigned char *)text.ptr, text.len, digest, &len));
    if (base64)
        EVP_EncodeBlock((unsigned char *)out, digest, (int)len);
    else
        for (unsigned i = 0; i < len; i++)
            snprintf(out + (size_t)2 * i, size - (size_t)2 * i, "%02x", digest[i]);
}

#define AA20 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define AA131 AA20 AA20 AA20 AA20 AA20 AA20 "aaaaaaaaaaaaaaaaaaaaaa"
#define X10(s) s s s s s s s s s s
static const struct {
    const char *key, *text, *sha256, *sha512;
} rfc4231[] = {
    {"0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", "Hi There",
     "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
     "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cde"
     "daa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854"},
    {"4a656665", "what do ya want for nothing?",
     "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
     "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554"
     "9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737"},
    {AA20, X10("\xdd\xdd\xdd\xdd\xdd"),
     "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
     "fa73b0089d56a284efb0f0756c890be9b1b5dbdd8ee81a3655f83e33b2279d39"
     "bf3e848279a722c806b485a47e67c807b946a337bee8942674278859e13292fb"},
    {"0102030405060708090a0b0c0d0e0f10111213141516171819", X10("\xcd\xcd\xcd\xcd\xcd"),
     "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
     "b0ba465637458c6990e5a8c5f61d4af7e576d97ff94b872de76f8050361ee3db"
     "a91ca5c11aa25eb4d679275cc5788063a5f19741120c4f2de2adebeb10a298dd"},
    {AA131, "Test Using Larger Than Block-Size Key - Hash Key First",
     "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
     "80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f352"
     "6b56d037e05f2598bd0fd2215d6a1e5295e64f73f63f0aec8b915a985d786598"},
    {AA131,
     "This is a test using a larger than block-size key and a larger than block-size data. The key "
     "needs to be hashed before being used by the HMAC algorithm.",
     "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
     "e37b6a775dc87dbaa4dfa9f96e5e3ffddebd71f8867289865df5a32d20cdc944"
     "b6022cac3c4982b10d5eeb55c3e4de15134676fb6de0446065c97440fa8c6a58"},
};

static void test_rfc4231(void **state)
{
    (void)state;
    struct platform sha256 = bare, sha512 = bare;
    sha256.schemes[0].key = sha512.schemes[0].key = KEY_HEX;
    sha512.schemes[0].algorithm = HMAC_SHA512;
    for (size_t i = 0; i < sizeof rfc4231 / sizeof *rfc4231; i++) {
        struct slice text = slice_of(rfc4231[i].text);
        assert_int_equal(once(&sha256, rfc4231[i].key, "x-signature", rfc4231[i].sha256, text),
                         OUTCOME_NONE);
        assert_int_equal(once(&sha512, rfc4231[i].key, "x-signature", rfc4231[i].sha512, text),
                         OUTCOME_NONE);
        assert_int_equal(once(&sha512, rfc4231[i].key, "x-signature", rfc4231[i].sha256, text),
                         OUTCOME_SIGNATURE_MALFORMED);
    }
}

static void test_github_vector(void **state)
{
    (void)state;
    struct platform github = fireflies;
    github.schemes[0].prefix_optional = false;
    static const char value[] =
        "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    static const char secret[] = "It's a Secret to Everybody";
    struct slice body = SLICE_LITERAL("Hello, World!");
    assert_int_equal(once(&github, secret, "x-hub-signature", value, body), OUTCOME_NONE);
    assert_int_equal(once(&github, secret, "x-hub-signature", value + 7, body),
                     OUTCOME_SIGNATURE_MALFORMED);
    assert_int_equal(once(&github, secret, "x-hub-signature", value, slice_of("Hello, World?")),
                     OUTCOME_SIGNATURE_MISMATCH);
    assert_int_equal(once(&github, "it's a Secret to Everybody", "x-hub-signature", value, body),
                     OUTCOME_SIGNATURE_MISMATCH);
    assert_int_equal(once(&fireflies, secret, "x-hub-signature", value + 7, body), OUTCOME_NONE);
}

static const char slack_body[] =
    "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
    "&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
    "&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554"
    "%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121."
    "803a0bc887a14d10d2c447fce8b6703c";
#define SLACK_SECRET "8f742231b10e8888abcd99yyyzzz85a5"
#define SLACK_HEX "a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"

static enum outcome slack(const char *value, const char *time)
{
    struct keyring keys = KEYS(&zoom, SLACK_SECRET);
    struct inbound in = request_of(slice_of(slack_body));
    if (value != NULL)
        request_add(&in, "x-signature", slice_of(value));
    if (time != NULL)
        request_add(&in, "x-time", slice_of(time));
    enum outcome outcome = judge(&zoom, &keys, &in);
    keyring_release(&keys);
    return outcome;
}

static void test_slack_vector(void **state)
{
    (void)state;
    assert_int_equal(slack("v0=" SLACK_HEX, "1531420618"), OUTCOME_NONE);
    assert_int_equal(slack("v0=" SLACK_HEX, "1531420619"), OUTCOME_SIGNATURE_MISMATCH);
    assert_int_equal(slack("v0=" SLACK_HEX, "01531420618"), OUTCOME_SIGNATURE_MISMATCH);
    assert_int_equal(slack("v0=" SLACK_HEX, ""), OUTCOME_TIMESTAMP_MISSING);
    assert_int_equal(slack("v0=" SLACK_HEX, NULL), OUTCOME_TIMESTAMP_MISSING);
    assert_int_equal(slack(NULL, "1531420618"), OUTCOME_SIGNATURE_MISSING);
}

static void test_malformed_digests(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "",
        "v0",
        "v0=",
        SLACK_HEX,
        "V0=" SLACK_HEX,
        "v0= " SLACK_HEX,
        "v0=" SLACK_HEX " ",
        "v0=" SLACK_HEX "0",
        "v0=" SLACK_HEX "00",
        "v1=" SLACK_HEX,
        "v0=A2114D57B48EAC39B9AD189DD8316235A7B4A8D21A10BD27519666489C69B503",
        "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b50",
        "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b5",
        "v0=g2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
        "v0=v0=" SLACK_HEX,
        "v0=ohFNV7SOrDm5rRid2DFiNae0qNIaEL0nUZZmSJxptQM=",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        if (slack(wrong[i], "1531420618") != OUTCOME_SIGNATURE_MALFORMED)
            fail_msg("'%s' is not malformed", wrong[i]);
}

static void test_repeated_headers(void **state)
{
    (void)state;
    static const char *const single[] = {"x-signature", "x-time", "x-event-id"};
    struct platform strict = zoom;
    strict.single_headers = single;
    strict.single_header_count = 3;
    static const char *const names[] = {"x-signature", "x-time", "x-event-id"};
    struct keyring keys = KEYS(&strict, SLACK_SECRET);
    for (size_t twice = 0; twice <= 3; twice++) {
        struct inbound in = request_of(slice_of(slack_body));
        request_add(&in, names[0], slice_of("v0=" SLACK_HEX));
        request_add(&in, names[1], slice_of("1531420618"));
        request_add(&in, names[2], slice_of("1"));
        if (twice < 3) /* even with the same value */
            request_add(&in, names[twice], in.headers[twice].value);
        assert_int_equal(judge(&strict, &keys, &in),
                         twice < 3 ? OUTCOME_SIGNATURE_REPEATED : OUTCOME_NONE);
    }
    keyring_release(&keys);
}

static void test_two_names_of_one_scheme(void **state)
{
    (void)state;
    char hex[129], other[129];
    sign(EVP_sha256(), "k", SLICE_LITERAL("{}"), false, hex, sizeof hex);
    sign(EVP_sha256(), "other", SLICE_LITERAL("{}"), false, other, sizeof other);
    struct keyring keys = KEYS(&fireflies, "k");
    for (int first = 0; first < 2; first++) {
        struct inbound in = request_of(SLICE_LITERAL("{}"));
        request_add(&in, two_names[first], slice_of(hex));
        assert_int_equal(judge(&fireflies, &keys, &in), OUTCOME_NONE);
        request_add(&in, two_names[!first], slice_of(hex));
        assert_int_equal(judge(&fireflies, &keys, &in), OUTCOME_NONE);
        in.headers[1].value = slice_of(other);
        assert_int_equal(judge(&fireflies, &keys, &in), OUTCOME_SIGNATURE_REPEATED);
    }
    keyring_release(&keys);
}

static void test_a_later_scheme_rescues_nothing(void **state)
{
    (void)state;
    static const char *const weak[] = {"x-hub-signature"}, *const strong[] = {
                                                               "x-hub-signature-256"};
    struct platform github = {.schemes = {{.headers = strong,
                                           .header_count = 1,
                                           .message = only_body,
                                           .message_count = 1},
                                          {.algorithm = HMAC_SHA1,
                                           .headers = weak,
                                           .header_count = 1,
                                           .message = only_body,
                                           .message_count = 1}},
                              .scheme_count = 2};
    struct keyring keys = KEYS(&github, "k");
    char sha1[129], sha256[129], bad[129];
    sign(EVP_sha1(), "k", SLICE_LITERAL("{}"), false, sha1, sizeof sha1);
    sign(EVP_sha256(), "k", SLICE_LITERAL("{}"), false, sha256, sizeof sha256);
    sign(EVP_sha256(), "z", SLICE_LITERAL("{}"), false, bad, sizeof bad);
    struct inbound in = request_of(SLICE_LITERAL("{}"));
    request_add(&in, weak[0], slice_of(sha1));
    assert_int_equal(judge(&github, &keys, &in), OUTCOME_NONE);
    request_add(&in, strong[0], slice_of(bad));
    assert_int_equal(judge(&github, &keys, &in), OUTCOME_SIGNATURE_MISMATCH);
    in.headers[1].value = slice_of("");
    assert_int_equal(judge(&github, &keys, &in), OUTCOME_SIGNATURE_MALFORMED);
    in.headers[1].value = slice_of(sha256);
    assert_int_equal(judge(&github, &keys, &in), OUTCOME_NONE);
    keyring_release(&keys);
}

static void test_rotation(void **state)
{
    (void)state;
    const char *reason = NULL;
    struct keyring keys = {0}, none = {0};
    keys.secrets[keys.count++] = secret_new(&bare, "new", slice_of("new"), 0, &reason);
    keys.secrets[keys.count++] = secret_new(&bare, "old", slice_of("old"), NOW, &reason);
    keys.secrets[keys.count++] = secret_new(&bare, "gone", slice_of("gone"), NOW - 1, &reason);
    static const char *const names[] = {"new", "old", "gone"};
    for (size_t i = 0; i < 3; i++) {
        char hex[129];
        sign(EVP_sha256(), names[i], SLICE_LITERAL("{}"), false, hex, sizeof hex);
        struct inbound in = request_of(SLICE_LITERAL("{}"));
        request_add(&in, "x-signature", slice_of(hex));
        struct verification found = {0};
        enum outcome outcome = verify_signature(&bare, &keys, &in, NULL, "", NOW, &found);
        assert_int_equal(outcome, i < 2 ? OUTCOME_NONE : OUTCOME_SIGNATURE_MISMATCH);
        if (i < 2)
            assert_string_equal(secret_label(found.secret), names[i]);
        assert_int_equal(judge(&bare, &none, &in), OUTCOME_NO_SECRET);
        in.header_count = 0;
        assert_int_equal(judge(&bare, &none, &in), OUTCOME_SIGNATURE_MISSING);
    }
    struct keyring expired = {.secrets = {keys.secrets[2]}, .count = 1};
    struct inbound in = request_of(SLICE_LITERAL("{}"));
    request_add(&in, "x-signature", slice_of("junk"));
    assert_int_equal(judge(&bare, &expired, &in), OUTCOME_NO_SECRET);
    keyring_release(&keys);
}

/* '#' stands for the digest. */
static enum outcome pairs(const char *shape, const char *hex)
{
    char value[1000];
    const char *mark = strchr(shape, '#');
    int front = mark != NULL ? (int)(mark - shape) : (int)strlen(shape);
    snprintf(value, sizeof value, "%.*s%s%s", front, shape, mark != NULL ? hex : "",
             mark != NULL ? mark + 1 : "");
    return once(&stripe, "whsec_text", "x-signature", value, SLICE_LITERAL("{}"));
}

static void test_pairs(void **state)
{
    (void)state;
    char hex[129];
    sign(EVP_sha256(), "whsec_text", SLICE_LITERAL("12.{}"), false, hex, sizeof hex);
#define OTHER "0000000000000000000000000000000000000000000000000000000000000000"
    assert_int_equal(pairs("t=12,v1=#", hex), OUTCOME_NONE);
    assert_int_equal(pairs("v1=#,t=12", hex), OUTCOME_NONE);
    assert_int_equal(pairs("t=12,v1=" OTHER ",v1=#,v0=junk", hex), OUTCOME_NONE);
    assert_int_equal(pairs("t=12,v1=junk,v1=#", hex), OUTCOME_NONE);
    assert_int_equal(pairs("t=12, v1=#", hex), OUTCOME_NONE); /* as WorkOS writes it */
    assert_int_equal(pairs("v0=junk,  v1=" OTHER ", v1=#, t=12", hex), OUTCOME_NONE);
    assert_int_equal(pairs("t=13,v1=#", hex), OUTCOME_SIGNATURE_MISMATCH);
    assert_int_equal(pairs("t=12,v1=" OTHER, hex), OUTCOME_SIGNATURE_MISMATCH);
    assert_int_equal(pairs("v1=#", hex), OUTCOME_TIMESTAMP_MISSING);
    assert_int_equal(pairs("t=,v1=#", hex), OUTCOME_TIMESTAMP_MISSING);
    static const char *const wrong[] = {
        "t=12",       "t=12,v0=#",  "t=12,v1=",       "t=12,v1=#,",   ",t=12,v1=#",     "t=12;v1=#",
        "t=12,V1=#",  "t=12 v1=#",  "t=12,t=12,v1=#", "t=,t=12,v1=#", "t=12,v1=#,junk", "#",
        "t=12,v1 =#", "t=12,v1= #", "t=12, ,v1=#",    "t=12,\tv1=#",  "t=12, t=12,v1=#"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        if (pairs(wrong[i], hex) != OUTCOME_SIGNATURE_MALFORMED)
            fail_msg("'%s' is not malformed", wrong[i]);
}

static void test_lists_are_bounded(void **state)
{
    (void)state;
    char hex[129], value[16000];
    sign(EVP_sha256(), "whsec_text", SLICE_LITERAL("12.{}"), false, hex, sizeof hex);
    for (size_t others = 14; others < 18; others++) {
        char *at = stpcpy(value, "t=12");
        for (size_t i = 0; i < others; i++)
            at = stpcpy(at, ",v1=" OTHER);
        stpcpy(stpcpy(at, ",v1="), hex);
        assert_int_equal(once(&stripe, "whsec_text", "x-signature", value, SLICE_LITERAL("{}")),
                         others + 1 <= PLATFORM_MAX_CANDIDATES ? OUTCOME_NONE
                                                               : OUTCOME_SIGNATURE_MALFORMED);
    }
    char *at = stpcpy(value, "t=12");
    while (at < value + sizeof value - 100)
        at = stpcpy(at, ",v9=0");
    stpcpy(stpcpy(at, ",v1="), hex);
    assert_int_equal(once(&stripe, "whsec_text", "x-signature", value, SLICE_LITERAL("{}")),
                     OUTCOME_NONE);
}

#define SVIX_KEY "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
#define SVIX_KEY_WHSEC "whsec_" SVIX_KEY
#define SVIX_ID "msg_p5jXN8AQM9LWM0D4loKWxJek"
#define SVIX_MAC "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

static enum outcome standard_judges(const struct keyring *keys, const char *kind, const char *value,
                                    const char *id)
{
    char names[3][32];
    static const char *const parts[] = {"signature", "id", "timestamp"};
    for (size_t i = 0; i < 3; i++)
        snprintf(names[i], sizeof names[i], "%s-%s", kind, parts[i]);
    struct inbound in = request_of(SLICE_LITERAL("{\"test\": 2432232314}"));
    request_add(&in, names[0], slice_of(value));
    request_add(&in, names[2], slice_of("1614265330"));
    if (id != NULL)
        request_add(&in, names[1], slice_of(id));
    struct verification found = {0};
    enum outcome outcome = verify_signature(&standard, keys, &in, NULL, BASE, NOW, &found);
    if (outcome == OUTCOME_NONE)
        assert_true(slice_is(found.timestamp, "1614265330"));
    return outcome;
}

static enum outcome standard_says(const char *secret, const char *kind, const char *value,
                                  const char *id)
{
    struct keyring keys = KEYS(&standard, secret);
    enum outcome outcome = standard_judges(&keys, kind, value, id);
    keyring_release(&keys);
    return outcome;
}

static void test_standard_webhooks_vector(void **state)
{
    (void)state;
    static const char *const kinds[] = {"webhook", "svix"};
    for (size_t i = 0; i < 2; i++) {
        const char *kind = kinds[i];
        assert_int_equal(standard_says("whsec_" SVIX_KEY, kind, "v1," SVIX_MAC, SVIX_ID),
                         OUTCOME_NONE);
        assert_int_equal(standard_says(SVIX_KEY, kind, "v1," SVIX_MAC, SVIX_ID), OUTCOME_NONE);
        assert_int_equal(standard_says(SVIX_KEY, kind, "v2,x v1,AAAA v1," SVIX_MAC, SVIX_ID),
                         OUTCOME_NONE);
        assert_int_equal(standard_says(SVIX_KEY, kind, "v1," SVIX_MAC, "msg_other"),
                         OUTCOME_SIGNATURE_MISMATCH);
        static const char *const wrong[] = {"",
                                            "v1",
                                            "v1,",
                                            "v2," SVIX_MAC,
                                            "v1=" SVIX_MAC,
                                            SVIX_MAC,
                                            "v1," SVIX_MAC "=",
                                            "v1," SVIX_MAC "  x",
                                            "v1,g0hM9SsE-OTPJTGt_tmIKtSyZlE3uFJELVlNIOLJ1OE=",
                                            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE",
                                            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OF="};
        for (size_t w = 0; w < sizeof wrong / sizeof *wrong; w++)
            if (standard_says(SVIX_KEY, kind, wrong[w], SVIX_ID) != OUTCOME_SIGNATURE_MALFORMED)
                fail_msg("'%s' is not malformed", wrong[w]);
        /* An id that holds the separator could shift the boundaries of the message. */
        assert_int_equal(standard_says(SVIX_KEY, kind, "v1," SVIX_MAC, "msg.1"),
                         OUTCOME_SIGNATURE_MALFORMED);
        assert_int_equal(standard_says(SVIX_KEY, kind, "v1," SVIX_MAC, ""),
                         OUTCOME_SIGNATURE_MALFORMED);
        assert_int_equal(standard_says(SVIX_KEY, kind, "v1," SVIX_MAC, NULL),
                         OUTCOME_SIGNATURE_MALFORMED);
    }
}

/* A new public key as a secret, and its signature of the message that standard_says() sends. */
static void make_ed25519(char key[100], char signature[100])
{
    static const char message[] = SVIX_ID ".1614265330.{\"test\": 2432232314}";
    unsigned char public[32], bytes[64];
    size_t public_len = sizeof public, signature_len = sizeof bytes, len;
    EVP_PKEY *pair = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    assert_int_equal(EVP_PKEY_get_raw_public_key(pair, public, &public_len), 1);
    assert_int_equal(EVP_DigestSignInit(ctx, NULL, NULL, NULL, pair), 1);
    assert_int_equal(EVP_DigestSign(ctx, bytes, &signature_len, (const unsigned char *)message,
                                    sizeof message - 1),
                     1);
    memcpy(key, "whpk_", 5);
    assert_true(codec_encode_base64(public, 32, key + 5, 95, &len));
    assert_true(codec_encode_base64(bytes, 64, signature, 100, &len));
    EVP_MD_CTX_free(ctx);
    EVP_PKEY_free(pair);
}

static void test_ed25519_beside_hmac(void **state)
{
    (void)state;
    char key[100], signature[100], value[200], both[400];
    make_ed25519(key, signature);
    snprintf(value, sizeof value, "v1a,%s", signature);
    snprintf(both, sizeof both, "v1," SVIX_MAC " %s", value);
    assert_int_equal(standard_says(key, "webhook", value, SVIX_ID), OUTCOME_NONE);
    assert_int_equal(standard_says(key, "webhook", both, SVIX_ID), OUTCOME_NONE);
    assert_int_equal(standard_says(SVIX_KEY_WHSEC, "webhook", both, SVIX_ID), OUTCOME_NONE);
    assert_int_equal(standard_says(key, "webhook", value, "msg_other"), OUTCOME_SIGNATURE_MISMATCH);
    assert_int_equal(standard_says(key, "webhook", "v1a,AAAA", SVIX_ID),
                     OUTCOME_SIGNATURE_MALFORMED);
    assert_int_equal(standard_says(key, "svix", "v1," SVIX_MAC, SVIX_ID), OUTCOME_NO_SECRET);
}

/* The right signature behind `forged` wrong ones, its key behind `others`. */
static enum outcome ed25519_says(size_t others, size_t forged)
{
    char texts[SECRETS_MAX][100], wrong[100], right[100], value[2048];
    const char *secrets[SECRETS_MAX + 1] = {0};
    for (size_t i = 0; i <= others; i++) {
        make_ed25519(texts[i], right);
        secrets[i] = texts[i];
    }
    memcpy(wrong, right, sizeof wrong);
    wrong[0] = wrong[0] == 'A' ? 'B' : 'A';
    size_t len = 0;
    for (size_t i = 0; i <= forged; i++)
        len += (size_t)snprintf(value + len, sizeof value - len, "%sv1a,%s", i > 0 ? " " : "",
                                i < forged ? wrong : right);
    struct keyring keys = keys_of(&standard, secrets);
    enum outcome outcome = standard_judges(&keys, "webhook", value, SVIX_ID);
    keyring_release(&keys);
    return outcome;
}

static void test_public_keys_have_so_many_tries(void **state)
{
    (void)state;
    assert_int_equal(ed25519_says(0, 7), OUTCOME_NONE);
    assert_int_equal(ed25519_says(0, 8), OUTCOME_SIGNATURE_MISMATCH);
    /* A rotation: four signatures, the older key. */
    assert_int_equal(ed25519_says(1, 3), OUTCOME_NONE);
    assert_int_equal(ed25519_says(1, 4), OUTCOME_SIGNATURE_MISMATCH);
    assert_int_equal(ed25519_says(SECRETS_MAX - 1, 0), OUTCOME_NONE);
}

static void test_static_equality(void **state)
{
    (void)state;
    static const char *const authorization[] = {"authorization"};
    struct platform bearer = {.schemes = {{.algorithm = STATIC_EQUALITY,
                                           .headers = authorization,
                                           .header_count = 1,
                                           .prefix = {"Bearer ", 7}}},
                              .scheme_count = 1},
                    basic = bearer;
    basic.schemes[0].prefix = SLICE_LITERAL("Basic ");
    basic.schemes[0].encoding = ENCODING_BASE64;
    struct slice body = {0};
    static const struct {
        const char *value;
        enum outcome outcome;
    } cases[] = {{"Bearer s3cret", OUTCOME_NONE},
                 {"Bearer s3creT", OUTCOME_SIGNATURE_MISMATCH},
                 {"Bearer s3cre", OUTCOME_SIGNATURE_MISMATCH},
                 {"Bearer s3cret ", OUTCOME_SIGNATURE_MISMATCH},
                 {"Bearer  s3cret", OUTCOME_SIGNATURE_MISMATCH},
                 {"Bearer ", OUTCOME_SIGNATURE_MALFORMED},
                 {"s3cret", OUTCOME_SIGNATURE_MALFORMED},
                 {"", OUTCOME_SIGNATURE_MALFORMED}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(once(&bearer, "s3cret", "authorization", cases[i].value, body),
                         cases[i].outcome);
    assert_int_equal(once(&basic, "u:p", "authorization", "Basic dTpw", body), OUTCOME_NONE);
    assert_int_equal(once(&basic, "u:p", "authorization", "Basic dTpx", body),
                     OUTCOME_SIGNATURE_MISMATCH);
    assert_int_equal(once(&basic, "u:p", "authorization", "Basic u:p", body),
                     OUTCOME_SIGNATURE_MISMATCH);
}

static void test_url_and_method(void **state)
{
    (void)state;
    struct platform hubspot = zoom;
    hubspot.schemes[0].message = method_url_body_time;
    hubspot.schemes[0].encoding = ENCODING_BASE64;
    char base64[200], value[203];
    sign(EVP_sha256(), "k", SLICE_LITERAL("POST" BASE "/webhooks/test?a=b{}77"), true, base64,
         sizeof base64);
    snprintf(value, sizeof value, "v0=%s", base64);
    struct keyring keys = KEYS(&hubspot, "k");
    struct inbound in = request_of(SLICE_LITERAL("{}"));
    in.query = SLICE_LITERAL("a=b");
    request_add(&in, "x-time", slice_of("77"));
    request_add(&in, "x-signature", slice_of(value));
    assert_int_equal(judge(&hubspot, &keys, &in), OUTCOME_NONE);
    in.query = SLICE_LITERAL("a=c");
    assert_int_equal(judge(&hubspot, &keys, &in), OUTCOME_SIGNATURE_MISMATCH);
    in.query = SLICE_LITERAL("a=b");
    in.method = SLICE_LITERAL("GET");
    assert_int_equal(judge(&hubspot, &keys, &in), OUTCOME_SIGNATURE_MISMATCH);
    keyring_release(&keys);
}

static void test_bodies_of_all_kinds(void **state)
{
    (void)state;
    size_t big = 1 << 20;
    char *million = malloc(big);
    memset(million, 'x', big);
    const struct slice bodies[] = {{0},
                                   {"", 0},
                                   {"a\0b\0", 4},
                                   SLICE_LITERAL("{\"t\":\"Jos\xc3\xa9 \xf0\x9f\x98\x80\"}"),
                                   SLICE_LITERAL("\xff\xfe\n\r\n"),
                                   {million, big}};
    static const enum signature_algorithm algorithms[] = {HMAC_SHA256, HMAC_SHA1, HMAC_SHA512};
    for (size_t a = 0; a < 3; a++) {
        struct platform platform = bare;
        platform.schemes[0].algorithm = algorithms[a];
        const EVP_MD *md = a == 0 ? EVP_sha256() : a == 1 ? EVP_sha1() : EVP_sha512();
        for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
            char hex[129];
            sign(md, "k", bodies[i], false, hex, sizeof hex);
            assert_int_equal(once(&platform, "k", "x-signature", hex, bodies[i]), OUTCOME_NONE);
            hex[0] = hex[0] == '0' ? '1' : '0';
            assert_int_equal(once(&platform, "k", "x-signature", hex, bodies[i]),
                             OUTCOME_SIGNATURE_MISMATCH);
        }
    }
    free(million);
}

static void test_what_we_sign_verifies(void **state)
{
    (void)state;
    static const struct {
        const struct platform *platform;
        const char *header, *time_header;
    } cases[] = {{&bare, "x-signature", NULL},
                 {&zoom, "x-signature", "x-time"},
                 {&stripe, "x-signature", NULL},
                 {&fireflies, "x-hub-signature", NULL},
                 {&standard, "webhook-signature", "webhook-timestamp"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct keyring keys = KEYS(cases[i].platform, SVIX_KEY_WHSEC);
        struct inbound in = request_of(SLICE_LITERAL("{\"n\":1}"));
        struct slice time = SLICE_LITERAL("1700000000");
        char value[300], small[20];
        request_add(&in, "webhook-id", slice_of("msg_1"));
        assert_true(verify_sign(cases[i].platform, &cases[i].platform->schemes[0], keys.secrets[0],
                                &in, BASE, time, value, sizeof value));
        assert_false(verify_sign(cases[i].platform, &cases[i].platform->schemes[0], keys.secrets[0],
                                 &in, BASE, time, small, sizeof small));
        request_add(&in, cases[i].header, slice_of(value));
        if (cases[i].time_header != NULL)
            request_add(&in, cases[i].time_header, time);
        assert_int_equal(judge(cases[i].platform, &keys, &in), OUTCOME_NONE);
        in.body = SLICE_LITERAL("{\"n\":2}");
        assert_int_equal(judge(cases[i].platform, &keys, &in), OUTCOME_SIGNATURE_MISMATCH);
        keyring_release(&keys);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rfc4231),
        cmocka_unit_test(test_github_vector),
        cmocka_unit_test(test_slack_vector),
        cmocka_unit_test(test_standard_webhooks_vector),
        cmocka_unit_test(test_malformed_digests),
        cmocka_unit_test(test_repeated_headers),
        cmocka_unit_test(test_two_names_of_one_scheme),
        cmocka_unit_test(test_a_later_scheme_rescues_nothing),
        cmocka_unit_test(test_rotation),
        cmocka_unit_test(test_pairs),
        cmocka_unit_test(test_lists_are_bounded),
        cmocka_unit_test(test_ed25519_beside_hmac),
        cmocka_unit_test(test_public_keys_have_so_many_tries),
        cmocka_unit_test(test_static_equality),
        cmocka_unit_test(test_url_and_method),
        cmocka_unit_test(test_bodies_of_all_kinds),
        cmocka_unit_test(test_what_we_sign_verifies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
