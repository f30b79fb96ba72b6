/* The path of a webhook. The table of steps below is the order of its life; each step is a pure
 * function of a file of its own, and this file joins them. What a delivery owns is
 * delivery_memory.c's, what is told of it at its end delivery_log.c's, and the answer
 * delivery_answer.c's. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "delivery.h"

#include "address.h"
#include "admission.h"
#include "bucket.h"
#include "candidates.h"
#include "clock.h"
#include "delivery_log.h"
#include "delivery_memory.h"
#include "directory.h"
#include "freshness.h"
#include "json.h"
#include "log.h"

typedef enum outcome step_f(struct delivery *d);

static step_f step_route, step_admission, step_verify, step_freshness, step_challenge, step_extract,
    step_workspace, step_share, step_limit;

/* OUTCOME_NONE lets the next step run; `record` comes last and answers later. */
static const struct {
    const char *name;
    step_f *run;
} steps[DELIVERY_STEP_COUNT] = {
    [DELIVERY_ROUTE] = {"route", step_route},
    [DELIVERY_ADMISSION] = {"admission", step_admission},
    [DELIVERY_VERIFY] = {"verify", step_verify},
    [DELIVERY_FRESHNESS] = {"freshness", step_freshness},
    [DELIVERY_CHALLENGE] = {"challenge", step_challenge},
    [DELIVERY_EXTRACT] = {"extract", step_extract},
    [DELIVERY_WORKSPACE] = {"workspace", step_workspace},
    [DELIVERY_SHARE] = {"share", step_share},
    [DELIVERY_LIMIT] = {"limit", step_limit},
    [DELIVERY_RECORD] = {"record", NULL},
};

const char *delivery_step_name(enum delivery_step step)
{
    return steps[step].name;
}

static size_t header_bytes(const struct inbound *in)
{
    size_t bytes = in->path.len + in->query.len;
    for (size_t i = 0; i < in->header_count; i++)
        bytes += in->headers[i].name.len + in->headers[i].value.len;
    return bytes;
}

static enum outcome step_route(struct delivery *d)
{
    if (header_bytes(d->in) > d->env->headers_max) {
        d->detail = "listen.headers";
        return OUTCOME_BAD_REQUEST;
    }
    enum outcome outcome = route_find(d->env->platforms, d->in, &d->route);
    d->platform = d->route.platform;
    if (d->platform)
        d->event.series = d->platform->other_series;
    if (outcome != OUTCOME_NONE)
        return outcome;
    outcome = route_check_headers(d->platform, d->in);
    if (outcome == OUTCOME_NONE && d->in->body.len > d->env->body_max)
        outcome = OUTCOME_BODY_TOO_LARGE;
    return outcome;
}

/* The endpoint's integration; unknown tokens are 404, except under `hookgate verify`, where the
 * token is the secret itself. */
static enum outcome find_endpoint(struct delivery *d)
{
    if (d->route.endpoint.len == 0 || d->integration)
        return OUTCOME_NONE;
    const struct delivery_override *override = d->env->override;
    if (override)
        return slice_equal(d->route.endpoint, override->endpoint_token) ||
                       !d->platform->token_authenticates
                   ? OUTCOME_NONE
                   : OUTCOME_UNKNOWN_ENDPOINT;
    if (d->directory == NULL)
        return OUTCOME_NOT_READY;
    d->integration =
        directory_by_token(d->directory, slice_of(d->platform->name), d->route.endpoint);
    return d->integration ? OUTCOME_NONE : OUTCOME_UNKNOWN_ENDPOINT;
}

static enum outcome refuse_overload(struct delivery *d, enum admission_verdict verdict)
{
    static const char *const details[] = {
        [SHED_LATE] = "it was read too late to be recorded in time",
        [SHED_QUEUE] = "too many wait before it",
        [SHED_SHARE] = "too many of its workspace wait",
    };
    d->detail = details[verdict];
    return verdict == ADMITTED ? OUTCOME_NONE : OUTCOME_OVERLOADED;
}

static enum outcome check_share(struct delivery *d)
{
    d->share = admission_share(d->integration->workspace);
    return refuse_overload(d, admission_check_share(d->env->admission, d->share, clock_mono_us()));
}

/* Before anything is spent on it. A platform that tests the address gets its answer all the same;
 * where the path names the workspace, its share is known already. */
static enum outcome step_admission(struct delivery *d)
{
    if (d->env->admission == NULL || challenge_is_likely(d->platform, d->in))
        return OUTCOME_NONE;
    enum admission_verdict verdict =
        admission_check(d->env->admission, d->in->age_us, clock_mono_us());
    if (verdict != ADMITTED)
        return refuse_overload(d, verdict);
    enum outcome outcome = find_endpoint(d);
    return outcome == OUTCOME_NONE && d->integration ? check_share(d) : OUTCOME_NONE;
}

static const struct keyring *secrets_of(const struct delivery *d)
{
    if (d->env->override)
        return d->env->override->secrets;
    return d->integration ? &d->integration->secrets : &d->platform->secrets;
}

static int64_t now_wall_us(const struct delivery *d)
{
    return d->env->override ? d->env->override->now_wall_us : d->received_wall_us;
}

static enum outcome parse(struct delivery *d)
{
    if (d->json || d->platform->opaque)
        return OUTCOME_NONE;
    return json_read(d->env->json, d->in->body, &d->json);
}

/* Some platforms send their secret, or an unsigned handshake, inside the body. What can't be parsed
 * holds neither. */
static void read_unverified(struct delivery *d)
{
    if (d->platform->secret_in_body ||
        (d->platform->greets_unsigned && !candidates_any_present(d->platform, d->in, NULL)))
        (void)!parse(d);
}

static enum outcome authenticate(struct delivery *d)
{
    enum outcome outcome = find_endpoint(d);
    if (outcome != OUTCOME_NONE)
        return outcome;
    const struct keyring *secrets = secrets_of(d);
    read_unverified(d);
    /* Handshakes that the platform sends unsigned are the only answers to an unverified request. */
    outcome = challenge_check(d->platform, secrets, d->in, d->json, NULL, &d->challenge);
    if (outcome != OUTCOME_NONE)
        return outcome;
    if (!slice_is(d->in->method, "POST")) /* a GET that is no handshake */
        return OUTCOME_METHOD_NOT_ALLOWED;
    /* Where the token alone is the credential, a signature is checked when one is sent and a secret
     * is set. */
    if (d->route.endpoint.len > 0 && d->platform->token_authenticates &&
        (secrets->count == 0 || !candidates_any_present(d->platform, d->in, d->json)))
        return candidates_are_ambiguous(d->platform, d->in) ? OUTCOME_SIGNATURE_REPEATED
                                                            : OUTCOME_NONE;
    return verify_signature(d->platform, secrets, d->in, d->json, d->env->base_url, now_wall_us(d),
                            &d->verification);
}

/* A source that fails too often gets the platform's word for a limited sender, so that a flood of
 * forgeries costs neither log nor attention. What is authentic never comes here: a forger behind
 * the same proxy can't keep a platform out. */
static enum outcome count_failure(struct delivery *d, enum outcome outcome)
{
    struct address source;
    if (d->env->buckets == NULL || d->env->failed_signatures == 0 ||
        !address_parse(slice_of(d->source), &source))
        return outcome;
    switch (buckets_add(d->env->buckets, &source, d->env->failed_signatures, d->started_us)) {
    case BUCKET_HOLDS:
        return outcome;
    case BUCKET_SPILLS:
        break;
    case BUCKET_SPILLS_NOW:
        log_event(
            LOG_WARNING, "source_limited",
            "%s: more than %lld signatures failed within a minute; for a minute, further ones "
            "are told at level debug alone",
            d->source, (long long)d->env->failed_signatures);
        metrics_add(d->env->metrics, METRIC_SOURCES_LIMITED, 1);
        break;
    }
    return OUTCOME_SOURCE_LIMITED;
}

/* Which credential it was is counted, so that one sees whether an old one is still in use. */
static enum outcome step_verify(struct delivery *d)
{
    enum outcome outcome = authenticate(d);
    const struct secret *secret = d->verification.secret;
    if (outcome == OUTCOME_NONE && d->env->metrics)
        metrics_signed(d->env->metrics, secret ? secret_series(secret) : d->platform->token_series);
    if (outcome != OUTCOME_NONE && outcome_info(outcome)->http_status == 401)
        return count_failure(d, outcome);
    return outcome;
}

static enum outcome step_freshness(struct delivery *d)
{
    const struct timestamp_rule *rule = &d->platform->timestamp;
    if (rule->from.source == FROM_NOTHING)
        return OUTCOME_NONE;
    if (rule->from.source == FROM_JSON) {
        enum outcome outcome = parse(d);
        if (outcome != OUTCOME_NONE) /* what is no JSON has no time; a later step refuses it */
            return rule->optional ? OUTCOME_NONE : outcome;
    }
    return freshness_check(d->platform, d->verification.timestamp, d->json, now_wall_us(d));
}

static enum outcome step_challenge(struct delivery *d)
{
    if (d->platform->challenge_count == 0)
        return OUTCOME_NONE;
    (void)!parse(d); /* what can't be parsed is no handshake; the next step says what is wrong */
    return challenge_check(d->platform, secrets_of(d), d->in, d->json, &d->verification,
                           &d->challenge);
}

static enum outcome step_extract(struct delivery *d)
{
    enum outcome outcome = parse(d);
    if (outcome != OUTCOME_NONE)
        return outcome;
    return extract_event(d->platform, d->in, d->json, d->verification.scheme, &d->buffer, &d->event,
                         &d->detail);
}

/* The secret of one workspace's endpoint must not speak for the account of another. E-mail
 * addresses don't count: people of many companies meet in one meeting. */
static bool names_other_workspace(const struct delivery *d)
{
    if (d->route.endpoint.len == 0 || d->event.account.len == 0)
        return false;
    const struct integration *other = directory_by_account(
        d->directory, slice_of(d->platform->name), d->event.account, (struct slice){0});
    return other && strcmp(other->workspace, d->integration->workspace) != 0;
}

/* Some platforms' payloads are too thin to name a customer; who runs the gateway for one workspace
 * can say so. */
static bool names_nobody(const struct delivery *d)
{
    return d->event.account.len == 0 && d->event.email.len == 0 &&
           d->platform->fallback_workspace != NULL;
}

/* The endpoint names the integration; on the shared route the payload does. */
static enum outcome step_workspace(struct delivery *d)
{
    if (d->env->override) {
        d->workspace = slice_of(d->env->override->workspace);
        return OUTCOME_NONE;
    }
    if (d->directory == NULL)
        return OUTCOME_NOT_READY;
    if (d->integration == NULL && names_nobody(d))
        d->integration = directory_by_workspace(d->directory, slice_of(d->platform->name),
                                                slice_of(d->platform->fallback_workspace));
    else if (d->integration == NULL)
        d->integration = directory_by_account(d->directory, slice_of(d->platform->name),
                                              d->event.account, d->event.email);
    if (d->integration == NULL)
        return OUTCOME_IGNORED_WORKSPACE;
    if (names_other_workspace(d))
        return OUTCOME_WORKSPACE_MISMATCH;
    if (d->integration->status != INTEGRATION_CONNECTED)
        return OUTCOME_IGNORED_PAUSED;
    d->workspace = slice_of(d->integration->workspace);
    return OUTCOME_NONE;
}

/* Before the quota: what is refused here consumes none. */
static enum outcome step_share(struct delivery *d)
{
    return d->env->admission && d->integration ? check_share(d) : OUTCOME_NONE;
}

/* Whole seconds until there is room again, but never more than what the platform takes for "later".
 */
static void set_retry_after(struct delivery *d, int64_t wait_us)
{
    int64_t seconds = (wait_us + 999999) / 1000000;
    d->retry_after_s =
        seconds < d->platform->retry_after_s ? (int)seconds : d->platform->retry_after_s;
}

/* Before the body is copied: whoever is over the limit is refused cheaply. A duplicate counts. */
static enum outcome step_limit(struct delivery *d)
{
    if (d->env->limit == NULL || d->integration == NULL || d->integration->quota == NULL)
        return OUTCOME_NONE;
    int64_t wait_us = 0;
    switch (limit_take(d->env->limit, d->integration->quota, &wait_us)) {
    case LIMIT_GRANTED:
        break;
    case LIMIT_WAIT:
        d->waits_for_limit = true;
        break;
    case LIMIT_EXCEEDED:
        set_retry_after(d, wait_us);
        return OUTCOME_LIMITED;
    }
    return OUTCOME_NONE;
}

static void record(struct delivery *d)
{
    if (d->env->record == NULL)
        delivery_finish(d, OUTCOME_ACCEPTED, NULL);
    else
        d->env->record(d->env, d);
}

static void on_limit(struct limit_op *op, enum limit_verdict verdict, int64_t wait_us)
{
    struct delivery *d = container_of(op, struct delivery, limit_op);
    CHECK_OBJ(d, DELIVERY_MAGIC);
    if (verdict == LIMIT_GRANTED) {
        record(d);
        return;
    }
    d->step = DELIVERY_LIMIT;
    set_retry_after(d, wait_us);
    delivery_finish(d, OUTCOME_LIMITED, NULL);
}

static void time_step(const struct delivery *d, enum metric_step step, int64_t *began)
{
    int64_t now = clock_mono_us();
    if (d->env->metrics)
        metrics_step(d->env->metrics, step, now - *began);
    *began = now;
}

static void run(struct delivery *d)
{
    int64_t began = clock_mono_us();
    for (d->step = DELIVERY_ROUTE; d->step < DELIVERY_RECORD; d->step++) {
        CHECK_OBJ(d, DELIVERY_MAGIC);
        enum outcome outcome = steps[d->step].run(d);
        d->checks[d->step] = outcome;
        if (d->step == DELIVERY_VERIFY)
            time_step(d, STEP_VERIFY, &began);
        if (outcome != OUTCOME_NONE) {
            delivery_finish(d, outcome, d->detail);
            return;
        }
    }
    time_step(d, STEP_EXTRACT, &began);
    delivery_keep(d);
    if (d->waits_for_limit) {
        d->limit_op.quota = d->integration->quota;
        d->limit_op.on_done = on_limit;
        limit_wait(d->env->limit, &d->limit_op);
    } else {
        record(d); /* d may be gone */
    }
}

void delivery_start(struct delivery_env *env, const struct inbound *in,
                    void (*on_done)(struct delivery *, void *), void *context)
{
    struct delivery *d = delivery_new(env, in);
    d->on_done = on_done;
    d->context = context;
    run(d);
}

static void on_refused(struct delivery *d, void *context)
{
    (void)d, (void)context;
}

void delivery_refused(struct delivery_env *env, const struct inbound *in, enum outcome outcome,
                      const char *why)
{
    struct delivery *d = delivery_new(env, in);
    d->on_done = on_refused;
    d->step = DELIVERY_ROUTE;
    if (route_find(env->platforms, in, &d->route) == OUTCOME_NONE)
        d->platform = d->route.platform;
    if (d->platform)
        d->event.series = d->platform->other_series;
    delivery_finish(d, outcome, why);
}

void delivery_finish(struct delivery *d, enum outcome outcome, const char *detail)
{
    CHECK_OBJ(d, DELIVERY_MAGIC);
    assert(d->outcome == OUTCOME_NONE && outcome != OUTCOME_NONE);
    d->outcome = outcome;
    d->detail = detail;
    int64_t duration = clock_mono_us() - d->started_us;
    if (d->env->metrics)
        metrics_delivery(d->env->metrics, d->event.series, outcome, duration);
    delivery_sight(d);
    if (d->env->override == NULL)
        delivery_log(d, duration);
    d->on_done(d, d->context);
    delivery_release(d);
}
