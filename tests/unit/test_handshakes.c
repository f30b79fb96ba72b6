/* The vocabulary against senders that present a secret instead of signing, and against the
 * handshakes by which vendors test an address: each is a platform.yaml of its own, judged by the
 * steps of the edge. Signed deliveries are in test_senders.c. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "sender.h"

#define KEY "s3cret-of-the-vendor"
#define LIMITED "limited: {status: 503}\n"
#define NOTES                                                                                      \
    "event_type: /type\n"                                                                          \
    "events: [{type: note.created}]\n"                                                             \
    "id: [/id]\n" LIMITED
#define NOTE "{\"type\":\"note.created\",\"id\":\"n1\"}"

static struct post post_of(const char *path, const char *body)
{
    struct post post = {.method = "POST", .path = path, .now = NOW};
    post_body(&post, "%s", body);
    return post;
}

static struct post get_of(const char *path, const char *query)
{
    return (struct post){.method = "GET", .path = path, .query = query, .now = NOW};
}

/* --- secrets that are presented --------------------------------------------------------------- */

static void expect_static(const char *yaml, const char *secret, const char *path,
                          const char *header, const char *right)
{
    struct sender *sender = SENDER(yaml, "another one", secret);
    struct post post = post_of(path, NOTE);
    post_add(&post, header, "%s", right);
    expect_outcome(right, sender_post(sender, &post), OUTCOME_ACCEPTED);
    assert_string_equal(sender->id, "n1");
    char *value = post.headers[0].value;
    size_t len = strlen(value);
    for (size_t i = 0; i < len; i++) {
        value[i] ^= 1;
        if (sender_post(sender, &post) == OUTCOME_ACCEPTED || sender->answer.status != 401)
            fail_msg("%s passes for %s", value, right);
        value[i] ^= 1;
    }
    set_text(value + len, 2, "x");
    assert_int_not_equal(sender_post(sender, &post), OUTCOME_ACCEPTED);
    value[len - 1] = '\0';
    assert_int_not_equal(sender_post(sender, &post), OUTCOME_ACCEPTED);
    value[0] = '\0';
    expect_outcome("empty", sender_post(sender, &post), OUTCOME_SIGNATURE_MALFORMED);
    set_text(value, sizeof post.headers[0].value, "%s", right);
    post_add(&post, header, "%s", right);
    expect_outcome("twice", sender_post(sender, &post), OUTCOME_SIGNATURE_REPEATED);
    post.header_count = 0;
    expect_outcome("none", sender_post(sender, &post), OUTCOME_SIGNATURE_MISSING);
    sender_close(sender);
}

static void a_header_may_hold_the_secret(void **state)
{
    (void)state;
    expect_static(
        "name: tldv\ntitle: tl;dv\nsignatures: {algorithm: static, header: x-api-key}\n" NOTES, KEY,
        "/webhooks/tldv", "x-api-key", KEY);
    expect_static("name: zoom-custom\ntitle: Zoom, custom header\n"
                  "signatures: {algorithm: static, header: x-zoom-key}\n" NOTES,
                  KEY, "/webhooks/zoom-custom", "x-zoom-key", KEY);
    expect_static(
        "name: zoom-bearer\ntitle: Zoom, token\n"
        "signatures: {algorithm: static, header: authorization, prefix: \"Bearer \"}\n" NOTES,
        KEY, "/webhooks/zoom-bearer", "authorization", "Bearer " KEY);
    /* RFC 7617's example. */
    expect_static("name: zoom-basic\ntitle: Zoom, basic\n"
                  "signatures: {algorithm: static, header: authorization, prefix: \"Basic \", "
                  "encoding: base64}\n" NOTES,
                  "Aladdin:open sesame", "/webhooks/zoom-basic", "authorization",
                  "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
}

/* Grain signs nothing and tests an address with any body: that is taken and goes no further. */
static void the_path_may_hold_the_secret(void **state)
{
    (void)state;
    struct sender *sender =
        SENDER("name: grain\ntitle: Grain\nendpoint_token: authenticates\n"
               "event_type: [/type, {means: test}]\n"
               "events: [{type: recording_added, required: /data/id, id: [[/type, /data/id]]}]\n"
               "id: [{header: x-id}]\n" LIMITED,
               "unused");
    sender->token = SLICE_LITERAL("abcdefghijklmnopqrstuvwxyz");
    struct post post = post_of("/webhooks/grain/abcdefghijklmnopqrstuvwxyz",
                               "{\"type\":\"recording_added\",\"data\":{\"id\":\"r1\"}}");
    expect_outcome("the path", sender_post(sender, &post), OUTCOME_ACCEPTED);
    assert_string_equal(sender->id, "recording_added:r1");
    post_add(&post, "x-id", "1");
    expect_outcome("one id", sender_post(sender, &post), OUTCOME_ACCEPTED);
    post_add(&post, "x-id", "1");
    expect_outcome("two ids", sender_post(sender, &post), OUTCOME_SIGNATURE_REPEATED);
    post.header_count = 0;
    post.path = "/webhooks/grain/abcdefghijklmnopqrstuvwxyZ";
    expect_outcome("another path", sender_post(sender, &post), OUTCOME_UNKNOWN_ENDPOINT);
    post.path = "/webhooks/grain";
    expect_outcome("no path", sender_post(sender, &post), OUTCOME_SIGNATURE_MISSING);
    post = post_of("/webhooks/grain/abcdefghijklmnopqrstuvwxyz", "{\"hello\":1}");
    expect_outcome("a test", sender_post(sender, &post), OUTCOME_IGNORED_EVENT_TYPE);
    assert_string_equal(sender->type, "test");
    assert_int_equal(sender->answer.status, 200);
    sender_close(sender);
}

static void the_query_may_hold_the_secret(void **state)
{
    (void)state;
    struct sender *sender = SENDER("name: meetgeek\ntitle: MeetGeek\n"
                                   "signatures: {algorithm: static, query: token}\n"
                                   "event_type: {json: /meeting_id, means: meeting.ready}\n"
                                   "events: [{type: meeting.ready}]\n"
                                   "id: [/meeting_id]\n" LIMITED,
                                   "a key/with + signs");
    struct post post = post_of("/webhooks/meetgeek", "{\"meeting_id\":\"m1\"}");
    static const struct {
        const char *query;
        enum outcome outcome;
    } cases[] = {
        {"token=a+key%2fwith%20%2B+signs", OUTCOME_ACCEPTED},
        {"x=1&token=a+key/with+%2B+signs&y", OUTCOME_ACCEPTED},
        {"token=a+key/with+++signs", OUTCOME_SIGNATURE_MISMATCH},
        {"token=a+key/with+%2B+sign", OUTCOME_SIGNATURE_MISMATCH},
        {"token=a+key/with+%2B+signs%00", OUTCOME_SIGNATURE_MISMATCH},
        {"token=", OUTCOME_SIGNATURE_MALFORMED},
        {"token", OUTCOME_SIGNATURE_MALFORMED},
        {"token=%zz", OUTCOME_SIGNATURE_MALFORMED},
        {"token=a+key/with+%2B+signs&token=a+key/with+%2B+signs", OUTCOME_SIGNATURE_MALFORMED},
        {"Token=a+key/with+%2B+signs", OUTCOME_SIGNATURE_MISSING},
        {"", OUTCOME_SIGNATURE_MISSING},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        post.query = cases[i].query;
        expect_outcome(cases[i].query, sender_post(sender, &post), cases[i].outcome);
    }
    sender_close(sender);
}

static const char graph[] =
    "name: graph\n"
    "title: Microsoft Graph\n"
    "content_types: [application/json, text/plain]\n"
    "signatures: {algorithm: static, json: /value/*/clientState}\n"
    "challenges: {via: post-query, token: validationToken, max: 256, unsigned: true, answer: "
    "text}\n"
    "event_type: /value/*/changeType\n"
    "events: [{type: created}, {type: updated}]\n"
    "id: [/value/*/id, [/value/*/subscriptionId, /value/*/resource, body-digest]]\n"
    "limited: {status: 503}\n";

#define STATE(text) "{\"changeType\":\"created\",\"id\":\"g1\",\"clientState\":" text "}"

static void every_value_in_the_body_must_be_the_secret(void **state)
{
    (void)state;
    struct sender *sender = SENDER(graph, "another", KEY);
    static const struct {
        const char *body;
        enum outcome outcome;
    } cases[] = {
        {"{\"value\":[" STATE("\"" KEY "\"") "]}", OUTCOME_ACCEPTED},
        {"{\"value\":[" STATE("\"" KEY "\"") "," STATE("\"another\"") "]}", OUTCOME_ACCEPTED},
        {"{\"value\":[" STATE("\"wrong\"") "]}", OUTCOME_SIGNATURE_MISMATCH},
        {"{\"value\":[" STATE("\"" KEY "\"") "," STATE("\"wrong\"") "]}",
         OUTCOME_SIGNATURE_MISMATCH},
        {"{\"value\":[" STATE("\"wrong\"") "," STATE("\"" KEY "\"") "]}",
         OUTCOME_SIGNATURE_MISMATCH},
        {"{\"value\":[" STATE("\"" KEY "\"") ",{\"changeType\":\"created\"}]}",
         OUTCOME_SIGNATURE_MALFORMED},
        {"{\"value\":[" STATE("\"" KEY "\"") "," STATE("null") "]}", OUTCOME_SIGNATURE_MALFORMED},
        {"{\"value\":[" STATE("\"" KEY "\"") "," STATE("[\"" KEY "\"]") "]}",
         OUTCOME_SIGNATURE_MALFORMED},
        {"{\"value\":[" STATE("\"" KEY "\"") ",7]}", OUTCOME_SIGNATURE_MALFORMED},
        {"{\"value\":[" STATE("\"" KEY "\",\"clientState\":\"" KEY "\"") "]}",
         OUTCOME_SIGNATURE_MISSING},
        {"{\"value\":[" STATE("\"" KEY "\"") "," STATE("\"" KEY "\",\"clientState\":\"x\"") "]}",
         OUTCOME_SIGNATURE_MALFORMED},
        {"{\"value\":[]}", OUTCOME_SIGNATURE_MISSING},
        {"{}", OUTCOME_SIGNATURE_MISSING},
        {"not json", OUTCOME_SIGNATURE_MISSING},
        {"", OUTCOME_SIGNATURE_MISSING},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct post post = post_of("/webhooks/graph", cases[i].body);
        expect_outcome(cases[i].body, sender_post(sender, &post), cases[i].outcome);
    }
    sender_close(sender);
}

static void values_in_a_body_are_bounded(void **state)
{
    (void)state;
    struct sender *sender =
        SENDER("name: acme\ntitle: Acme\nsignatures: {algorithm: static, json: /v/*}\n"
               "event_type: {means: a}\nevents: [{type: a}]\n" LIMITED,
               "k");
    struct inbound in = {.method = SLICE_LITERAL("POST"), .path = SLICE_LITERAL("/webhooks/acme")};
    struct json_reader *reader = json_reader_new(1 << 16);
    char *body = xmalloc(1 << 16);
    for (size_t count = PLATFORM_MAX_VALUES - 1; count < PLATFORM_MAX_VALUES + 3; count++) {
        char *at = stpcpy(body, "{\"v\":[\"k\"");
        for (size_t i = 1; i < count; i++)
            at = stpcpy(at, ",\"k\"");
        at = stpcpy(at, "]}");
        in.body = (struct slice){body, (size_t)(at - body)};
        const struct json *json;
        struct verification found;
        assert_int_equal(json_read(reader, in.body, &json), OUTCOME_NONE);
        expect_outcome("many values",
                       verify_signature(sender->platform, &sender->keys, &in, json, "", 0,
                                        &found) == OUTCOME_NONE
                           ? OUTCOME_ACCEPTED
                           : OUTCOME_SIGNATURE_MISMATCH,
                       count <= PLATFORM_MAX_VALUES ? OUTCOME_ACCEPTED
                                                    : OUTCOME_SIGNATURE_MISMATCH);
    }
    free(body);
    json_reader_free(reader);
    sender_close(sender);
}

/* Notifications without a body: all that they say stands in headers. */
static const char calendar[] =
    "name: google-calendar\n"
    "title: Google Calendar\n"
    "body: opaque\n"
    "signatures: {algorithm: static, header: x-goog-channel-token}\n"
    "event_type: {header: x-goog-resource-state}\n"
    "events: [{type: exists}, {type: not_exists}]\n"
    "id: [[{header: x-goog-channel-id}, {header: x-goog-message-number}]]\n" LIMITED;

static void a_body_may_be_empty(void **state)
{
    (void)state;
    struct sender *sender = SENDER(calendar, KEY);
    struct post post = post_of("/webhooks/google-calendar", "");
    post_add(&post, "x-goog-channel-token", KEY);
    post_add(&post, "x-goog-resource-state", "exists");
    post_add(&post, "x-goog-channel-id", "ch:1");
    post_add(&post, "x-goog-message-number", "7");
    expect_outcome("a change", sender_post(sender, &post), OUTCOME_ACCEPTED);
    assert_string_equal(sender->type, "exists");
    assert_string_equal(sender->id, "ch%3A1:7");
    post_set(&post, 1, "sync");
    expect_outcome("the first message", sender_post(sender, &post), OUTCOME_IGNORED_EVENT_TYPE);
    assert_int_equal(sender->answer.status, 200);
    post_set(&post, 1, "exists");
    post_add(&post, "x-goog-message-number", "8");
    expect_outcome("two numbers", sender_post(sender, &post), OUTCOME_SIGNATURE_REPEATED);
    /* All empty bodies have one digest, so that is no id. */
    post.header_count = 3;
    expect_outcome("no number", sender_post(sender, &post), OUTCOME_FIELD_MISSING);
    assert_string_equal(sender->id, "");
    post_set(&post, 0, "s3cret");
    expect_outcome("another token", sender_post(sender, &post), OUTCOME_SIGNATURE_MISMATCH);
    sender_close(sender);
}

static void an_opaque_body_is_not_read(void **state)
{
    (void)state;
    struct sender *sender =
        SENDER("name: acme\ntitle: Acme\nbody: opaque\n"
               "content_types: [application/x-www-form-urlencoded]\n"
               "signatures: {algorithm: hmac-sha256, header: x-sig, message: \"{body}\"}\n"
               "event_type: {means: form}\nevents: [{type: form}]\n"
               "id: [[{text: \"form/1\"}, {header: x-id}]]\n" LIMITED,
               KEY);
    struct post post = post_of("/webhooks/acme", "a=1&b=%7B");
    post_add(&post, "x-sig", "%s", HEX256(KEY, "%s", post.body));
    post_add(&post, "content-type", "application/x-www-form-urlencoded; charset=utf-8");
    expect_outcome("a form", sender_post(sender, &post), OUTCOME_ACCEPTED);
    unsigned char digest[EVENT_DIGEST_SIZE];
    event_digest((struct slice){post.body, post.body_len}, digest);
    assert_string_equal(sender->id, encoded(digest, sizeof digest, false));
    post_add(&post, "x-id", "7");
    expect_outcome("a form with an id", sender_post(sender, &post), OUTCOME_ACCEPTED);
    assert_string_equal(sender->id, "form/1:7");
    sender_close(sender);
}

/* --- handshakes by GET ------------------------------------------------------------------------ */

#define SIGNED_BODY(header)                                                                        \
    "signatures: {algorithm: hmac-sha256, header: " header ", prefix: sha256=, message: "          \
    "\"{body}\"}\n"

/* Two notifications with the same bytes are two changes, so each delivery is its own event. */
static const char dropbox[] =
    "name: dropbox\n"
    "title: Dropbox\n"
    "signatures: {algorithm: hmac-sha256, header: x-dropbox-signature, message: \"{body}\"}\n"
    "challenges: {via: get-query, token: challenge, unsigned: true, answer: text}\n"
    "event_type: {json: /list_folder/accounts/0, means: files.changed}\n"
    "events: [{type: files.changed}]\n"
    "id: [arrival]\n" LIMITED;

static void dropbox_shakes_hands(void **state)
{
    (void)state;
    struct sender *sender = SENDER(dropbox, KEY);
    struct post get = get_of("/webhooks/dropbox", "challenge=dB%3A1+x");
    expect_outcome("GET", sender_post(sender, &get), OUTCOME_CHALLENGED);
    expect_answer(sender, "text/plain", "dB:1 x");
    get.query = "challenges=x";
    expect_outcome("no handshake", sender_post(sender, &get), OUTCOME_METHOD_NOT_ALLOWED);
    get.query = "challenge=a&challenge=b";
    expect_outcome("two", sender_post(sender, &get), OUTCOME_CHALLENGE_REFUSED);

    struct post post = post_of("/webhooks/dropbox", "{\"list_folder\":{\"accounts\":[\"a\"]}}");
    post_add(&post, "x-dropbox-signature", "%s", HEX256(KEY, "%s", post.body));
    char first[64];
    expect_outcome("POST", sender_post(sender, &post), OUTCOME_ACCEPTED);
    assert_string_equal(sender->id, "1739923528000000");
    set_text(first, sizeof first, "%s", sender->id);
    expect_outcome("again", sender_post_at(sender, &post, NOW + 1), OUTCOME_ACCEPTED);
    assert_string_not_equal(first, sender->id);
    post.query = "challenge=x";
    expect_outcome("POST with it", sender_post(sender, &post), OUTCOME_ACCEPTED);
    post.body[3] ^= 1;
    expect_outcome("tampered", sender_post(sender, &post), OUTCOME_SIGNATURE_MISMATCH);
    sender_close(sender);
}

static const char meta[] =
    "name: meta\n"
    "title: Meta\n" SIGNED_BODY(
        "x-hub-signature-256") "challenges: {via: get-query, when: hub.mode, equals: subscribe, "
                               "token: hub.challenge,\n"
                               "  verify_key: hub.verify_token, verify_prefix: verify_, unsigned: "
                               "true, answer: text}\n"
                               "event_type: /object\n"
                               "events: [{type: page}]\n"
                               "id: [[/entry/*/id, body-digest]]\n" LIMITED;

static void meta_shakes_hands(void **state)
{
    (void)state;
    struct sender *sender = SENDER(meta, KEY, "verify_this", "old-" KEY);
    static const struct {
        const char *query;
        enum outcome outcome;
    } cases[] = {
        {"hub.mode=subscribe&hub.verify_token=verify_this&hub.challenge=115", OUTCOME_CHALLENGED},
        {"hub.mode=subscribe&hub.verify_token=verify_thiS&hub.challenge=115",
         OUTCOME_CHALLENGE_UNVERIFIED},
        {"hub.mode=subscribe&hub.verify_token=" KEY "&hub.challenge=115",
         OUTCOME_CHALLENGE_UNVERIFIED},
        {"hub.mode=subscribe&hub.challenge=115", OUTCOME_CHALLENGE_UNVERIFIED},
        {"hub.mode=subscribe&hub.verify_token=verify_this", OUTCOME_CHALLENGE_REFUSED},
        {"hub.mode=unsubscribe&hub.verify_token=verify_this&hub.challenge=115",
         OUTCOME_METHOD_NOT_ALLOWED},
        {"hub.verify_token=verify_this&hub.challenge=115", OUTCOME_METHOD_NOT_ALLOWED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct post get = get_of("/webhooks/meta", cases[i].query);
        expect_outcome(cases[i].query, sender_post(sender, &get), cases[i].outcome);
        if (i == 0)
            expect_answer(sender, "text/plain", "115");
        else
            assert_true(sender->answer.status >= 400);
    }
    struct post post =
        post_of("/webhooks/meta", "{\"object\":\"page\",\"entry\":[{\"id\":\"1\"}]}");
    post_add(&post, "x-hub-signature-256", "sha256=%s", HEX256(KEY, "%s", post.body));
    expect_outcome("POST", sender_post(sender, &post), OUTCOME_ACCEPTED);
    /* The verify token travels in addresses: it must not sign anything. */
    post_set(&post, 0, "sha256=%s", HEX256("verify_this", "%s", post.body));
    expect_outcome("signed with the verify token", sender_post(sender, &post),
                   OUTCOME_SIGNATURE_MISMATCH);
    sender_close(sender);
}

static const char twitter[] =
    "name: x\n"
    "title: X\n"
    "signatures: {algorithm: hmac-sha256, header: x-twitter-webhooks-signature, encoding: base64, "
    "prefix: sha256=, message: \"{body}\"}\n"
    "challenges: {via: get-query, token: crc_token, unsigned: true, answer: hmac-json, "
    "hmac_field: response_token, hmac_prefix: sha256=, hmac_encoding: base64}\n"
    "event_type: {json: /tweet_create_events, means: tweet.created}\n"
    "events: [{type: tweet.created}]\n"
    "id: [/tweet_create_events/*/id_str]\n" LIMITED;

static void x_shakes_hands(void **state)
{
    (void)state;
    struct sender *sender = SENDER(twitter, KEY, "older");
    struct post get = get_of("/webhooks/x", "nonce=n&crc_token=MzYy-N_w==");
    char body[200];
    expect_outcome("GET", sender_post(sender, &get), OUTCOME_CHALLENGED);
    snprintf(body, sizeof body, "{\"response_token\":\"sha256=%s\"}", B64_256(KEY, "MzYy-N_w=="));
    expect_answer(sender, "application/json", body);
    get.query = "crc_token=%7B%22tweet_create_events%22%3A1%7D";
    expect_outcome("an event", sender_post(sender, &get), OUTCOME_CHALLENGE_REFUSED);
    struct post post = post_of("/webhooks/x", "{\"tweet_create_events\":[{\"id_str\":\"99\"}]}");
    post_add(&post, "x-twitter-webhooks-signature", "sha256=%s", B64_256(KEY, "%s", post.body));
    expect_outcome("POST", sender_post(sender, &post), OUTCOME_ACCEPTED);
    assert_string_equal(sender->id, "99");
    post.body[2] ^= 1;
    expect_outcome("tampered", sender_post(sender, &post), OUTCOME_SIGNATURE_MISMATCH);
    sender_close(sender);
}

/* An endpoint's handshake is answered for who has the endpoint, with that one's secrets. */
static void endpoints_shake_hands_with_their_own_secrets(void **state)
{
    (void)state;
    struct sender *sender = SENDER(twitter, "of-the-endpoint");
    struct post get = get_of("/webhooks/x/abcdefghijklmnopqrstuvwxyz", "crc_token=t");
    char body[200];
    expect_outcome("GET", sender_post(sender, &get), OUTCOME_CHALLENGED);
    snprintf(body, sizeof body, "{\"response_token\":\"sha256=%s\"}",
             B64_256("of-the-endpoint", "t"));
    expect_answer(sender, "application/json", body);
    sender_close(sender);

    sender = SENDER("name: acme\ntitle: Acme\nendpoint_token: authenticates\n"
                    "challenges: {via: get-query, token: c, unsigned: true, answer: text}\n" NOTES,
                    "unused");
    get = get_of("/webhooks/acme/abcdefghijklmnopqrstuvwxyz", "c=t");
    expect_outcome("a token that is none", sender_post(sender, &get), OUTCOME_UNKNOWN_ENDPOINT);
    sender->token = SLICE_LITERAL("abcdefghijklmnopqrstuvwxyz");
    expect_outcome("the token", sender_post(sender, &get), OUTCOME_CHALLENGED);
    get.query = "";
    expect_outcome("no handshake", sender_post(sender, &get), OUTCOME_METHOD_NOT_ALLOWED);
    sender_close(sender);
}

/* --- handshakes by POST ----------------------------------------------------------------------- */

static void graph_shakes_hands(void **state)
{
    (void)state;
    struct sender *sender = SENDER(graph, KEY);
    struct post post = post_of("/webhooks/graph", "");
    post.query = "validationToken=Validation%3a+Testing+client%20application";
    post_add(&post, "content-type", "text/plain; charset=utf-8");
    expect_outcome("POST", sender_post(sender, &post), OUTCOME_CHALLENGED);
    expect_answer(sender, "text/plain", "Validation: Testing client application");
    post.query = "validationToken=a%0d%0aset-cookie:x";
    expect_outcome("lines", sender_post(sender, &post), OUTCOME_CHALLENGE_REFUSED);
    sender_close(sender);
}

static const char slack[] =
    "name: slack-like\n"
    "title: Slack\n"
    "timestamp: {header: x-slack-request-timestamp, unit: s}\n"
    "signatures: {algorithm: hmac-sha256, header: x-slack-signature, prefix: v0=, message: "
    "\"v0:{timestamp}:{body}\"}\n"
    "challenges: {via: post-json, when: /type, equals: url_verification, token: /challenge, "
    "answer: text}\n"
    "event_type: /event/type\n"
    "events: [{type: message}]\n"
    "id: [/event_id]\n" LIMITED;

static void slack_shakes_hands(void **state)
{
    (void)state;
    struct sender *sender = SENDER(slack, KEY);
    struct post post = post_of("/webhooks/slack-like",
                               "{\"type\":\"url_verification\",\"challenge\":\"3eZbrw1aBm2\"}");
    expect_outcome("unsigned", sender_post(sender, &post), OUTCOME_SIGNATURE_MISSING);
    post_add(&post, "x-slack-request-timestamp", "%lld", (long long)NOW);
    post_add(&post, "x-slack-signature", "v0=%s",
             HEX256(KEY, "v0:%lld:%s", (long long)NOW, post.body));
    expect_outcome("signed", sender_post(sender, &post), OUTCOME_CHALLENGED);
    expect_answer(sender, "text/plain", "3eZbrw1aBm2");
    expect_outcome("late", sender_post_at(sender, &post, NOW + 301), OUTCOME_TIMESTAMP_STALE);
    post.body[3] ^= 1;
    expect_outcome("tampered", sender_post(sender, &post), OUTCOME_SIGNATURE_MISMATCH);
    sender_close(sender);
}

/* Recognised by a header; the header is not under the signature, what it asks for is. */
static const char twitch[] =
    "name: twitch\n"
    "title: Twitch EventSub\n"
    "timestamp: {header: twitch-eventsub-message-timestamp, unit: rfc3339, tolerance: 10m}\n"
    "signatures: {algorithm: hmac-sha256, header: twitch-eventsub-message-signature, prefix: "
    "sha256=, message: \"{header:twitch-eventsub-message-id}{timestamp}{body}\"}\n"
    "challenges: {via: post-json, when: {header: twitch-eventsub-message-type}, equals: "
    "webhook_callback_verification, token: /challenge, answer: text}\n"
    "event_type: /subscription/type\n"
    "events: [{type: stream.online}]\n"
    "id: [{header: twitch-eventsub-message-id}]\n" LIMITED;

static struct post twitch_post(const char *body)
{
    struct post post = post_of("/webhooks/twitch", body);
    post_add(&post, "twitch-eventsub-message-id", "i1");
    post_add(&post, "twitch-eventsub-message-timestamp", "%s", rfc3339(NOW));
    post_add(&post, "twitch-eventsub-message-signature", "sha256=%s",
             HEX256(KEY, "i1%s%s", rfc3339(NOW), body));
    post_add(&post, "twitch-eventsub-message-type", "webhook_callback_verification");
    return post;
}

static void twitch_shakes_hands(void **state)
{
    (void)state;
    struct sender *sender = SENDER(twitch, KEY);
    struct post post = twitch_post("{\"challenge\":\"pogchamp-kappa-360noscope\"}");
    expect_outcome("POST", sender_post(sender, &post), OUTCOME_CHALLENGED);
    expect_answer(sender, "text/plain", "pogchamp-kappa-360noscope");
    post.body[16] ^= 1;
    expect_outcome("another text", sender_post(sender, &post), OUTCOME_SIGNATURE_MISMATCH);
    post.body[16] ^= 1;
    post_add(&post, "twitch-eventsub-message-type", "notification");
    expect_outcome("two kinds", sender_post(sender, &post), OUTCOME_SIGNATURE_REPEATED);
    post = twitch_post("{\"subscription\":{\"type\":\"stream.online\"}}");
    expect_outcome("no challenge", sender_post(sender, &post), OUTCOME_CHALLENGE_REFUSED);
    post_set(&post, 3, "notification");
    expect_outcome("a notification", sender_post(sender, &post), OUTCOME_ACCEPTED);
    sender_close(sender);
}

/* Ed25519 over hex, and a ping that is answered with the same text always. */
static void discord_shakes_hands(void **state)
{
    (void)state;
    struct sender *sender =
        SENDER("name: discord\ntitle: Discord\n"
               "timestamp: {header: x-signature-timestamp, unit: s}\n"
               "signatures: {algorithm: ed25519, key: hex, header: x-signature-ed25519, "
               "message: \"{timestamp}{body}\"}\n"
               "challenges: {via: post-json, when: /type, equals: \"0\", answer: fixed, "
               "fixed: '{\"type\":1}'}\n"
               "event_type: /event/type\nevents: [{type: APPLICATION_AUTHORIZED}]\n" LIMITED,
               ed25519_public(false));
    const char text[] = "1739923528{\"type\":0}";
    struct post post = post_of("/webhooks/discord", text + 10);
    post_add(&post, "x-signature-timestamp", "1739923528");
    post_add(&post, "x-signature-ed25519", "%s", ed25519_signature(text, false));
    expect_outcome("ping", sender_post(sender, &post), OUTCOME_CHALLENGED);
    expect_answer(sender, "application/json", "{\"type\":1}");
    post.body[8] = '1';
    expect_outcome("tampered", sender_post(sender, &post), OUTCOME_SIGNATURE_MISMATCH);
    sender_close(sender);
}

/* An unsigned question is read only where nothing is signed and the file says so. */
static void unsigned_questions_are_answered_where_the_file_says_so(void **state)
{
    (void)state;
#define MONDAY(unsigned_word)                                                                      \
    "name: monday\ntitle: monday.com\n" SIGNED_BODY(                                               \
        "x-sig") "challenges: {via: post-json, when: /challenge, token: "                          \
                 "/challenge, " unsigned_word "answer: json, echo_field: challenge}\n" NOTES
    struct sender *sender = SENDER(MONDAY("unsigned: true, "), KEY);
    struct post post = post_of("/webhooks/monday", "{\"challenge\":\"3eZ\"}");
    expect_outcome("unsigned", sender_post(sender, &post), OUTCOME_CHALLENGED);
    expect_answer(sender, "application/json", "{\"challenge\":\"3eZ\"}");
    post_add(&post, "x-sig", "sha256=00");
    expect_outcome("badly signed", sender_post(sender, &post), OUTCOME_SIGNATURE_MALFORMED);
    post = post_of("/webhooks/monday", NOTE);
    expect_outcome("an unsigned event", sender_post(sender, &post), OUTCOME_SIGNATURE_MISSING);
    post = post_of("/webhooks/monday", "{\"challenge\":");
    expect_outcome("junk", sender_post(sender, &post), OUTCOME_SIGNATURE_MISSING);
    sender_close(sender);

    sender = SENDER(MONDAY(""), KEY);
    post = post_of("/webhooks/monday", "{\"challenge\":\"3eZ\"}");
    expect_outcome("where it must be signed", sender_post(sender, &post),
                   OUTCOME_SIGNATURE_MISSING);
    sender_close(sender);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_header_may_hold_the_secret),
        cmocka_unit_test(the_path_may_hold_the_secret),
        cmocka_unit_test(the_query_may_hold_the_secret),
        cmocka_unit_test(every_value_in_the_body_must_be_the_secret),
        cmocka_unit_test(values_in_a_body_are_bounded),
        cmocka_unit_test(a_body_may_be_empty),
        cmocka_unit_test(an_opaque_body_is_not_read),
        cmocka_unit_test(dropbox_shakes_hands),
        cmocka_unit_test(meta_shakes_hands),
        cmocka_unit_test(x_shakes_hands),
        cmocka_unit_test(endpoints_shake_hands_with_their_own_secrets),
        cmocka_unit_test(graph_shakes_hands),
        cmocka_unit_test(slack_shakes_hands),
        cmocka_unit_test(twitch_shakes_hands),
        cmocka_unit_test(discord_shakes_hands),
        cmocka_unit_test(unsigned_questions_are_answered_where_the_file_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
