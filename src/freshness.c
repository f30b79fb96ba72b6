/* FRESHNESS: compares the sender's timestamp with the injected wall clock, so that a captured
 * request can't be sent again for long. Called by delivery.c after VERIFY, and by extract.c for
 * the event's own time. Integers only: a timestamp never passes through a double. Thread: any. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "freshness.h"

#include "json.h"
#include "rfc3339.h"

#define US_PER_SECOND 1000000
#define DIGITS_MAX 19
#define SECONDS_MAX (RFC3339_MAX_US / US_PER_SECOND)

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool parse_number(struct slice text, uint64_t *ret)
{
    uint64_t value = 0;
    if (text.len == 0 || text.len > DIGITS_MAX) /* nineteen digits always fit */
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (!is_digit(text.ptr[i]))
            return false;
        value = value * 10 + (unsigned)(text.ptr[i] - '0');
    }
    *ret = value;
    return true;
}

bool freshness_parse(struct slice text, enum time_unit unit, int64_t *ret_wall_us)
{
    if (unit == UNIT_RFC3339)
        return rfc3339_parse(text, ret_wall_us);
    uint64_t number, per_second = unit == UNIT_SECONDS ? 1 : 1000;
    if (!parse_number(text, &number) || number / per_second > (uint64_t)SECONDS_MAX)
        return false;
    *ret_wall_us = (int64_t)(number * (US_PER_SECOND / per_second));
    return true;
}

enum outcome freshness_check(const struct platform *platform, struct slice timestamp,
                             const struct json *json, int64_t now_wall_us)
{
    const struct timestamp_rule *rule = &platform->timestamp;
    if (rule->from.source == FROM_NOTHING)
        return OUTCOME_NONE;
    if (rule->from.source == FROM_JSON) {
        if (json == NULL)
            return OUTCOME_NONE;
        switch (json_text_at(json, rule->from.name, &timestamp)) {
        case JSON_FOUND:
            break;
        case JSON_ABSENT:
            return rule->optional ? OUTCOME_NONE : OUTCOME_TIMESTAMP_MISSING;
        case JSON_WRONG_TYPE:
        case JSON_REPEATED:
            return OUTCOME_TIMESTAMP_MALFORMED;
        }
    }
    if (timestamp.len == 0)
        return OUTCOME_TIMESTAMP_MISSING;
    int64_t sent_us;
    if (!freshness_parse(timestamp, rule->unit, &sent_us))
        return OUTCOME_TIMESTAMP_MALFORMED;
    /* Both lie between year 0 and year 9999 or are our own clock: no difference overflows. */
    if (now_wall_us - sent_us > rule->past_us)
        return OUTCOME_TIMESTAMP_STALE;
    if (sent_us - now_wall_us > rule->future_us)
        return OUTCOME_TIMESTAMP_FUTURE;
    return OUTCOME_NONE;
}
