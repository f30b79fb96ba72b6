/* The vocabulary of platform.yaml: what it compiles to, and where each mistake is told. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "platform.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#define HEAD "name: acme\ntitle: Acme\n"
#define SIGNED "signatures: {algorithm: hmac-sha256, header: X-Sig, message: \"{body}\"}\n"
#define EVENTS "event_type: /event\nevents: [{type: a.b}]\n"
#define TAIL "limited: {status: 503}\n"

static struct platforms *load(const char *text, struct problems *problems)
{
    return platforms_load_bytes("acme", text, strlen(text), problems);
}

/* Exactly one problem, at line:column, that says `part`. */
static void assert_problem(const char *text, const char *place, const char *part)
{
    struct problems problems = {0};
    struct platforms *platforms = load(text, &problems);
    assert_null(platforms);
    char begin[128];
    snprintf(begin, sizeof begin, "acme/platform.yaml:%s: ", place);
    if (problems.count != 1 || strncmp(problems.lines[0], begin, strlen(begin)) != 0 ||
        strstr(problems.lines[0], part) == NULL) {
        problems_print(&problems);
        fail_msg("expected one problem at %s with: %s", begin, part);
    }
    problems_release(&problems);
}

static const char whole[] =
    HEAD "docs: https://example.com/\naliases: [note-created]\ncontent_types: text/plain\n"
         "endpoint_token: authenticates\nunrepeatable_headers: X-Extra\n"
         "signatures:\n"
         "  - {algorithm: hmac-sha512, header: [X-A, X-B], form: pairs, separator: \";\",\n"
         "     version: v1, prefix: p, prefix_optional: true, encoding: base64, key: whsec,\n"
         "     message: \"v0:{timestamp}:{header:X-Id}{method}{url}{body}\"}\n"
         "timestamp: {pair: t, unit: ms, tolerance: 5m, future: 10s}\n"
         "challenges: {via: get-query, token: hub.challenge, unsigned: true, answer: text,\n"
         "  when: hub.mode, equals: subscribe, verify_key: hub.verify_token, verify_prefix: vtk_}\n"
         "event_type: [{header: X-Event}, {json: /x, means: a.b}]\n"
         "events:\n"
         "  - {type: \"*\"}\n"
         "  - {type: m.*}\n"
         "  - {type: a.b, names: [\"A b\"], required: [/id, [/x, /y]],\n"
         "     hold_back_while: {json: [/p, /q], is: [x]}}\n"
         "hold_back_while: {json: /s, is_not: [done, ok]}\n"
         "id: [[/id, {header: X-Id2}, body-digest], /id, [{text: x}, /a/*/id, arrival]]\n"
         "time: {json: /at, unit: rfc3339}\n"
         "workspace: {account: /account, email: [/a, /b]}\n"
         "limited: {status: 429, retry_after: 2m}\n";

static void whole_vocabulary_compiles(void **state)
{
    (void)state;
    struct problems problems = {0};
    struct platforms *platforms = load(whole, &problems);
    problems_print(&problems);
    assert_non_null(platforms);
    const struct platform *p = platforms_find(platforms, SLICE_LITERAL("acme"));
    assert_non_null(p);
    assert_null(platforms_find(platforms, SLICE_LITERAL("acm")));

    const struct signature_scheme *scheme = &p->schemes[0];
    assert_int_equal(scheme->algorithm, HMAC_SHA512);
    assert_string_equal(scheme->headers[1], "x-b");
    assert_int_equal(scheme->form, FORM_PAIRS);
    assert_int_equal(scheme->separator, ';');
    assert_int_equal(scheme->key, KEY_WHSEC);
    assert_int_equal(scheme->encoding, ENCODING_BASE64);
    assert_true(scheme->prefix_optional);
    static const enum token_kind kinds[] = {TOKEN_LITERAL, TOKEN_TIMESTAMP, TOKEN_LITERAL,
                                            TOKEN_HEADER,  TOKEN_METHOD,    TOKEN_URL,
                                            TOKEN_BODY};
    assert_int_equal(scheme->message_count, 7);
    for (size_t i = 0; i < 7; i++)
        assert_int_equal(scheme->message[i].kind, kinds[i]);
    assert_true(slice_is(scheme->message[0].text, "v0:"));
    assert_true(slice_is(scheme->message[3].text, "x-id"));

    assert_int_equal(p->timestamp.from.source, FROM_PAIR);
    assert_int_equal(p->timestamp.past_us, 300000000);
    assert_int_equal(p->timestamp.future_us, 10000000);
    assert_true(p->token_authenticates);
    assert_int_equal(p->challenges[0].kind, CHALLENGE_GET_QUERY);
    assert_int_equal(p->challenges[0].token_max, 128);
    assert_string_equal(p->challenges[0].when.name, "hub.mode");
    assert_true(slice_is(p->challenges[0].verify_prefix, "vtk_"));

    /* Exact types come first, with the platform's conditions before their own. */
    assert_string_equal(p->events[0].type, "a.b");
    assert_true(slice_is(p->events[1].beginning, "m."));
    assert_string_equal(p->events[2].type, "*");
    assert_int_equal(p->events[0].spelling_count, 2);
    assert_int_equal(p->events[0].required[1].any_count, 2);
    assert_int_equal(p->events[0].hold_count, 3);
    assert_string_equal(p->events[0].holds[0].pointer, "/s");
    assert_string_equal(p->events[0].holds[2].pointer, "/q");
    assert_int_equal(p->events[1].hold_count, 1);

    assert_int_equal(p->id_count, 3);
    assert_int_equal(p->ids[2].parts[0].source, FROM_TEXT);
    assert_int_equal(p->ids[2].parts[1].source, FROM_JSON_ALL);
    assert_int_equal(p->ids[2].parts[2].source, FROM_ARRIVAL);
    assert_int_equal(p->ids[0].parts[2].source, FROM_BODY_DIGEST);
    assert_int_equal(p->later_status, 429);
    assert_int_equal(p->retry_after_s, 120);

    static const char *const single[] = {"x-a", "x-b", "x-id", "x-event", "x-id2", "x-extra"};
    assert_int_equal(p->single_header_count, 6);
    for (size_t i = 0; i < 6; i++)
        assert_string_equal(p->single_headers[i], single[i]);
    platforms_free(platforms);
}

static void words_are_closed(void **state)
{
    (void)state;
    assert_problem(HEAD SIGNED EVENTS TAIL "alias: [x]\n", "7:1", "aliases");
    assert_problem(HEAD EVENTS TAIL
                   "signatures: {algorithm: hmac-sha265, header: a, message: \"{body}\"}\n",
                   "6:25", "hmac-sha256");
    assert_problem(HEAD SIGNED TAIL "event_type: /e\nevents: [{type: a, hold_back: []}]\n", "6:20",
                   "hold_back");
    assert_problem(HEAD SIGNED EVENTS TAIL "id: [body-digset]\n", "7:6",
                   "did you mean 'body-digest'");
    assert_problem(HEAD SIGNED TAIL "event_type: [{means: a}, /e]\nevents: [{type: a}]\n", "5:14",
                   "never reached");
    assert_problem(HEAD SIGNED TAIL "event_type: {header: a, json: /b}\nevents: [{type: a}]\n",
                   "5:13", "one of json:, header:, means:");
    assert_problem(HEAD SIGNED EVENTS, "1:1", "limited");
    assert_problem(HEAD SIGNED EVENTS "limited: {status: 500}\n", "6:19", "503 or 429");
}

static void names_are_checked(void **state)
{
    (void)state;
    assert_problem("name: acne\ntitle: A\n" SIGNED EVENTS TAIL, "1:7", "name: acme");
    assert_problem("name: Acme\ntitle: A\n" SIGNED EVENTS TAIL, "1:7", "is no name");
    assert_problem(HEAD SIGNED EVENTS TAIL "aliases: [abcd1234]\n", "7:11", "endpoint token");
    assert_problem(HEAD SIGNED EVENTS TAIL "aliases: [a, b, a]\n", "7:17", "stands twice");
    assert_problem(HEAD SIGNED EVENTS TAIL "content_types: [\"text/plain; charset=x\"]\n", "7:17",
                   "without parameters");
    assert_problem(HEAD SIGNED EVENTS TAIL "unrepeatable_headers: [\"x y\"]\n", "7:24",
                   "name of a header");
}

static void messages_are_checked(void **state)
{
    (void)state;
#define MESSAGE(m)                                                                                 \
    HEAD EVENTS TAIL "signatures: {algorithm: hmac-sha1, header: a, message: " m "}\n"
    assert_problem(MESSAGE("\"{bodyy}\""), "6:56", "did you mean {body}?");
    assert_problem(MESSAGE("\"{id}.{body}\""), "6:56",
                   "expected {body}, {timestamp}, {method}, {url} or {header:NAME}");
    assert_problem(MESSAGE("\"v0\""), "6:56", "lacks {body}");
    assert_problem(MESSAGE("\"{timestamp}{body}\""), "6:56", "needs timestamp:");
    assert_problem(MESSAGE("\"{body\""), "6:56", "without its partner");
    assert_problem(MESSAGE("\"body}\""), "6:56", "without its partner");
    assert_problem(MESSAGE("\"{header:x y}{body}\""), "6:56", "name of a header");
#undef MESSAGE
    assert_problem(HEAD EVENTS TAIL "signatures: {algorithm: hmac-sha1, header: a}\n", "6:13",
                   "message is missing");
    assert_problem(HEAD EVENTS TAIL "timestamp: {json: /t, unit: s}\nsignatures: {algorithm: "
                                    "hmac-sha1, header: a, message: \"{timestamp}{body}\"}\n",
                   "7:56", "header: or pair:");
}

static void forms_are_checked(void **state)
{
    (void)state;
#define FORM(m)                                                                                    \
    HEAD EVENTS TAIL "signatures: {algorithm: hmac-sha1, header: a, message: \"{body}\", " m "}\n"
    assert_problem(FORM("form: list"), "6:13", "needs version");
    assert_problem(FORM("version: v1"), "6:13", "goes with form");
    assert_problem(FORM("separator: \";\""), "6:13", "separator goes with");
    assert_problem(FORM("form: pairs, version: v1, separator: \"+\""), "6:13", "separator is");
    assert_problem(FORM("prefix_optional: true"), "6:13", "needs prefix");
#undef FORM
    assert_problem(HEAD EVENTS TAIL "timestamp: {pair: t, unit: s}\n" SIGNED, "7:13",
                   "needs form: pairs");
    assert_problem(HEAD EVENTS TAIL "signatures: {algorithm: static, header: a, message: x}\n",
                   "6:53", "no message");
    assert_problem(HEAD EVENTS TAIL, "1:1", "nothing authenticates");
    assert_problem(HEAD EVENTS TAIL "signatures: {algorithm: hmac-sha1, header: a, message: "
                                    "\"{body}\", timestamp_header: b}\n",
                   "6:84", "in place of the header of timestamp:");
    assert_problem(HEAD SIGNED EVENTS TAIL "timestamp: {unit: s}\n", "7:12", "expected one of");
    assert_problem(HEAD SIGNED EVENTS TAIL "timestamp: {header: x y, unit: s}\n", "7:21",
                   "name of a header");
    assert_problem(HEAD SIGNED EVENTS TAIL "timestamp: {header: t, unit: s, optional: true}\n",
                   "7:12", "json: alone");
}

static size_t problems_of(const char *yaml)
{
    struct problems problems = {0};
    platforms_free(platforms_load_bytes("acme", yaml, strlen(yaml), &problems));
    size_t count = problems_total(&problems);
    problems_release(&problems);
    return count;
}

/* One that nobody signed looks like freshness, and a replay writes a new one. */
static void timestamps_are_signed(void **state)
{
    (void)state;
#define HMAC(m) HEAD EVENTS TAIL "signatures: {algorithm: hmac-sha1, header: a, message: " m "}\n"
#define AT "timestamp: {header: X-T, unit: s}\n"
    assert_problem(HMAC("\"{body}\"") AT, "7:12", "no message covers this timestamp");
    assert_problem(HMAC("\"{header:x-u}{body}\"") AT, "7:12", "no message covers");
    assert_problem(HMAC("\"{body}\", form: pairs, version: v1") "timestamp: {pair: t, unit: s}\n",
                   "7:12", "no message covers");
    assert_problem(HEAD EVENTS TAIL "signatures: {algorithm: static, header: a}\n" AT, "7:12",
                   "no message covers");
    assert_problem(HEAD EVENTS TAIL "endpoint_token: authenticates\n" AT, "7:12",
                   "no message covers");
    assert_int_equal(problems_of(HMAC("\"{body}{timestamp}\"") AT), 0);
    assert_int_equal(problems_of(HMAC("\"{header:x-t}{body}\"") AT), 0);
    assert_int_equal(problems_of(HMAC("\"{header:x-u}{body}\", timestamp_header: x-u") AT), 0);
    assert_int_equal(problems_of(HMAC("\"{body}\"") "timestamp: {json: /t, unit: s}\n"), 0);
    assert_int_equal(problems_of(HMAC("\"{timestmap}{body}\"") AT), 1); /* nothing is told twice */
#undef HMAC
#undef AT
}

static void challenges_are_checked(void **state)
{
    (void)state;
#define ASK(m) HEAD SIGNED EVENTS TAIL "challenges: {" m "}\n"
#define POSTED "via: post-json, when: /e, equals: x, "
#define GOTTEN "via: get-query, token: c, unsigned: true, answer: text"
    assert_problem(ASK("via: post-json, token: /t, answer: text"), "7:13", "needs when:");
    assert_problem(ASK(POSTED "token: /t, unsigned: true, answer: hmac-json, hmac_field: f"),
                   "7:13", "would sign what anybody sends");
    assert_problem(ASK("via: get-query, token: c, answer: text"), "7:13", "say unsigned: true");
    assert_problem(ASK("via: get-query, token: /c, unsigned: true, answer: text"), "7:37",
                   "key of the query");
    assert_problem(ASK("via: get-query, token: c, unsigned: true, answer: json"), "7:13",
                   "needs echo_field");
    assert_problem(ASK("via: post-query, token: c, unsigned: true, answer: json, echo_field: f"),
                   "7:13", "with text only");
    assert_problem(ASK(GOTTEN ", echo_field: f"), "7:13", "answer text has no fields");
    assert_problem(ASK(POSTED "token: /t, answer: hmac-json"), "7:13", "needs hmac_field");
    assert_problem(HEAD EVENTS TAIL
                   "endpoint_token: authenticates\nchallenges: {via: get-query, token: c, "
                   "unsigned: true, answer: hmac-json, hmac_field: f}\n",
                   "7:13", "needs signatures:");
    assert_problem(ASK(GOTTEN ", equals: x"), "7:13", "equals: needs when:");
    assert_problem(ASK(GOTTEN ", verify_key: v"), "7:13", "go together");
    assert_problem(ASK(GOTTEN ", verify_prefix: verify_"), "7:13", "go together");
    assert_problem(ASK(GOTTEN ", verify_key: v, verify_prefix: vt"), "7:100", "2 bytes; 4 to 32");
    assert_problem(ASK(POSTED "token: /t, answer: text, verify_key: v, verify_prefix: verify_"),
                   "7:13", "verify_key goes with via: get-query");
    assert_problem(ASK(POSTED "answer: text"), "7:13", "token is missing");
    assert_problem(ASK(POSTED "answer: fixed"), "7:13", "go together");
    assert_problem(ASK(POSTED "answer: fixed, fixed: '{x'"), "7:73", "expected JSON in quotes");
    assert_problem(ASK(POSTED "token: /t, answer: fixed, fixed: '{}'"), "7:13", "has no token:");
    assert_problem(ASK(POSTED "token: /t, answer: hmac_json, hmac_field: f"), "7:70",
                   "did you mean 'hmac-json'?");
    assert_problem(ASK(POSTED "token: payload.token, answer: text"), "7:58",
                   "did you mean '/payload/token'?");
#undef ASK
#undef POSTED
#undef GOTTEN
}

static void places_of_secrets_are_checked(void **state)
{
    (void)state;
#define STATIC(m) HEAD EVENTS TAIL "signatures: {algorithm: static, " m "}\n"
    assert_problem(STATIC("query: t, header: x"), "6:13", "one of header:, query:, json:");
    assert_problem(STATIC("key: text"), "6:13", "one of header:, query:, json:");
    assert_problem(STATIC("json: clientState"), "6:39", "did you mean '/clientState'?");
    assert_problem(STATIC("json: /a, prefix: p"), "6:13", "no prefix or encoding");
    assert_problem(STATIC("header: a, each_header: true"), "6:13", "several names");
    assert_problem(STATIC("header: [a, \"b c\"]"), "6:45", "name of a header");
#undef STATIC
    assert_problem(HEAD EVENTS TAIL
                   "signatures: {algorithm: hmac-sha1, query: q, message: \"{body}\"}\n",
                   "6:13", "go with algorithm: static");
}

/* The digest of a token must never be the signature of an event. */
static void queries_sign_no_bodies(void **state)
{
    (void)state;
#define SIGNING                                                                                    \
    "challenges: {via: get-query, token: c, unsigned: true, answer: hmac-json, hmac_field: f}\n"
#define TYPES(m) HEAD SIGNED TAIL "event_type: " m "\nevents: [{type: a}]\n" SIGNING
    struct problems problems = {0};
    struct platforms *platforms = load(TYPES("[/event, {json: /x, means: a}]"), &problems);
    assert_non_null(platforms);
    platforms_free(platforms);
    assert_problem(TYPES("{header: x}"), "7:13", "name a field as event_type:");
    assert_problem(TYPES("[/event, {header: x}]"), "7:13", "an event whose type is not in");
    assert_problem(TYPES("[/event, {means: a}]"), "7:13", "or leave this challenge out");
    assert_problem(TYPES("{header: x}") "body: opaque\n", "7:13", "leave body: opaque out");
#undef SIGNING
#undef TYPES
}

#define X4(s) s s s s
static void sizes_are_bounded(void **state)
{
    (void)state;
    assert_problem(HEAD EVENTS TAIL "signatures: {algorithm: hmac-sha1, header: a, message: "
                                    "\"" X4(X4("{body}")) "x\"}\n",
                   "6:56", "at most 16 pieces");
    struct problems problems = {0};
    struct platforms *most = load(HEAD EVENTS TAIL "signatures: {algorithm: hmac-sha1, header: a, "
                                                   "message: \"" X4(X4("{body}")) "\"}\n",
                                  &problems);
    assert_non_null(most);
    platforms_free(most);
#define ONE "{algorithm: static, header: a}"
    assert_problem(HEAD EVENTS TAIL "signatures: [" X4(ONE ", ") ONE "]\n", "6:13",
                   "at most 4 signatures");
#undef ONE
#define ONE "{via: get-query, token: c, unsigned: true, answer: text}"
    assert_problem(HEAD SIGNED EVENTS TAIL "challenges: [" X4(ONE ", ") ONE "]\n", "7:13",
                   "at most 4 challenges");
#undef ONE
    assert_problem(HEAD SIGNED EVENTS TAIL "id: [[" X4("/a, /b, ") "/c]]\n", "7:6",
                   "at most 8 parts");
    assert_problem(HEAD SIGNED EVENTS TAIL "id: [" X4(X4("/a, /b, ")) "/c]\n", "7:5", "1 to 32");
    assert_problem(HEAD SIGNED EVENTS TAIL "id: [/" X4(X4("0123456789abcdef")) "]\n", "7:6",
                   "longer than 256 bytes");
    assert_problem(HEAD SIGNED TAIL "event_type: []\nevents: [{type: a}]\n", "5:13",
                   "1 to 32 values");
}

/* A body that isn't read has no places. */
static void opaque_bodies_have_no_pointers(void **state)
{
    (void)state;
#define OPAQUE(m) HEAD SIGNED TAIL "body: opaque\n" m
#define TYPE "event_type: {header: x}\n"
    assert_problem(OPAQUE(EVENTS), "6:13", "no field is read");
    assert_problem(OPAQUE(TYPE "events: [{type: a, required: /id}]\n"), "7:30", "no field is read");
    assert_problem(OPAQUE(TYPE "events: [{type: a}]\nid: [/id]\n"), "8:6", "no field is read");
    assert_problem(OPAQUE(TYPE "events: [{type: a}]\ntime: {json: /t, unit: s}\n"), "8:14",
                   "no field is read");
    assert_problem(HEAD SIGNED EVENTS TAIL "body: opague\n", "7:7", "did you mean 'opaque'?");
#undef OPAQUE
#undef TYPE
}

/* Whatever word is misspelt, the nearest one is told, where it stands. */
static void misspelt_words_are_guessed(void **state)
{
    (void)state;
#define SIGNATURE(m) HEAD EVENTS TAIL "signatures:\n  - " m "\n"
    static const struct {
        const char *text, *place, *meant;
    } cases[] = {
        {HEAD SIGNED EVENTS TAIL "timestmap: {header: x, unit: s}\n", "7:1", "'timestamp'"},
        {HEAD SIGNED EVENTS TAIL "timestamp: {haeder: x, unit: s}\n", "7:13", "'header'"},
        {HEAD SIGNED EVENTS TAIL "timestamp: {header: x, unit: rfc339}\n", "7:30", "'rfc3339'"},
        {HEAD SIGNED EVENTS TAIL "endpoint_token: authenticate\n", "7:17", "'authenticates'"},
        {HEAD SIGNED EVENTS TAIL "workspace: {acount: /a}\n", "7:13", "'account'"},
        {HEAD SIGNED EVENTS TAIL "id: [arival]\n", "7:6", "'arrival'"},
        {HEAD SIGNED EVENTS TAIL "id: [{haeder: x}]\n", "7:7", "'header'"},
        {HEAD SIGNED EVENTS "limited: {status: 503, retry_afetr: 1m}\n", "6:24", "'retry_after'"},
        {HEAD SIGNED TAIL "event_type: /e\nevents: [{typ: a}]\n", "6:11", NULL},
        {HEAD SIGNED TAIL "event_type: e.type\nevents: [{type: a}]\n", "5:13", "'/e/type'"},
        {HEAD SIGNED TAIL "event_type: [{json: /e, mean: a}]\nevents: [{type: a}]\n", "5:25",
         "'means'"},
        {SIGNATURE("{algorithm: hmac_sha256, header: a, message: \"{body}\"}"), "7:17",
         "'hmac-sha256'"},
        {SIGNATURE("{algorithm: hmac-sha1, header: a, message: \"{body}\", encodng: hex}"), "7:58",
         "'encoding'"},
        {SIGNATURE("{algorithm: hmac-sha1, header: a, message: \"{body}\", encoding: bas64}"),
         "7:68", "'base64'"},
        {SIGNATURE("{algorithm: hmac-sha1, header: a, message: \"{body}\", key: wsec}"), "7:63",
         "'whsec'"},
        {SIGNATURE("{algorithm: hmac-sha1, header: a, message: \"{body}\", form: pair}"), "7:64",
         "'pairs'"},
        {SIGNATURE("{algorithm: hmac-sha1, header: a, message: \"{header:x}{bdoy}\"}"), "7:48",
         "{body}"},
        {SIGNATURE("{algorithm: hmac-sha1, header: a, message: \"{heder:x-id}{body}\"}"), "7:48",
         "{header:x-id}"},
        {SIGNATURE("{algorithm: hmac-sha1, header: a, message: \"{headr}{body}\"}"), "7:48",
         "{header:NAME}"},
        {SIGNATURE("{algorithm: hmac-sha1, header: a, message: \"{ timestamp }{body}\"}"), "7:48",
         "{timestamp}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char part[64] = "";
        if (cases[i].meant != NULL)
            snprintf(part, sizeof part, "did you mean %s?", cases[i].meant);
        struct problems problems = {0};
        char begin[64];
        assert_null(load(cases[i].text, &problems));
        snprintf(begin, sizeof begin, "acme/platform.yaml:%s: ", cases[i].place);
        if (strncmp(problems.lines[0], begin, strlen(begin)) != 0 ||
            strstr(problems.lines[0], part) == NULL)
            fail_msg("%s, not %s%s", problems.lines[0], begin, part);
        problems_release(&problems);
    }
#undef SIGNATURE
}

static void events_are_checked(void **state)
{
    (void)state;
#define WITH(m) HEAD SIGNED TAIL "event_type: /e\nevents: [" m "]\n"
    assert_problem(WITH("{type: a}, {type: a}"), "6:28", "already a spelling of a");
    assert_problem(WITH("{type: a, names: [b]}, {type: c, names: [b]}"), "6:50",
                   "already a spelling of a");
    assert_problem(WITH("{type: a.*}, {type: a.*}"), "6:30", "stands twice");
    assert_problem(WITH("{type: \"*\"}, {type: \"*\"}"), "6:30", "stands twice");
    assert_problem(WITH("{type: \"a*\"}"), "6:17", "or * alone");
    assert_problem(WITH("{type: \"a b\"}"), "6:17", "letters, digits");
    assert_problem(WITH("{type: a.*, names: [b]}"), "6:29", "don't go with");
    assert_problem(WITH("{type: a, required: [id]}"), "6:31", "begins with /");
    assert_problem(WITH("{type: a, required: [/a~2]}"), "6:31", "~0");
    assert_problem(WITH("{type: a, hold_back_while: {json: /x}}"), "6:37", "either is: or is_not:");
    assert_problem(WITH("{type: a, id: /x}"), "6:24", "list of 1 to");
    assert_problem(WITH("{type: a, id: [{json: /x, means: y}]}"), "6:25", "means:");
    assert_problem(WITH("{type: a, id: [{text: y}]}"), "6:25", "same for all events");
    assert_problem(WITH("{type: a, id: [[{text: y}, {text: z}]]}"), "6:25", "same for all events");
    assert_problem(WITH("{type: a, id: [{header: x, json: /y}]}"), "6:25",
                   "one of json:, header:, text:");
    assert_problem(WITH(""), "6:9", "1 to 64 events");
#undef WITH
}

static void all_mistakes_are_told_at_once(void **state)
{
    (void)state;
    struct problems problems = {0};
    assert_null(load("name: acne\ntitle: A\naliases: [x1]\n" EVENTS TAIL, &problems));
    assert_int_equal(problems.count, 3);
    problems_release(&problems);
}

static void folders_are_found(void **state)
{
    (void)state;
    char directory[4096];
    const char *source = getenv("HOOKGATE_SOURCE");
    snprintf(directory, sizeof directory, "%s/platforms", source ? source : ".");
    struct problems problems = {0};
    static const char *const two[] = {"otter", "zoom", NULL};
    struct platforms *platforms = platforms_load(directory, NULL, two, &problems);
    assert_non_null(platforms);
    assert_int_equal(platforms_count(platforms), 2);
    assert_string_equal(platforms_at(platforms, 0)->name, "otter");
    platforms_free(platforms);

    static const char *const misspelt[] = {"zom", NULL};
    assert_null(platforms_load(directory, NULL, misspelt, &problems));
    assert_int_equal(problems.count, 1);
    assert_non_null(strstr(problems.lines[0], "did you mean 'zoom'?"));
    assert_null(platforms_load("/nonexistent", NULL, NULL, &problems));
    assert_null(platforms_load("/proc/self/fdinfo", NULL, NULL, &problems)); /* holds no platform */
    assert_int_equal(problems.count, 3);
    problems_release(&problems);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_vocabulary_compiles),
        cmocka_unit_test(words_are_closed),
        cmocka_unit_test(names_are_checked),
        cmocka_unit_test(messages_are_checked),
        cmocka_unit_test(forms_are_checked),
        cmocka_unit_test(timestamps_are_signed),
        cmocka_unit_test(challenges_are_checked),
        cmocka_unit_test(queries_sign_no_bodies),
        cmocka_unit_test(places_of_secrets_are_checked),
        cmocka_unit_test(sizes_are_bounded),
        cmocka_unit_test(opaque_bodies_have_no_pointers),
        cmocka_unit_test(misspelt_words_are_guessed),
        cmocka_unit_test(events_are_checked),
        cmocka_unit_test(all_mistakes_are_told_at_once),
        cmocka_unit_test(folders_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
