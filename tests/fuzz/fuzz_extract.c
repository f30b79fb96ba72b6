/* Fuzzing of extraction: any body under the rules of a platform that uses them all gives a clean,
 * bounded, non-empty id, or an outcome. A raw request as a seed is taken for its body. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "extract.h"
#include "json.h"
#include "sample.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static const char rules[] =
    "name: fuzz\n"
    "title: Fuzz\n"
    "endpoint_token: authenticates\n"
    "event_type: [/event, /type, /meta/webhook/event, {json: /speech, means: speech.created}]\n"
    "hold_back_while:\n"
    "  - {json: [/is_partial, /speech/is_partial], is: [\"true\"]}\n"
    "  - {json: /data/process_status/*, is_not: [finished]}\n"
    "events:\n"
    "  - {type: recording.completed, names: [Transcription completed],\n"
    "     required: [/payload/object/uuid], id: [/payload/object/uuid]}\n"
    "  - {type: speech.created, required: [[/speech/id, /id]]}\n"
    "  - {type: meeting.*, id: [[/payload/object/uuid, /event_ts], [/meeting_id, body-digest]]}\n"
    "id: [/speech/id, [/payload/object/id, {header: x-id}]]\n"
    "time: {json: /event_ts, unit: ms}\n"
    "workspace: {account: /payload/account_id, email: [/email, /payload/object/host_email]}\n"
    "limited: {status: 503}\n";

static struct platforms *platforms;
static struct json_reader *reader;

static void prepare(void)
{
    struct problems problems = {0};
    platforms = platforms_load_bytes("fuzz", rules, sizeof rules - 1, &problems);
    problems_print(&problems);
    assert(platforms != NULL);
    reader = json_reader_new(1 << 20);
}

static void check_clean(struct slice text, size_t max)
{
    assert(text.len <= max);
    for (size_t i = 0; i < text.len; i++)
        assert((unsigned char)text.ptr[i] >= 0x20 && text.ptr[i] != 0x7f);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    if (platforms == NULL)
        prepare();
    char *bytes = xmalloc(size);
    if (size > 0)
        memcpy(bytes, data, size);
    struct sample sample;
    const char *reason, *detail = NULL;
    if (!sample_parse(bytes, size, &sample, &reason)) {
        sample = (struct sample){0};
        sample.in.body = (struct slice){bytes, size};
    }
    const struct json *json;
    struct extract_buffer buffer;
    struct event event;
    if (json_read(reader, sample.in.body, &json) == OUTCOME_NONE) {
        enum outcome outcome = extract_event(platforms_at(platforms, 0), &sample.in, json, NULL,
                                             &buffer, &event, &detail);
        if (outcome == OUTCOME_NONE) {
            assert(event.type.len > 0 && event.external_id.len > 0);
            check_clean(event.external_id, EVENT_EXTERNAL_ID_MAX);
            check_clean(event.account, EVENT_ACCOUNT_MAX);
            check_clean(event.email, EVENT_ACCOUNT_MAX);
        }
        check_clean(event.type, EVENT_TYPE_MAX);
    }
    free(bytes);
    return 0;
}
