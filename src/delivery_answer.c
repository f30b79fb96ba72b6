/* What a sender is told: an outcome in the words of outcome.def, the event's ids when it is
 * recorded, the platform's own text when it tested the address. Called when a delivery is done, by
 * the worker and `hookgate verify`. Thread: the delivery's. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "delivery_answer.h"

#include "delivery.h"
#include "json.h"

/* Told with a 503: outages and overload of seconds are what it is for. */
#define RETRY_AFTER_S 5

static void put(struct delivery_answer *answer, const char *text)
{
    size_t len = strlen(text);
    assert(answer->len + len <= sizeof answer->body);
    memcpy(answer->body + answer->len, text, len);
    answer->len += len;
}

static void put_quoted(struct delivery_answer *answer, struct slice text)
{
    if (!json_quote(answer->body, sizeof answer->body, &answer->len, text))
        put(answer, "\"\"");
}

static void put_durable(struct delivery_answer *answer, const struct delivery *d,
                        const char *status)
{
    char id[EVENT_ID_TEXT];
    event_id_format(d->id, id);
    put(answer, "{\"status\":\"");
    put(answer, status);
    put(answer, "\",\"webhook_event_id\":\"");
    put(answer, id);
    put(answer, "\",\"external_id\":");
    put_quoted(answer, d->event.external_id);
    put(answer, "}");
}

static void put_refusal(struct delivery_answer *answer, const struct outcome_info *info)
{
    put(answer, "{\"error\":{\"code\":");
    put_quoted(answer, slice_of(info->code));
    put(answer, ",\"message\":");
    put_quoted(answer, slice_of(info->message));
    put(answer, "}}");
}

static int retry_after(const struct delivery *d)
{
    if (d->platform == NULL ||
        (d->outcome != OUTCOME_LIMITED && d->outcome != OUTCOME_SOURCE_LIMITED))
        return RETRY_AFTER_S;
    return d->retry_after_s > 0 ? d->retry_after_s : d->platform->retry_after_s;
}

void delivery_answer(const struct delivery *d, struct delivery_answer *ret)
{
    const struct outcome_info *info = outcome_info(d->outcome);
    ret->status = outcome_http_status(d->outcome, d->platform ? d->platform->later_status : 503);
    ret->content_type = "application/json";
    ret->len = 0;
    ret->retry_after_s = 0;
    if (ret->status == 503 || ret->status == 429)
        ret->retry_after_s = retry_after(d);
    if (outcome_is_durable(d->outcome)) {
        put_durable(ret, d, info->code);
    } else if (d->outcome == OUTCOME_CHALLENGED) {
        ret->content_type = d->challenge.content_type;
        assert(d->challenge.len <= sizeof ret->body);
        memcpy(ret->body, d->challenge.body, d->challenge.len);
        ret->len = d->challenge.len;
    } else if (ret->status == 200) {
        put(ret, "{\"status\":\"ignored\",\"reason\":");
        put_quoted(ret, slice_of(info->message));
        put(ret, "}");
    } else {
        put_refusal(ret, info);
    }
}
