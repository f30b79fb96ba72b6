/* Problems: collects complaints about what a person wrote, and guesses the word that was meant.
 * Called by every reader of files and arguments, and by the check of topics; nothing here is on the
 * path of an event. A line may quote what stood in the file, so control characters never reach the
 * terminal. Thread: one list belongs to one thread. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "problem.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>

enum {
    LINE_MAX_BYTES = 2048, /* a longer line is cut */
    WORD_MAX_BYTES = 64,   /* longer words are never suggested */
    SUGGEST_DISTANCE = 2
};

/* Whatever is no printable byte becomes '?'; bytes of UTF-8 stay. */
static void make_printable(char *text)
{
    for (unsigned char *p = (unsigned char *)text; *p != '\0'; p++) {
        if (*p < 0x20 || *p == 0x7f)
            *p = '?';
    }
}

/* A cut may fall inside a UTF-8 sequence: the rest of it goes too. */
static void mark_cut(char *text, size_t len)
{
    static const char dots[] = "...";
    size_t at = len - (sizeof dots - 1);

    while (at > 0 && ((unsigned char)text[at] & 0xc0) == 0x80)
        at--;
    memcpy(text + at, dots, sizeof dots);
}

void problem_add(struct problems *problems, const char *file, size_t line, size_t column,
                 const char *fmt, ...)
{
    char text[LINE_MAX_BYTES];
    int before = 0;

    if (problems->count == PROBLEMS_MAX) {
        problems->dropped++;
        return;
    }
    if (file != NULL && line > 0 && column == 0)
        before = snprintf(text, sizeof text, "%s:%zu: ", file, line);
    else if (file != NULL && line > 0)
        before = snprintf(text, sizeof text, "%s:%zu:%zu: ", file, line, column);
    else if (file != NULL)
        before = snprintf(text, sizeof text, "%s: ", file);
    assert(before >= 0);

    size_t used = (size_t)before;
    if (used < sizeof text) {
        va_list args;
        va_start(args, fmt);
        int more = vsnprintf(text + used, sizeof text - used, fmt, args);
        va_end(args);
        assert(more >= 0);
        used += (size_t)more;
    }
    if (used >= sizeof text)
        mark_cut(text, sizeof text - 1);
    make_printable(text);
    problems->lines[problems->count++] = xstrdup(text);
}

void problems_print(const struct problems *problems)
{
    for (size_t i = 0; i < problems->count; i++)
        fprintf(stderr, "%s\n", problems->lines[i]);
    if (problems->dropped > 0)
        fprintf(stderr, "(and %zu more)\n", problems->dropped);
}

void problems_release(struct problems *problems)
{
    for (size_t i = 0; i < problems->count; i++)
        free(problems->lines[i]);
    *problems = (struct problems){0};
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Optimal string alignment without regard to case: an edit adds, drops or changes one byte, or
 * swaps two neighbours. Both texts are at most WORD_MAX_BYTES long. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t rows[3][WORD_MAX_BYTES + 1];
    size_t *before = rows[0], *last = rows[1], *now = rows[2];
    size_t a_len = strlen(a), b_len = strlen(b);

    for (size_t j = 0; j <= b_len; j++)
        last[j] = j;
    for (size_t i = 1; i <= a_len; i++) {
        int ai = tolower((unsigned char)a[i - 1]);
        now[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            int bj = tolower((unsigned char)b[j - 1]);
            now[j] = least(least(last[j], now[j - 1]) + 1, last[j - 1] + (ai != bj));
            if (i > 1 && j > 1 && ai == tolower((unsigned char)b[j - 2]) &&
                bj == tolower((unsigned char)a[i - 2]))
                now[j] = least(now[j], before[j - 2] + 1);
        }
        size_t *recycled = before;
        before = last;
        last = now;
        now = recycled;
    }
    return last[b_len];
}

const char *problem_suggest(const char *text, const char *const *words)
{
    size_t len = strlen(text);
    /* In a short word two edits change nearly everything: that would be no guess but noise. */
    size_t best = least(SUGGEST_DISTANCE, len / 2);
    const char *found = NULL;

    if (len > WORD_MAX_BYTES)
        return NULL;
    for (; *words != NULL; words++) {
        if (strlen(*words) > WORD_MAX_BYTES)
            continue;
        size_t distance = edit_distance(text, *words);
        if (distance < best || (distance == best && found == NULL)) {
            best = distance;
            found = *words;
        }
    }
    return found;
}
