/* A bounded reader of JSON bodies over yyjson: strict RFC 8259 UTF-8, depth-capped, without malloc
 * per body. Verified bytes come here; delivery.c's read_unverified() names the two exceptions. One
 * reader belongs to one thread. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "obj.h"
#include "outcome.h"
#include "slice.h"

#include <stdint.h>

#define JSON_MAX_DEPTH 64

struct json_reader; /* memory for one document at a time */
struct json;        /* a document; valid until the next json_read() of its reader */

/* `max_body` bounds the documents; memory of about 12 x max_body is mapped lazily. */
MUST_CHECK struct json_reader *json_reader_new(size_t max_body);
void json_reader_free(struct json_reader *reader);

/* OUTCOME_NONE and *ret_json, or BAD_JSON, JSON_TOO_DEEP. The escape of half a surrogate pair reads
 * as U+FFFD. */
MUST_CHECK enum outcome json_read(struct json_reader *reader, struct slice body,
                                  const struct json **ret_json);

enum json_found { JSON_FOUND, JSON_ABSENT, JSON_WRONG_TYPE, JSON_REPEATED };

/* Text at an RFC 6901 pointer: strings as they are, integers and booleans in their one canonical
 * spelling (a number never passes through a double), so that "123" and 123 render alike. Null and
 * "" are JSON_ABSENT; objects and arrays JSON_WRONG_TYPE; a key on the way that occurs twice in its
 * object JSON_REPEATED. The slice lives as long as the document. A `*` as a token matches every
 * array item or object member: the first that is found. */
enum json_found json_text_at(const struct json *json, const char *pointer, struct slice *ret_text);

/* Calls `each` for the text of every value that the pointer with `*` tokens matches. */
typedef void json_each_f(struct slice text, void *context);
enum json_found json_each_text_at(const struct json *json, const char *pointer, json_each_f *each,
                                  void *context);

/* Likewise, but only when every match leads to a text: an item without it spoils the rest
 * (JSON_ABSENT or JSON_WRONG_TYPE), so do no items at all. `each` may have been called before. */
enum json_found json_every_text_at(const struct json *json, const char *pointer, json_each_f *each,
                                   void *context);

/* False when U+FFFD stands in this text of the document, and perhaps for half a surrogate pair:
 * then other texts would read the same. */
bool json_is_whole(const struct json *json, struct slice text);

/* True when something other than null is there, of any type. */
bool json_exists(const struct json *json, const char *pointer);

/* Appends `text` as a JSON string with its quotes; false when it does not fit into `size` bytes. */
MUST_CHECK bool json_quote(char *buf, size_t size, size_t *len, struct slice text);
