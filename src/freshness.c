/* FRESHNESS: compares the sender's timestamp with the injected wall clock, so that a captured
 * request can't be sent again for long. Called by delivery.c after VERIFY, and by extract.c for
 * the event's own time. Integers only: a timestamp never passes through a double. Thread: any. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "freshness.h"

#include "json.h"

#define US_PER_SECOND 1000000
#define DIGITS_MAX 19
#define SECONDS_MAX INT64_C(253402300799) /* the last second of year 9999 */

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

/* Takes `digits` digits off the front of *text. */
static bool take_number(struct slice *text, size_t digits, int *ret)
{
    uint64_t value;
    if (text->len < digits || !parse_number((struct slice){text->ptr, digits}, &value))
        return false;
    *text = slice_from(*text, digits);
    *ret = (int)value;
    return true;
}

static bool take_char(struct slice *text, char c)
{
    if (text->len == 0 || text->ptr[0] != c)
        return false;
    *text = slice_from(*text, 1);
    return true;
}

/* RFC 3339 lets the letters be small; a blank between date and time is its note only. */
static bool take_letter(struct slice *text, char upper)
{
    return take_char(text, upper) || take_char(text, (char)(upper + ('a' - 'A')));
}

static int days_in_month(int year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return days[month - 1] + (month == 2 && leap);
}

/* Days since 1970-01-01 of a date in the proleptic Gregorian calendar. Years begin in March here,
 * so that the leap day is the last of its year. */
static int64_t days_of_date(int year, int month, int day)
{
    int64_t y = year - (month <= 2), era = (y >= 0 ? y : y - 399) / 400;
    int64_t year_of_era = y - era * 400;
    int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * 146097 + day_of_era - 719468;
}

static bool take_date(struct slice *text, int64_t *ret_days)
{
    int year, month, day;
    if (!take_number(text, 4, &year) || !take_char(text, '-') || !take_number(text, 2, &month) ||
        !take_char(text, '-') || !take_number(text, 2, &day))
        return false;
    if (month < 1 || month > 12 || day < 1 || day > days_in_month(year, month))
        return false;
    *ret_days = days_of_date(year, month, day);
    return true;
}

/* A leap second, :60, is taken as the second after :59. */
static bool take_time(struct slice *text, int64_t *ret_seconds)
{
    int hour, minute, second;
    if (!take_number(text, 2, &hour) || !take_char(text, ':') || !take_number(text, 2, &minute) ||
        !take_char(text, ':') || !take_number(text, 2, &second))
        return false;
    if (hour > 23 || minute > 59 || second > 60)
        return false;
    *ret_seconds = (int64_t)hour * 3600 + minute * 60 + second;
    return true;
}

/* Any number of digits; what is finer than a microsecond is cut off. */
static bool take_fraction(struct slice *text, int64_t *ret_us)
{
    *ret_us = 0;
    if (!take_char(text, '.'))
        return true;
    int64_t scale = US_PER_SECOND / 10;
    size_t digits = 0;
    for (; text->len > 0 && is_digit(text->ptr[0]); *text = slice_from(*text, 1), digits++) {
        *ret_us += (text->ptr[0] - '0') * scale;
        scale /= 10;
    }
    return digits > 0;
}

static bool take_offset(struct slice *text, int64_t *ret_seconds)
{
    *ret_seconds = 0;
    if (take_letter(text, 'Z'))
        return true;
    bool west = take_char(text, '-');
    int hour, minute;
    if ((!west && !take_char(text, '+')) || !take_number(text, 2, &hour) || !take_char(text, ':') ||
        !take_number(text, 2, &minute) || hour > 23 || minute > 59)
        return false;
    *ret_seconds = ((int64_t)hour * 3600 + minute * 60) * (west ? -1 : 1);
    return true;
}

static bool parse_rfc3339(struct slice text, int64_t *ret_wall_us)
{
    int64_t days, seconds, fraction_us, offset;
    if (!take_date(&text, &days) || !take_letter(&text, 'T') || !take_time(&text, &seconds) ||
        !take_fraction(&text, &fraction_us) || !take_offset(&text, &offset) || text.len != 0)
        return false;
    seconds += days * 86400 - offset;
    if (seconds > SECONDS_MAX)
        return false;
    *ret_wall_us = seconds * US_PER_SECOND + fraction_us;
    return true;
}

bool freshness_parse(struct slice text, enum time_unit unit, int64_t *ret_wall_us)
{
    if (unit == UNIT_RFC3339)
        return parse_rfc3339(text, ret_wall_us);
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
