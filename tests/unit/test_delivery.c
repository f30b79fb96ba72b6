/* The head of the step table: what is refused when the pipeline can't keep up, and what is answered
 * all the same. The steps themselves are in test_senders.c and test_handshakes.c. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "admission.h"
#include "sender.h"

#define KEY "s3cret-of-the-vendor"
#define PATIENCE INT64_C(1000000)
#define QUEUE 4
#define EVENT "{\"type\":\"note.created\",\"id\":\"n1\"}"
#define HANDSHAKE "{\"type\":\"url_verification\",\"challenge\":\"abc\"}"

static const char yaml[] =
    "name: notes\ntitle: Notes\nsignatures: {algorithm: static, header: x-api-key}\n"
    "challenges: {via: post-json, when: /type, equals: url_verification, token: /challenge, "
    "answer: text}\n"
    "event_type: /type\nevents: [{type: note.created}]\nid: [/id]\nlimited: {status: 503}\n";

static struct sender *sender;

static int setup(void **state)
{
    (void)state;
    sender = SENDER(yaml, KEY);
    sender->admission = admission_new(&(struct admission_limits){QUEUE, PATIENCE}, NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    admission_free(sender->admission);
    sender_close(sender);
    return 0;
}

static enum outcome post(const char *body, const char *key)
{
    struct post post = {.method = "POST", .path = "/webhooks/notes", .now = NOW};
    post_body(&post, "%s", body);
    post_add(&post, "x-api-key", "%s", key);
    return sender_post(sender, &post);
}

static void fill_queue(void)
{
    for (uint32_t i = 0; i < QUEUE; i++)
        admission_queued(sender->admission, i);
}

static void a_full_queue_refuses_unverified(void **state)
{
    (void)state;
    expect_outcome("room", post(EVENT, KEY), OUTCOME_ACCEPTED);
    expect_outcome("forged", post(EVENT, "forged"), OUTCOME_SIGNATURE_MISMATCH);
    fill_queue();
    expect_outcome("full", post(EVENT, KEY), OUTCOME_OVERLOADED);
    expect_outcome("full, forged", post(EVENT, "forged"), OUTCOME_OVERLOADED);
    expect_outcome("full, no JSON", post("{", KEY), OUTCOME_OVERLOADED);
    assert_int_equal(sender->step, DELIVERY_ADMISSION);
    assert_int_equal(sender->answer.status, 503);
    assert_in_range(sender->answer.retry_after_s, 1, 60);
}

static void who_tests_the_address_is_answered(void **state)
{
    (void)state;
    fill_queue();
    expect_outcome("handshake", post(HANDSHAKE, KEY), OUTCOME_CHALLENGED);
    expect_outcome("forged handshake", post(HANDSHAKE, "forged"), OUTCOME_SIGNATURE_MISMATCH);
}

/* What the request lay in the kernel is part of its time. */
static void age_counts(void **state)
{
    (void)state;
    sender->age_us = PATIENCE / 2;
    expect_outcome("half", post(EVENT, KEY), OUTCOME_ACCEPTED);
    assert_in_range(sender->left_us, 1, 2500000 - PATIENCE / 2);
    sender->age_us = PATIENCE;
    expect_outcome("all", post(EVENT, KEY), OUTCOME_OVERLOADED);
    assert_int_equal(sender->step, DELIVERY_ADMISSION);
}

/* Not by the step that only looks for a handshake in it. */
static void no_json_is_told_by_the_step_that_needs_it(void **state)
{
    (void)state;
    expect_outcome("no JSON", post("{\"type\":", KEY), OUTCOME_BAD_JSON);
    assert_int_equal(sender->step, DELIVERY_EXTRACT);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_full_queue_refuses_unverified),
        TEST(who_tests_the_address_is_answered),
        TEST(age_counts),
        TEST(no_json_is_told_by_the_step_that_needs_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
