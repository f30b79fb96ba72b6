/* What is held comes back as it was: a delivery is written as a payload and as a marker and read
 * again. The headers of a record that was read are faked by those that were written. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "held.h"

#include "directory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define INTEGRATION "0123abcd-0000-4000-8000-00000000000f"

/* ---- fake reader: a publish_record stands for the headers ---- */

bool reader_header_at(const struct reader_record *record, size_t index, const char **ret_name,
                      struct slice *ret_value)
{
    const struct publish_record *written = (const void *)record->headers;
    if (index >= written->header_count)
        return false;
    *ret_name = written->headers[index].name;
    *ret_value = written->headers[index].value;
    return true;
}

bool reader_header(const struct reader_record *record, const char *name, struct slice *ret_value)
{
    const char *found;
    for (size_t i = 0; reader_header_at(record, i, &found, ret_value); i++) {
        if (strcmp(found, name) == 0)
            return true;
    }
    return false;
}

static struct reader_record read_of(const struct publish_record *written)
{
    return (struct reader_record){.partition = 1,
                                  .offset = 5,
                                  .key = written->key,
                                  .value = written->value,
                                  .headers = (const void *)written};
}

/* ---- a delivery ---- */

static struct platform platform = {.name = "zoom"};
static struct integration integration = {.id = INTEGRATION};

static void make(struct delivery *d)
{
    *d = (struct delivery){.platform = &platform,
                           .integration = &integration,
                           .workspace = SLICE_LITERAL("acme"),
                           .body = SLICE_LITERAL("{\"a\":1}"),
                           .content_type = SLICE_LITERAL("application/json"),
                           .received_wall_us = 1700000000123456};
    d->event.type = SLICE_LITERAL("meeting.started");
    d->event.external_id = SLICE_LITERAL("uuid==");
    d->id = event_id_of(d->workspace, slice_of("zoom"), d->event.type, d->event.external_id);
    event_digest(d->body, d->body_sha256);
}

#define assert_slice(slice, text) assert_true(slice_is(slice, text))

static void assert_common(const struct held *held, const struct delivery *d)
{
    assert_memory_equal(held->id.bytes, d->id.bytes, sizeof d->id.bytes);
    assert_memory_equal(held->digest, d->body_sha256, sizeof held->digest);
    assert_int_equal(held->size, d->body.len);
    assert_int_equal(held->received_wall_us, d->received_wall_us);
    assert_slice(held->workspace, "acme");
    assert_slice(held->platform, "zoom");
    assert_slice(held->type, "meeting.started");
    assert_slice(held->external_id, "uuid==");
    assert_slice(held->topic, "webhooks.zoom");
    static const unsigned char uuid[16] = {1,    0x23, 0xab, 0xcd, 0, 0, 0x40, 0,
                                           0x80, 0,    0,    0,    0, 0, 0,    0x0f};
    assert_memory_equal(held->integration, uuid, sizeof uuid);
}

static void a_payload_comes_back_with_the_record_that_will_be_published(void **state)
{
    (void)state;
    struct delivery d;
    struct publish_record written, plain, unpacked;
    struct held_buffer buffer;
    struct record_buffer plain_buffer;
    struct held held;
    char *names;
    make(&d);
    held_payload(&d, "webhooks.zoom", &written, &buffer);
    struct reader_record record = read_of(&written);
    assert_true(held_read(&record, false, &held));
    assert_common(&held, &d);
    record_of(&d, &plain, &plain_buffer);
    assert_true(slice_equal(held.key, plain.key));
    assert_true(slice_equal(held.body, d.body));
    assert_true(record_unpack(held.headers, &unpacked, &names));
    assert_int_equal(unpacked.header_count, plain.header_count);
    for (size_t i = 0; i < plain.header_count; i++) {
        assert_string_equal(unpacked.headers[i].name, plain.headers[i].name);
        assert_true(slice_equal(unpacked.headers[i].value, plain.headers[i].value));
    }
    free(names);
    held_release(&held);
}

static void a_marker_tells_the_place_and_no_body(void **state)
{
    (void)state;
    struct delivery d;
    struct publish_record written;
    struct held_buffer buffer;
    struct held held;
    make(&d);
    held_marker(&d, "webhooks.zoom", 3, 1234567890123, &written, &buffer);
    assert_int_equal(written.value.len, 0);
    struct reader_record record = read_of(&written);
    assert_true(held_read(&record, true, &held));
    assert_common(&held, &d);
    assert_int_equal(held.partition, 3);
    assert_int_equal(held.offset, 1234567890123);
    held_release(&held);
    held_marker(&d, "webhooks.zoom", 3, -1, &written, &buffer);
    record = read_of(&written);
    assert_true(held_read(&record, true, &held));
    assert_int_equal(held.offset, -1);
    held_release(&held);
}

static void what_lacks_a_header_is_not_ours(void **state)
{
    (void)state;
    struct delivery d;
    struct held_buffer buffer;
    struct held held;
    make(&d);
    for (int is_marker = 0; is_marker < 2; is_marker++) {
        size_t refused = 0, count = 20;
        for (size_t i = 0; i < count; i++) {
            struct publish_record written;
            held_marker(&d, "webhooks.zoom", 3, 7, &written, &buffer);
            count = written.header_count;
            written.headers[i].name = "x";
            struct reader_record record = read_of(&written);
            if (held_read(&record, is_marker != 0, &held))
                held_release(&held);
            else
                refused++;
        }
        assert_int_equal(refused, is_marker ? 12 : 8);
    }
}

static void a_broken_number_is_not_ours(void **state)
{
    (void)state;
    static const char *const numbers[] = {"", "x", "7x", "1111111111111111111111111111", "-2"};
    struct delivery d;
    struct publish_record written;
    struct held_buffer buffer;
    struct held held;
    make(&d);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        held_marker(&d, "webhooks.zoom", 3, 7, &written, &buffer);
        for (size_t h = 0; h < written.header_count; h++) {
            if (strcmp(written.headers[h].name, "hookgate-held-partition") == 0)
                written.headers[h].value = slice_of(numbers[i]);
        }
        struct reader_record record = read_of(&written);
        assert_false(held_read(&record, true, &held));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_payload_comes_back_with_the_record_that_will_be_published),
        cmocka_unit_test(a_marker_tells_the_place_and_no_body),
        cmocka_unit_test(what_lacks_a_header_is_not_ours),
        cmocka_unit_test(a_broken_number_is_not_ours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
