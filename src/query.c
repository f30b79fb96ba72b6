/* Reads query strings as forms and the platforms' handshakes write them. Called by challenge.c and
 * candidates.c, on the event loop. Thread: any. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "query.h"

static int hex_value(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static bool decode(struct slice text, char buf[QUERY_VALUE_MAX], struct slice *ret)
{
    size_t at = 0;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i] == '+' ? ' ' : text.ptr[i];
        if (c == '%') {
            int high = i + 2 < text.len ? hex_value(text.ptr[i + 1]) : -1;
            int low = i + 2 < text.len ? hex_value(text.ptr[i + 2]) : -1;
            if (high < 0 || low < 0)
                return false;
            c = (char)(high << 4 | low);
            i += 2;
        }
        if (at == QUERY_VALUE_MAX)
            return false;
        buf[at++] = c;
    }
    *ret = (struct slice){buf, at};
    return true;
}

/* Takes what stands before the separator, and the separator itself, off the front of *rest. */
static struct slice cut(struct slice *rest, char separator)
{
    struct slice front = {rest->ptr, 0};
    while (front.len < rest->len && rest->ptr[front.len] != separator)
        front.len++;
    *rest = slice_from(*rest, front.len + 1);
    return front;
}

enum query_found query_find(struct slice query, const char *key, char buf[QUERY_VALUE_MAX],
                            struct slice *ret)
{
    enum query_found found = QUERY_ABSENT;
    while (query.len > 0) {
        struct slice value = cut(&query, '&'), name = cut(&value, '=');
        if (!slice_is(name, key))
            continue;
        if (found != QUERY_ABSENT || !decode(value, buf, ret))
            return QUERY_BAD;
        found = QUERY_FOUND;
    }
    return found;
}
