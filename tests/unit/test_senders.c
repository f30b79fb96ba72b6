/* The vocabulary against the schemes of vendors that sign: each gets a platform.yaml of its own,
 * and its requests are taken as they are and refused when anything in them is tampered with. The
 * shipped platforms are proved by their samples (test_samples.c), those that don't sign and the
 * handshakes in test_handshakes.c. What each vendor does is from its documentation, or from what
 * its users' receivers agree on. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "sender.h"

#define KEY "s3cret-of-the-vendor"
#define LIMITED "limited: {status: 503}\n"

struct row {
    const char *yaml, *secret;
    void (*write)(struct post *post); /* signs at post->now */
    const char *type, *id;
    const char *signature;  /* the header that carries it */
    const char *stamp;      /* a header with the timestamp, or NULL */
    const char *covered;    /* a further header under the signature, or NULL */
    int64_t past_s, future; /* tolerances; 0 = no timestamp is checked */
    const char *wrong;      /* another secret of the same form */
};

/* --- the body alone --------------------------------------------------------------------------- */

static const char jira[] =
    "name: jira\n"
    "title: Jira\n"
    "signatures: {algorithm: hmac-sha256, header: x-hub-signature, prefix: sha256=, message: "
    "\"{body}\"}\n"
    "event_type: /webhookEvent\n"
    "events: [{type: \"jira:issue_updated\", required: /issue/id}]\n"
    "id: [[/issue/id, /timestamp], {header: x-atlassian-webhook-identifier}]\n"
    "time: {json: /timestamp, unit: ms}\n" LIMITED;

static void write_jira(struct post *post)
{
    post_body(post,
              "{\"timestamp\":1739923527000,\"webhookEvent\":\"jira:issue_updated\",\"issue\":{"
              "\"id\":\"10002\",\"fields\":{\"summary\":\"Zo\xc3\xab\"}}}");
    post_add(post, "x-atlassian-webhook-identifier", "1a2b");
    post_add(post, "x-hub-signature", "sha256=%s", HEX256(KEY, "%s", post->body));
}

static const char bitbucket[] =
    "name: bitbucket\n"
    "title: Bitbucket\n"
    "signatures: {algorithm: hmac-sha256, header: X-Hub-Signature, prefix: sha256=, message: "
    "\"{body}\"}\n"
    "event_type: {header: x-event-key}\n"
    "events: [{type: repo.push, names: [\"repo:push\"]}]\n"
    "id: [[{header: x-atlassian-webhook-identifier}, body-digest]]\n" LIMITED;

static void write_bitbucket(struct post *post)
{
    post_body(post, "{}");
    post_add(post, "x-event-key", "repo:push");
    post_add(post, "x-atlassian-webhook-identifier", "9f");
    post_add(post, "x-hub-signature", "sha256=%s", HEX256(KEY, "%s", post->body));
}

/* The key is what the base64 of the secret stands for. */
static const char read_ai[] =
    "name: read-ai\n"
    "title: Read.ai\n"
    "signatures: {algorithm: hmac-sha256, header: x-read-signature, key: base64, message: "
    "\"{body}\"}\n"
    "event_type: /trigger\n"
    "events: [{type: meeting_end}]\n"
    "id: [[/session_id, /trigger]]\n"
    "workspace: {email: /owner/email}\n" LIMITED;

static void write_read_ai(struct post *post)
{
    post_body(post, "{\"session_id\":\"01K\",\"trigger\":\"meeting_end\",\"owner\":{\"email\":"
                    "\"a@example.com\"}}");
    post_add(post, "x-read-signature", "%s", HEX256("key of bytes", "%s", post->body));
}

/* Its bodies have no type. */
static const char circleback[] =
    "name: circleback\n"
    "title: Circleback\n"
    "signatures: {algorithm: hmac-sha256, header: x-signature, message: \"{body}\"}\n"
    "event_type: {json: /id, means: meeting.completed}\n"
    "events: [{type: meeting.completed}]\n"
    "id: [/id]\n" LIMITED;

static void write_circleback(struct post *post)
{
    post_body(post, "{\"id\":4711,\"name\":\"Weekly\"}");
    post_add(post, "x-signature", "%s", HEX256(KEY, "%s", post->body));
}

static const char webex[] =
    "name: webex\n"
    "title: Webex\n"
    "signatures: {algorithm: hmac-sha1, header: x-spark-signature, message: \"{body}\"}\n"
    "event_type: /resource\n"
    "events: [{type: meetings, id: [[/id, /data/id, /event]]}]\n" LIMITED;

static void write_webex(struct post *post)
{
    post_body(post, "{\"id\":\"W1\",\"resource\":\"meetings\",\"event\":\"ended\",\"data\":{\"id\":"
                    "\"M:1\"}}");
    post_add(post, "x-spark-signature", "%s",
             mac(EVP_sha1(), KEY, strlen(KEY), false, "%s", post->body));
}

static const char shopify[] =
    "name: shopify\n"
    "title: Shopify\n"
    "signatures: {algorithm: hmac-sha256, header: x-shopify-hmac-sha256, encoding: base64, "
    "message: \"{body}\"}\n"
    "event_type: {header: x-shopify-topic}\n"
    "events: [{type: orders.create, names: [orders/create], required: /id}]\n"
    "id: [[{header: x-shopify-event-id}, /id]]\n"
    "limited: {status: 429, retry_after: 2m}\n";

static void write_shopify(struct post *post)
{
    post_body(post, "{\"id\":820982911946154508}");
    post_add(post, "x-shopify-topic", "orders/create");
    post_add(post, "x-shopify-event-id", "98880550-7158");
    post_add(post, "x-shopify-hmac-sha256", "%s", B64_256(KEY, "%s", post->body));
}

static const char teams[] =
    "name: teams\n"
    "title: Teams outgoing webhooks\n"
    "signatures: {algorithm: hmac-sha256, header: authorization, prefix: \"HMAC \", encoding: "
    "base64, key: base64, message: \"{body}\"}\n"
    "event_type: /type\n"
    "events: [{type: message}]\n"
    "id: [/id]\n" LIMITED;

static void write_teams(struct post *post)
{
    post_body(post, "{\"type\":\"message\",\"id\":\"1485983408511\",\"text\":\"<at>bot</at>\"}");
    post_add(post, "authorization", "HMAC %s", B64_256("key of bytes", "%s", post->body));
}

static const char paystack[] =
    "name: paystack\n"
    "title: A sender with HMAC-SHA512\n"
    "signatures: {algorithm: hmac-sha512, header: x-paystack-signature, message: \"{body}\"}\n"
    "event_type: /event\n"
    "events: [{type: charge.success}]\n"
    "id: [/data/id]\n" LIMITED;

static void write_paystack(struct post *post)
{
    post_body(post, "{\"event\":\"charge.success\",\"data\":{\"id\":302961}}");
    post_add(post, "x-paystack-signature", "%s",
             mac(EVP_sha512(), KEY, strlen(KEY), false, "%s", post->body));
}

/* --- with a timestamp or more ----------------------------------------------------------------- */

#define STANDARD(folder, types)                                                                    \
    "name: " folder "\n"                                                                           \
    "title: A sender of Standard Webhooks\n"                                                       \
    "timestamp: {header: webhook-timestamp, unit: s}\n"                                            \
    "signatures:\n"                                                                                \
    "  - {algorithm: hmac-sha256, header: webhook-signature, form: list, version: v1,\n"           \
    "     encoding: base64, key: whsec, message: \"{header:webhook-id}.{timestamp}.{body}\"}\n"    \
    "  - {algorithm: ed25519, header: webhook-signature, form: list, version: v1a,\n"              \
    "     encoding: base64, key: whsec, message: \"{header:webhook-id}.{timestamp}.{body}\"}\n"    \
    "  - {algorithm: hmac-sha256, header: svix-signature, form: list, version: v1,\n"              \
    "     encoding: base64, key: whsec, timestamp_header: svix-timestamp,\n"                       \
    "     message: \"{header:svix-id}.{timestamp}.{body}\"}\n"                                     \
    "event_type: [/event, /type]\n"                                                                \
    "events: [" types "]\n"                                                                        \
    "id: [{header: webhook-id}, {header: svix-id}]\n"                                              \
    "limited: {status: 429}\n"

static const char recall[] = STANDARD("recall", "{type: bot.done}, {type: transcript.done}");
static const char granola[] = STANDARD("granola", "{type: note.generated}, {type: note.edited}");
static const char fathom[] =
    STANDARD("fathom", "{type: meeting.content_ready, names: [new-meeting-content-ready]}");

#define WHSEC_BYTES "twenty-four bytes of key"
#define WHSEC "whsec_dHdlbnR5LWZvdXIgYnl0ZXMgb2Yga2V5"
#define WHSEC_OTHER "whsec_dHdlbnR5LWZvdXIgYnl0ZXMgb2YgS0VZ"

static void write_standard(struct post *post, const char *kind, const char *body)
{
    static const char *const names[][3] = {{"webhook-id", "webhook-timestamp", "webhook-signature"},
                                           {"svix-id", "svix-timestamp", "svix-signature"}};
    const char *const *name = names[strcmp(kind, "svix") == 0];
    post_body(post, "%s", body);
    post_add(post, name[0], "msg_2b1");
    post_add(post, name[1], "%lld", (long long)post->now);
    post_add(post, name[2], "v2,AAAA v1,%s",
             B64_256(WHSEC_BYTES, "msg_2b1.%lld.%s", (long long)post->now, body));
}

static void write_recall(struct post *post)
{
    write_standard(post, "webhook", "{\"event\":\"bot.done\",\"data\":{}}");
}

static void write_recall_svix(struct post *post)
{
    write_standard(post, "svix", "{\"event\":\"transcript.done\",\"data\":{}}");
}

static void write_granola(struct post *post)
{
    write_standard(post, "webhook", "{\"type\":\"note.edited\"}");
}

static void write_fathom(struct post *post)
{
    write_standard(post, "webhook", "{\"type\":\"new-meeting-content-ready\"}");
}

static const char telnyx[] =
    "name: telnyx\n"
    "title: Telnyx meeting bots\n"
    "timestamp: {pair: t, unit: s, tolerance: 5m}\n"
    "signatures: {algorithm: hmac-sha256, header: x-meeting-bot-signature, form: pairs, version: "
    "v1, message: \"{timestamp}.{body}\"}\n"
    "event_type: /event_type\n"
    "events: [{type: meeting.ended}]\n"
    "id: [/id]\n" LIMITED;

static void write_telnyx(struct post *post)
{
    long long now = post->now;
    post_body(post, "{\"id\":\"e1\",\"event_type\":\"meeting.ended\"}");
    post_add(post, "x-meeting-bot-signature", "t=%lld,v1=%s", now,
             HEX256(KEY, "%lld.%s", now, post->body));
}

static const char paddle[] =
    "name: paddle\n"
    "title: Paddle\n"
    "timestamp: {pair: ts, unit: s, tolerance: 5s, future: 2s}\n"
    "signatures: {algorithm: hmac-sha256, header: paddle-signature, form: pairs, separator: "
    "\";\", version: h1, message: \"{timestamp}:{body}\"}\n"
    "event_type: /event_type\n"
    "events: [{type: transaction.completed}]\n"
    "id: [/event_id]\n" LIMITED;

static void write_paddle(struct post *post)
{
    long long now = post->now;
    post_body(post, "{\"event_id\":\"evt_1\",\"event_type\":\"transaction.completed\"}");
    post_add(post, "paddle-signature", "ts=%lld;h1=%s", now,
             HEX256(KEY, "%lld:%s", now, post->body));
}

static const char retell[] =
    "name: retell\n"
    "title: Retell\n"
    "timestamp: {pair: v, unit: ms, tolerance: 5m}\n"
    "signatures: {algorithm: hmac-sha256, header: x-retell-signature, form: pairs, version: d, "
    "message: \"{body}{timestamp}\"}\n"
    "event_type: /event\n"
    "events: [{type: call_ended}]\n"
    "id: [/call/call_id]\n" LIMITED;

static void write_retell(struct post *post)
{
    long long now = post->now;
    post_body(post, "{\"event\":\"call_ended\",\"call\":{\"call_id\":\"c1\"}}");
    post_add(post, "x-retell-signature", "v=%lld000,d=%s", now,
             HEX256(KEY, "%s%lld000", post->body, now));
}

static const char zendesk[] =
    "name: zendesk\n"
    "title: Zendesk\n"
    "timestamp: {header: x-zendesk-webhook-signature-timestamp, unit: rfc3339}\n"
    "signatures: {algorithm: hmac-sha256, header: x-zendesk-webhook-signature, encoding: base64, "
    "message: \"{timestamp}{body}\"}\n"
    "event_type: /type\n"
    "events: [{type: \"zen:event-type:ticket.created\"}]\n"
    "id: [/id]\n"
    "workspace: {account: /account_id}\n" LIMITED;

static void write_zendesk(struct post *post)
{
    post_body(post, "{\"id\":\"z1\",\"type\":\"zen:event-type:ticket.created\",\"account_id\":12}");
    post_add(post, "x-zendesk-webhook-signature-timestamp", "%s", rfc3339(post->now));
    post_add(post, "x-zendesk-webhook-signature", "%s",
             B64_256(KEY, "%s%s", rfc3339(post->now), post->body));
}

/* Each header is signed with a key of its own, so that keys can be changed one by one. */
static const char box[] =
    "name: box\n"
    "title: Box\n"
    "timestamp: {header: box-delivery-timestamp, unit: rfc3339, tolerance: 10m}\n"
    "signatures: {algorithm: hmac-sha256, header: [box-signature-primary, "
    "box-signature-secondary], each_header: true, encoding: base64, message: "
    "\"{body}{timestamp}\"}\n"
    "event_type: /trigger\n"
    "events: [{type: FILE.UPLOADED}]\n"
    "id: [/id, {header: box-delivery-id}]\n" LIMITED;

static void write_box(struct post *post)
{
    post_body(post, "{\"id\":\"b1\",\"trigger\":\"FILE.UPLOADED\"}");
    post_add(post, "box-delivery-timestamp", "%s", rfc3339(post->now));
    post_add(post, "box-signature-primary", "%s",
             B64_256(KEY, "%s%s", post->body, rfc3339(post->now)));
}

static const char twitch[] =
    "name: twitch\n"
    "title: Twitch EventSub\n"
    "timestamp: {header: twitch-eventsub-message-timestamp, unit: rfc3339, tolerance: 10m}\n"
    "signatures: {algorithm: hmac-sha256, header: twitch-eventsub-message-signature, prefix: "
    "sha256=, message: \"{header:twitch-eventsub-message-id}{timestamp}{body}\"}\n"
    "event_type: /subscription/type\n"
    "events: [{type: stream.online}]\n"
    "id: [{header: twitch-eventsub-message-id}]\n" LIMITED;

static void write_twitch(struct post *post)
{
    post_body(post, "{\"subscription\":{\"type\":\"stream.online\"}}");
    post_add(post, "twitch-eventsub-message-id", "e76c6bd4");
    post_add(post, "twitch-eventsub-message-timestamp", "%s", rfc3339(post->now));
    post_add(post, "twitch-eventsub-message-signature", "sha256=%s",
             HEX256(KEY, "e76c6bd4%s%s", rfc3339(post->now), post->body));
}

/* Bodies are lists: a batch is named by all of its events. */
static const char hubspot[] =
    "name: hubspot\n"
    "title: HubSpot\n"
    "timestamp: {header: x-hubspot-request-timestamp, unit: ms, tolerance: 5m}\n"
    "signatures: {algorithm: hmac-sha256, header: x-hubspot-signature-v3, encoding: base64, "
    "message: \"{method}{url}{body}{timestamp}\"}\n"
    "event_type: /0/subscriptionType\n"
    "events: [{type: contact.creation}]\n"
    "id: [/*/eventId]\n" LIMITED;

static void write_hubspot(struct post *post)
{
    long long now = post->now;
    post->query = "portal=7&x=%20";
    post_body(post, "[{\"eventId\":100,\"subscriptionType\":\"contact.creation\"}]");
    post_add(post, "x-hubspot-request-timestamp", "%lld000", now);
    post_add(post, "x-hubspot-signature-v3", "%s",
             B64_256(KEY, "POST" PUBLIC_URL "/webhooks/hubspot?portal=7&x=%%20%s%lld000",
                     post->body, now));
}

/* The time stands in the body, which is signed. */
static const char body_time[] =
    "name: body-time\n"
    "title: A sender that dates its bodies\n"
    "timestamp: {json: /sent, unit: rfc3339, tolerance: 1h, future: 1m}\n"
    "signatures: {algorithm: hmac-sha256, header: x-signature, key: hex, message: \"{body}\"}\n"
    "event_type: /type\n"
    "events: [{type: a}]\n"
    "id: [/absent, [/id, /absent], [/empty, /id], [/null, /id], [/id, /sent]]\n" LIMITED;

static void write_body_time(struct post *post)
{
    post_body(post, "{\"type\":\"a\",\"id\":-7,\"empty\":\"\",\"null\":null,\"sent\":\"%s\"}",
              rfc3339(post->now));
    post_add(post, "x-signature", "%s", HEX256("\x01\xff", "%s", post->body));
}

static const struct row rows[] = {
    {jira, KEY, write_jira, "jira:issue_updated", "10002:1739923527000", "x-hub-signature",
     .wrong = "k"},
    {bitbucket, KEY, write_bitbucket, "repo.push",
     "9f:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", "x-hub-signature",
     .wrong = "k"},
    {read_ai, "a2V5IG9mIGJ5dGVz", write_read_ai, "meeting_end", "01K:meeting_end",
     "x-read-signature", .wrong = "a2V5IG9mIGJ5dGVzMg=="},
    {circleback, KEY, write_circleback, "meeting.completed", "4711", "x-signature", .wrong = "k"},
    {webex, KEY, write_webex, "meetings", "W1:M%3A1:ended", "x-spark-signature", .wrong = "k"},
    {shopify, KEY, write_shopify, "orders.create", "98880550-7158:820982911946154508",
     "x-shopify-hmac-sha256", .wrong = "k"},
    {teams, "a2V5IG9mIGJ5dGVz", write_teams, "message", "1485983408511", "authorization",
     .wrong = "a2V5IG9mIGJ5dGVzMg=="},
    {paystack, KEY, write_paystack, "charge.success", "302961", "x-paystack-signature",
     .wrong = "k"},
    {recall, WHSEC, write_recall, "bot.done", "msg_2b1", "webhook-signature", "webhook-timestamp",
     "webhook-id", 300, 300, WHSEC_OTHER},
    {recall, WHSEC, write_recall_svix, "transcript.done", "msg_2b1", "svix-signature",
     "svix-timestamp", "svix-id", 300, 300, WHSEC_OTHER},
    {granola, WHSEC, write_granola, "note.edited", "msg_2b1", "webhook-signature",
     "webhook-timestamp", "webhook-id", 300, 300, WHSEC_OTHER},
    {fathom, WHSEC, write_fathom, "meeting.content_ready", "msg_2b1", "webhook-signature",
     "webhook-timestamp", "webhook-id", 300, 300, WHSEC_OTHER},
    {telnyx, KEY, write_telnyx, "meeting.ended", "e1", "x-meeting-bot-signature", .past_s = 300,
     .future = 300, .wrong = "k"},
    {paddle, KEY, write_paddle, "transaction.completed", "evt_1", "paddle-signature", .past_s = 5,
     .future = 2, .wrong = "k"},
    {retell, KEY, write_retell, "call_ended", "c1", "x-retell-signature", .past_s = 300,
     .future = 300, .wrong = "k"},
    {zendesk, KEY, write_zendesk, "zen:event-type:ticket.created", "z1",
     "x-zendesk-webhook-signature", "x-zendesk-webhook-signature-timestamp", NULL, 300, 300, "k"},
    {box, KEY, write_box, "FILE.UPLOADED", "b1", "box-signature-primary", "box-delivery-timestamp",
     NULL, 600, 600, "k"},
    {twitch, KEY, write_twitch, "stream.online", "e76c6bd4", "twitch-eventsub-message-signature",
     "twitch-eventsub-message-timestamp", "twitch-eventsub-message-id", 600, 600, "k"},
    {body_time, "01fF", write_body_time, "a", "-7:2025-02-19T00%3A05%3A28Z", "x-signature",
     .past_s = 3600, .future = 60, .wrong = "01fe"},
    {hubspot, KEY, write_hubspot, "contact.creation", "100", "x-hubspot-signature-v3",
     "x-hubspot-request-timestamp", NULL, 300, 300, "k"},
};

/* --- what holds for each of them -------------------------------------------------------------- */

static struct post written(const struct row *row, int64_t now)
{
    static char path[64];
    struct post post = {.method = "POST", .now = now};
    int len = (int)strcspn(row->yaml + strlen("name: "), "\n");
    snprintf(path, sizeof path, "/webhooks/%.*s", len, row->yaml + strlen("name: "));
    post.path = path;
    row->write(&post);
    return post;
}

/* 401 whatever the reason. */
static void expect_refused(struct sender *sender, const struct post *post, const char *what)
{
    sender_post(sender, post);
    if (sender->answer.status != 401)
        fail_msg("%s: %s", what, outcome_info(sender->outcome)->name);
    assert_string_equal(sender->id, "");
}

/* The signature's own text, changed in every way in which it must not be taken. */
static void check_signature_forms(struct sender *sender, const struct row *row)
{
    const struct post right = written(row, NOW);
    struct post post = right;
    char *value = post_header(&post, row->signature)->value;
    size_t len = strlen(value);
    for (size_t at = len - 20; at < len - 1; at++) { /* the last may hold bits of padding only */
        value[at] = value[at] == '0' ? '1' : '0';
        expect_refused(sender, &post, "a digest with another digit");
        post = right;
    }
    value[len - 1] = '\0';
    expect_refused(sender, &post, "a digest of an odd length");
    value[len - 2] = '\0';
    expect_refused(sender, &post, "a digest that is too short");
    post = right;
    set_text(value + len, 3, "00");
    expect_refused(sender, &post, "a digest that is too long");
    set_text(value + len, 3, " ");
    expect_refused(sender, &post, "a digest with a blank behind it");
    post = right;
    value[len - 3] = 'g'; /* for base64 it is only another digest */
    expect_refused(sender, &post, "a digest that is not hex");
    post = right;
    for (size_t i = 0; i < len; i++)
        if (value[i] >= 'a' && value[i] <= 'z')
            value[i] = (char)(value[i] - 'a' + 'A');
    expect_refused(sender, &post, "a digest in upper case");
    value[0] = '\0';
    expect_outcome("an empty signature", sender_post(sender, &post), OUTCOME_SIGNATURE_MALFORMED);
}

static void check_headers(struct sender *sender, const struct row *row)
{
    const struct post right = written(row, NOW);
    const char *const names[] = {row->signature, row->stamp, row->covered};
    for (size_t i = 0; i < 3; i++) {
        if (names[i] == NULL)
            continue;
        struct post post = right;
        post_add(&post, names[i], "%s", post_header(&post, names[i])->value);
        expect_outcome(names[i], sender_post(sender, &post), OUTCOME_SIGNATURE_REPEATED);
        post = right;
        post_header(&post, names[i])->name = "x-gone";
        expect_outcome(names[i], sender_post(sender, &post),
                       i == 0   ? OUTCOME_SIGNATURE_MISSING
                       : i == 1 ? OUTCOME_TIMESTAMP_MISSING
                                : OUTCOME_SIGNATURE_MALFORMED);
        post = right;
        char *value = post_header(&post, names[i])->value;
        value[strlen(value) - 2] ^= 1;
        expect_refused(sender, &post, names[i]);
    }
}

static void check_times(struct sender *sender, const struct row *row)
{
    struct post post = written(row, NOW);
    expect_outcome("just in time", sender_post_at(sender, &post, NOW + row->past_s),
                   OUTCOME_ACCEPTED);
    expect_outcome("just not too early", sender_post_at(sender, &post, NOW - row->future),
                   OUTCOME_ACCEPTED);
    expect_outcome("stale", sender_post_at(sender, &post, NOW + row->past_s + 1),
                   row->past_s ? OUTCOME_TIMESTAMP_STALE : OUTCOME_ACCEPTED);
    expect_outcome("ahead", sender_post_at(sender, &post, NOW - row->future - 1),
                   row->future ? OUTCOME_TIMESTAMP_FUTURE : OUTCOME_ACCEPTED);
}

static void sender_is_judged(void **state)
{
    const struct row *row = *state;
    struct sender *sender = SENDER(row->yaml, row->wrong, row->secret);
    struct post post = written(row, NOW);
    expect_outcome("as it is", sender_post(sender, &post), OUTCOME_ACCEPTED);
    assert_string_equal(sender->type, row->type);
    assert_string_equal(sender->id, row->id);
    for (size_t i = 0; i < post.body_len; i++) {
        post.body[i] ^= 4;
        expect_outcome("another body", sender_post(sender, &post), OUTCOME_SIGNATURE_MISMATCH);
        post.body[i] ^= 4;
    }
    post.body[post.body_len++] = ' ';
    expect_outcome("a longer body", sender_post(sender, &post), OUTCOME_SIGNATURE_MISMATCH);
    check_signature_forms(sender, row);
    check_headers(sender, row);
    check_times(sender, row);
    sender_close(sender);

    sender = SENDER(row->yaml, row->wrong);
    post = written(row, NOW);
    expect_outcome("another key", sender_post(sender, &post), OUTCOME_SIGNATURE_MISMATCH);
    sender_close(sender);
}

/* --- what only some can do -------------------------------------------------------------------- */

static void each_header_of_box_may_match(void **state)
{
    (void)state;
    struct sender *sender = SENDER(box, "new-key", KEY);
    struct post post = written(&(struct row){box, .write = write_box}, NOW);
    post_add(&post, "box-signature-secondary", "%s", B64_256("gone", "%s", post.body));
    expect_outcome("the first", sender_post(sender, &post), OUTCOME_ACCEPTED);
    post.headers[1].name = "box-signature-secondary";
    post.headers[2].name = "box-signature-primary";
    expect_outcome("the second", sender_post(sender, &post), OUTCOME_ACCEPTED);
    post.headers[1].name = "x-gone";
    expect_outcome("a wrong one alone", sender_post(sender, &post), OUTCOME_SIGNATURE_MISMATCH);
    post.headers[1].name = "box-signature-secondary";
    post.headers[1].value[0] ^= 1;
    expect_outcome("two wrong ones", sender_post(sender, &post), OUTCOME_SIGNATURE_MISMATCH);
    post_add(&post, "box-signature-secondary", "%s", post.headers[1].value);
    expect_outcome("one twice", sender_post(sender, &post), OUTCOME_SIGNATURE_REPEATED);
    sender_close(sender);
}

/* whpk_ is a public key: v1a is signed with its private half. */
static void ed25519_signatures_match_public_keys(void **state)
{
    (void)state;
    char whpk[256], text[300];
    snprintf(whpk, sizeof whpk, "whpk_%s", ed25519_public(true));
    struct sender *sender = SENDER(recall, whpk, WHSEC);
    struct post post = {.method = "POST", .path = "/webhooks/recall", .now = NOW};
    write_recall(&post);
    assert_in_range(snprintf(text, sizeof text, "msg_2b1.%lld.%s", (long long)NOW, post.body), 1,
                    sizeof text - 1);
    char *value = post_header(&post, "webhook-signature")->value;
    snprintf(value, 1024, "v1a,%s", ed25519_signature(text, true));
    expect_outcome("v1a", sender_post(sender, &post), OUTCOME_ACCEPTED);
    value[1] = '2';
    expect_outcome("no known version", sender_post(sender, &post), OUTCOME_SIGNATURE_MALFORMED);
    value[1] = '1';
    post.body[2] ^= 1;
    expect_outcome("another body", sender_post(sender, &post), OUTCOME_SIGNATURE_MISMATCH);
    post.body[2] ^= 1;
    value[8] = value[8] == 'A' ? 'B' : 'A';
    expect_outcome("another signature", sender_post(sender, &post), OUTCOME_SIGNATURE_MISMATCH);
    sender_close(sender);
}

static void signed_ids_hold_no_separator(void **state)
{
    (void)state;
    struct sender *sender = SENDER(recall, WHSEC);
    struct post post = {.method = "POST", .path = "/webhooks/recall"};
    post_body(&post, "{\"event\":\"bot.done\"}");
    post_add(&post, "webhook-id", "a.1739923528");
    post_add(&post, "webhook-timestamp", "%lld", (long long)NOW);
    post_add(&post, "webhook-signature", "v1,%s",
             B64_256(WHSEC_BYTES, "a.1739923528.%lld.%s", (long long)NOW, post.body));
    expect_outcome("an id with a dot", sender_post(sender, &post), OUTCOME_SIGNATURE_MALFORMED);
    sender_close(sender);
}

static void lists_of_signatures_are_bounded(void **state)
{
    (void)state;
    struct sender *sender = SENDER(recall, WHSEC);
    for (int others = 0; others < 24; others += others < 14 ? 14 : 1) {
        struct post post = {.method = "POST", .path = "/webhooks/recall", .now = NOW};
        write_recall(&post);
        char *value = post_header(&post, "webhook-signature")->value, right[100];
        snprintf(right, sizeof right, "%s", value + strlen("v2,AAAA "));
        int len = 0;
        for (int i = 0; i < others; i++)
            len += snprintf(value + len, 1024 - (size_t)len, "v1,AAAA ");
        set_text(value + len, 1024 - (size_t)len, "%s", right);
        expect_outcome("many signatures", sender_post(sender, &post),
                       others < PLATFORM_MAX_CANDIDATES ? OUTCOME_ACCEPTED
                                                        : OUTCOME_SIGNATURE_MALFORMED);
        value[strlen(value) - strlen(right) - (others > 0)] = '\0';
        expect_outcome("no well-formed one", sender_post(sender, &post),
                       OUTCOME_SIGNATURE_MALFORMED);
    }
    sender_close(sender);
}

static void sign_hubspot(struct post *post)
{
    post->header_count = 0;
    post_add(post, "x-hubspot-request-timestamp", "%lld000", (long long)NOW);
    post_add(
        post, "x-hubspot-signature-v3", "%s",
        B64_256(KEY, "POST" PUBLIC_URL "/webhooks/hubspot%s%lld000", post->body, (long long)NOW));
}

/* A batch that begins with the event of another one is not that one. */
static void batches_are_named_by_all_their_events(void **state)
{
    (void)state;
    struct sender *sender = SENDER(hubspot, KEY);
    static const char *const bodies[] = {"",
                                         ",{\"eventId\":1}",
                                         ",{\"eventId\":\"1\"}",
                                         ",{\"eventId\":2}",
                                         ",{\"eventId\":1},{\"eventId\":2}",
                                         ",{\"eventId\":12}"};
    char ids[6][EVENT_EXTERNAL_ID_MAX + 1];
    for (size_t i = 0; i < 6; i++) {
        struct post post = {.method = "POST", .path = "/webhooks/hubspot"};
        post_body(&post, "[{\"eventId\":100,\"subscriptionType\":\"contact.creation\"}%s]",
                  bodies[i]);
        sign_hubspot(&post);
        expect_outcome(bodies[i], sender_post(sender, &post), OUTCOME_ACCEPTED);
        set_text(ids[i], sizeof ids[i], "%s", sender->id);
        for (size_t k = 0; k < i; k++)
            assert_true((strcmp(ids[i], ids[k]) == 0) == (i == 2 && k == 1));
    }
    assert_string_equal(ids[0], "100");
    assert_int_equal(strlen(ids[1]), 64);
    /* One without an id: the rule is passed over, and the bytes name the batch. */
    struct post post = {.method = "POST", .path = "/webhooks/hubspot"};
    post_body(&post, "[{\"eventId\":100,\"subscriptionType\":\"contact.creation\"},{}]");
    sign_hubspot(&post);
    expect_outcome("an event without id", sender_post(sender, &post), OUTCOME_ACCEPTED);
    unsigned char digest[EVENT_DIGEST_SIZE];
    event_digest((struct slice){post.body, post.body_len}, digest);
    assert_string_equal(sender->id, encoded(digest, sizeof digest, false));
    sender_close(sender);
}

static void later_is_what_the_platform_says(void **state)
{
    (void)state;
    static const struct {
        const char *yaml;
        int status, retry_after_s;
    } cases[] = {{shopify, 429, 120}, {jira, 503, 60}, {recall, 429, 60}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sender *sender = SENDER(cases[i].yaml, WHSEC);
        struct delivery limited = {.platform = sender->platform, .outcome = OUTCOME_LIMITED};
        delivery_answer(&limited, &sender->answer);
        assert_int_equal(sender->answer.status, cases[i].status);
        assert_int_equal(sender->answer.retry_after_s, cases[i].retry_after_s);
        sender_close(sender);
    }
}

int main(void)
{
    enum { ROWS = sizeof rows / sizeof *rows };
    struct CMUnitTest tests[ROWS + 6];
    static char names[ROWS][64];
    for (size_t i = 0; i < ROWS; i++) {
        snprintf(names[i], sizeof names[i], "%.*s", (int)strcspn(rows[i].yaml + 6, "\n"),
                 rows[i].yaml + 6);
        tests[i] = (struct CMUnitTest){.name = names[i],
                                       .test_func = sender_is_judged,
                                       .initial_state = (void *)(uintptr_t)&rows[i]};
    }
    const struct CMUnitTest more[] = {
        cmocka_unit_test(each_header_of_box_may_match),
        cmocka_unit_test(ed25519_signatures_match_public_keys),
        cmocka_unit_test(signed_ids_hold_no_separator),
        cmocka_unit_test(lists_of_signatures_are_bounded),
        cmocka_unit_test(batches_are_named_by_all_their_events),
        cmocka_unit_test(later_is_what_the_platform_says),
    };
    memcpy(tests + ROWS, more, sizeof more);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
