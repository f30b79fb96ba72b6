/* EXTRACT: type, external id, account and time of a verified body, by the platform's rules. Pure.
 */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "event.h"
#include "inbound.h"
#include "outcome.h"
#include "platform.h"

struct json;

/* Memory for what is put together (composites, lower-cased e-mail, digests). */
struct extract_buffer {
    char text[2048];
    size_t len;
};

/* `matched` is the scheme whose signature proved the request; NULL where none was asked for. A
 * header that the platform signs in some scheme but not in this one is as good as absent: whoever
 * replays the request could have added it.
 *
 * OUTCOME_NONE and *ret, or IGNORED_EVENT_TYPE, IGNORED_INCOMPLETE, FIELD_MISSING, FIELD_TOO_LONG,
 * JSON_REPEATED_KEY. Slices of *ret point into the document, the inbound, the platform or the
 * buffer. Where only an unsigned header tells the type and the id holds the body's digest,
 * `key_type` is empty: a replay under another type stays a copy. On failure `ret->type` and
 * `ret->series` are set as far as known, and *ret_detail is the JSON pointer at fault or NULL. */
MUST_CHECK enum outcome extract_event(const struct platform *platform, const struct inbound *in,
                                      const struct json *json,
                                      const struct signature_scheme *matched,
                                      struct extract_buffer *buffer, struct event *ret,
                                      const char **ret_detail);
