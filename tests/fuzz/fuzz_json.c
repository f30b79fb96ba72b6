/* JSON bodies: no body breaks the reader, what it finds lies in memory, and what is quoted can be
 * read again. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX 65536

static void on_text(struct slice text, void *context)
{
    size_t *sum = context;
    for (size_t i = 0; i < text.len; i++)
        *sum += (unsigned char)text.ptr[i];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const pointers[] = {"",     "/event",  "/payload/object/uuid",
                                           "/*",   "/*/*",    "/a~1b/0",
                                           "/*/0", "/*/*/id", "/payload/*/email"};
    static struct json_reader *reader;
    static char quoted[6 * MAX + 2];
    if (reader == NULL)
        reader = json_reader_new(6 * MAX + 2);
    struct slice body = {(const char *)data, size};
    const struct json *json = NULL;
    size_t sum = 0, len = 0;
    if (size > MAX)
        return 0;
    if (json_read(reader, body, &json) == OUTCOME_NONE) {
        for (size_t i = 0; i < sizeof pointers / sizeof *pointers; i++) {
            struct slice text;
            enum json_found found = json_text_at(json, pointers[i], &text);
            if (found == JSON_FOUND) {
                assert(text.len > 0 && json_exists(json, pointers[i]));
                on_text(text, &sum);
            }
            (void)json_each_text_at(json, pointers[i], on_text, &sum);
        }
    }
    bool fits = json_quote(quoted, sizeof quoted, &len, body);
    assert(fits && json_read(reader, (struct slice){quoted, len}, &json) == OUTCOME_NONE);
    return 0;
}
