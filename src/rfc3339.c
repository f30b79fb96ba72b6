/* The one parser and the one writer of dates and times in RFC 3339. Called by freshness.c for what
 * senders write, by the configuration, and for records, reports and samples. Integers only. Thread:
 * any. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "rfc3339.h"

#include <assert.h>
#include <stdio.h>
#include <time.h>

#define US_PER_SECOND 1000000
#define SECONDS_MAX (RFC3339_MAX_US / US_PER_SECOND)

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Takes `digits` digits off the front of *text. */
static bool take_number(struct slice *text, size_t digits, int *ret)
{
    int value = 0;
    if (text->len < digits)
        return false;
    for (size_t i = 0; i < digits; i++) {
        if (!is_digit(text->ptr[i]))
            return false;
        value = value * 10 + (text->ptr[i] - '0');
    }
    *text = slice_from(*text, digits);
    *ret = value;
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

bool rfc3339_parse(struct slice text, int64_t *ret_wall_us)
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

size_t rfc3339_format(int64_t wall_us, int digits, char text[RFC3339_TEXT])
{
    time_t seconds = (time_t)(wall_us / US_PER_SECOND);
    int fraction = (int)(wall_us % US_PER_SECOND);
    struct tm tm;
    gmtime_r(&seconds, &tm);
    size_t len = strftime(text, RFC3339_TEXT, "%Y-%m-%dT%H:%M:%S", &tm);
    for (int i = digits; i < 6; i++)
        fraction /= 10;
    int rest = digits > 0 ? snprintf(text + len, RFC3339_TEXT - len, ".%0*dZ", digits, fraction)
                          : snprintf(text + len, RFC3339_TEXT - len, "Z");
    assert(len > 0 && len + (size_t)rest < RFC3339_TEXT);
    return len + (size_t)rest;
}
