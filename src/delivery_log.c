/* What is told of a delivery when it ends. Called by delivery_finish(). Thread: the loop's. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "delivery_log.h"

#include "delivery.h"
#include "directory.h"
#include "log.h"
#include "sighting.h"

static enum log_level level_of(const struct delivery *d)
{
    enum outcome outcome = d->outcome;
    if (outcome == OUTCOME_SOURCE_LIMITED ||
        (outcome == OUTCOME_OVERLOADED && d->step < DELIVERY_RECORD))
        return LOG_DEBUG;           /* summed up by bucket.h's and admission.h's own lines */
    if (outcome == OUTCOME_LIMITED) /* the sender's affair, whatever its status */
        return LOG_WARNING;
    int status = outcome_http_status(outcome, 503);
    if (status >= 500)
        return LOG_ERROR;
    return status >= 400 ? LOG_WARNING : LOG_INFO;
}

void delivery_log(const struct delivery *d, int64_t duration_us)
{
    const struct outcome_info *info = outcome_info(d->outcome);
    struct log_line line;
    log_begin(&line, level_of(d), "delivery");
    if (!line.wanted)
        return;
    log_text(&line, "outcome", info->error_type ? info->error_type : info->status_label);
    log_int(&line, "status",
            outcome_http_status(d->outcome, d->platform ? d->platform->later_status : 503));
    log_text(&line, "step", delivery_step_name(d->step));
    if (info->error_type)
        log_text(&line, "reason", info->sentence);
    log_text(&line, "detail", d->detail);
    log_text(&line, "platform", d->platform ? d->platform->name : NULL);
    if (d->event.type.len)
        log_slice(&line, "event_type", d->event.type);
    if (d->workspace.len)
        log_slice(&line, "workspace", d->workspace);
    if (d->integration)
        log_text(&line, "integration", d->integration->id);
    if (d->id_known) {
        char id[EVENT_ID_TEXT];
        event_id_format(d->id, id);
        log_text(&line, "webhook_event_id", id);
        log_slice(&line, "external_id", d->event.external_id);
        log_int(&line, "bytes", (int64_t)d->body.len);
    }
    if (d->verification.secret)
        log_text(&line, "secret", secret_label(d->verification.secret));
    if (d->platform && d->outcome == OUTCOME_ACCEPTED && d->receipt.partition >= 0) {
        log_text(&line, "topic", d->platform->topic);
        log_int(&line, "partition", d->receipt.partition);
        log_int(&line, "offset", d->receipt.offset);
    }
    log_seconds(&line, "duration", duration_us);
    if (d->step == DELIVERY_RECORD) {
        log_seconds(&line, "gather", d->receipt.gather_us);
        log_seconds(&line, "claim", d->receipt.claim_us);
        log_seconds(&line, "publish", d->receipt.publish_us);
        log_seconds(&line, "commit", d->receipt.commit_us);
    }
    log_end(&line);
}

/* Only of known platforms: any scanner finds other paths. */
void delivery_sight(const struct delivery *d)
{
    if (d->env->sightings == NULL || d->platform == NULL || sighting_kind(d->outcome) == NULL)
        return;
    struct sighting_key key;
    sighting_key_of(&key, d->outcome, d->platform->name,
                    d->integration ? d->integration->uuid : NULL, d->source, d->received_wall_us);
    sighting_book_add(d->env->sightings, &key, d->received_wall_us);
}
