/* A platform, compiled from its folder's platform.yaml: how its webhooks are signed, dated, named
 * and answered. Immutable after loading and shared by all threads; platforms/README.md is the
 * vocabulary's page. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "problem.h"
#include "secret.h"
#include "slice.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PLATFORM_MAX_SCHEMES 4
#define PLATFORM_MAX_CANDIDATES 16 /* signatures of one request that are tried */
#define PLATFORM_MAX_VALUES 1024   /* secrets in one body that are compared */

enum signature_algorithm { HMAC_SHA256, HMAC_SHA1, HMAC_SHA512, ED25519, STATIC_EQUALITY };
enum signature_form { FORM_SINGLE, FORM_PAIRS /* t=1,v1=abc */, FORM_LIST /* v1,abc v1,def */ };
enum signature_encoding { ENCODING_HEX, ENCODING_BASE64 };
enum key_decoding { KEY_TEXT, KEY_BASE64, KEY_WHSEC, KEY_HEX };
enum token_kind {
    TOKEN_LITERAL,
    TOKEN_BODY,
    TOKEN_TIMESTAMP,
    TOKEN_METHOD,
    TOKEN_URL,
    TOKEN_HEADER
};
enum time_unit { UNIT_SECONDS, UNIT_MILLISECONDS, UNIT_RFC3339 };
enum value_source {
    FROM_NOTHING,
    FROM_JSON,
    FROM_HEADER,
    FROM_PAIR /* key of the signature header's pairs */,
    FROM_TEXT, /* the name itself */
    /* The rest in ids only. */
    FROM_JSON_ALL, /* all values at a pointer with `*`: one as it is, several as their digest */
    FROM_BODY_DIGEST,
    FROM_ARRIVAL /* when it came, in microseconds: tells any two deliveries apart */
};

/* One piece of the signed message; literals and header names in `text`. */
struct message_token {
    enum token_kind kind;
    struct slice text;
};

struct signature_scheme {
    enum signature_algorithm algorithm;
    const char *const *headers; /* lower case; any of them may carry it; none with query or json */
    size_t header_count;
    bool each_header;  /* each of them carries a signature of its own, and any may match */
    const char *query; /* key of the query that carries a static secret; or NULL */
    const char *json;  /* pointer to values that must all be a static secret; or NULL */
    enum signature_form form;
    char separator; /* of pairs: ',' or ';' */
    struct slice
        version; /* key of the pair, or version of the list item, that carries a signature: "v1" */
    struct slice prefix; /* before the digest: "sha256=" */
    bool prefix_optional;
    enum signature_encoding encoding;
    enum key_decoding key;
    const struct message_token *message;
    size_t message_count;
    const char *timestamp_header; /* where this scheme's timestamp is, in place of the header that
                                     the platform's rule names; NULL = there (svix-timestamp) */
};

/* Where a value is found. */
struct value_rule {
    enum value_source source;
    const char *name; /* JSON pointer, lower-case header name or pair key */
    const char
        *means; /* event types only: the value is this text when anything is there; or NULL */
};

struct timestamp_rule {
    struct value_rule from; /* FROM_NOTHING = the platform sends none: no freshness check */
    enum time_unit unit;
    int64_t past_us, future_us; /* tolerances */
    bool optional;              /* of JSON: a body without it is not refused */
};

/* A composite id: all parts present, or the rule is skipped. */
struct id_rule {
    const struct value_rule *parts;
    size_t part_count;
};

/* Holds an event back (200 ignored) while any value at `pointer` is in `is`, or is not in `is_not`.
 */
struct hold_rule {
    const char *pointer;
    const char *const *is;
    size_t is_count;
    const char *const *is_not;
    size_t is_not_count;
};

/* At least one of these JSON pointers leads to a text or a number. */
struct required_rule {
    const char *const *any;
    size_t any_count;
};

struct event_rule {
    const char
        *type; /* what the event is called here; `meeting.*` stands for any with this beginning,
                  `*` for any */
    const char *const *names; /* other spellings that mean the same */
    size_t name_count;
    const struct slice *spellings; /* type and names, measured; none for a beginning or `*` */
    size_t spelling_count;
    struct slice beginning; /* of `meeting.*`: "meeting."; empty for an exact type and for `*` */
    const struct required_rule *required;
    size_t required_count;
    const struct id_rule *ids; /* before the platform's own; may be none */
    size_t id_count;
    const struct hold_rule *holds;
    size_t hold_count;
    int series; /* of metrics: (platform, type) */
};

enum challenge_kind { CHALLENGE_POST_JSON, CHALLENGE_GET_QUERY, CHALLENGE_POST_QUERY };
enum challenge_answer { ANSWER_ECHO_TEXT, ANSWER_ECHO_JSON, ANSWER_HMAC_JSON, ANSWER_FIXED };

/* A handshake that is answered and goes no further; never without a verified signature unless
 * `unsigned_ok`. */
struct challenge_rule {
    enum challenge_kind kind;
    struct value_rule when; /* by POST: JSON pointer or header; by query: its key as `name`, or
                               NULL when the token alone makes it a challenge */
    const char *equals;     /* the text that must stand there; NULL = anything */
    const char *token; /* JSON pointer or query key of the text to answer with; NULL with fixed */
    size_t token_max;
    bool unsigned_ok;           /* true for all that come by query */
    const char *verify_key;     /* GET: query key whose value must equal a live secret that ... */
    struct slice verify_prefix; /* ... begins with this text and is for nothing else; or NULL */
    enum challenge_answer answer;
    const char *echo_field; /* JSON answers: field that gets the token; NULL = none */
    const char
        *hmac_field; /* field that gets the digest of the token under the secret that matched */
    const char *hmac_prefix;
    enum signature_encoding hmac_encoding;
    struct slice fixed; /* ANSWER_FIXED: the JSON to answer with */
};

struct platform {
    const char *name;           /* [a-z][a-z0-9-]*, = the folder's name */
    const char *directory;      /* of its folder */
    const char *const *aliases; /* path words that mean the shared route */
    size_t alias_count;
    const char *const *content_types;
    size_t content_type_count;
    bool opaque; /* the body is handed on unread and may be empty; no rule has a JSON pointer */

    struct signature_scheme schemes[PLATFORM_MAX_SCHEMES];
    size_t scheme_count;
    bool token_authenticates; /* an endpoint token alone is the credential (a signature, if any
                                 secret is set, is checked too) */
    bool secret_in_body;      /* a scheme reads the body to verify it */
    bool greets_unsigned;     /* a challenge by post-json comes without a signature */
    const char *const *single_headers; /* must not come twice: those that anything above or below
                                          reads, and those that the file lists */
    size_t single_header_count;
    struct timestamp_rule timestamp;

    const struct challenge_rule *challenges;
    size_t challenge_count;

    const struct value_rule *event_types; /* first that is found */
    size_t event_type_count;
    struct event_rule *events; /* exact types, beginnings, `*`, each in the file's order */
    size_t event_count;
    const struct id_rule
        *ids; /* after the event's own; the body's digest is the last resort by itself */
    size_t id_count;
    struct timestamp_rule time; /* the event's own time, for ce_time; no tolerance */
    const struct value_rule *accounts;
    size_t account_count;
    const struct value_rule *emails; /* its domain is the third way to a workspace */
    size_t email_count;

    int later_status; /* 503 or 429: what a limited sender gets */
    int retry_after_s;

    /* Set by the configuration, not by the folder. */
    struct keyring secrets; /* application secrets, for the shared route */
    const char *topic;
    const char *fallback_workspace; /* of shared-route payloads that name nobody; NULL = ignored */
    int other_series;               /* of metrics: deliveries without a known event type */
    int state_series[SECRET_STATE_COUNT]; /* of metrics: what an integration's own secret signed */
    int token_series;                     /* and what came with an endpoint's token alone */
};

struct platforms; /* all that are loaded */

/* Loads every folder under `directory` that holds a platform.yaml (or, with `only` not NULL, those
 * named in the NULL-terminated list). All problems are collected; NULL when there was one. `where`
 * is the place that names the directory, to point at; NULL = a command line did. */
MUST_CHECK struct platforms *platforms_load(const char *directory, const struct yaml_node *where,
                                            const char *const *only, struct problems *problems);
/* One platform from memory, as if folder/platform.yaml held these bytes: for tests and fuzzing. */
MUST_CHECK struct platforms *platforms_load_bytes(const char *folder, const void *bytes, size_t len,
                                                  struct problems *problems);
void platforms_free(struct platforms *platforms);

size_t platforms_count(const struct platforms *platforms);
/* Mutable only between loading and serving, for what the configuration sets. */
struct platform *platforms_at(const struct platforms *platforms, size_t index);
const struct platform *platforms_find(const struct platforms *platforms, struct slice name);
