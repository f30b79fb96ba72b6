/* Fuzzing of the platform loader: any bytes give a platform or problems that point, never both and
 * never none; and what it lets pass holds what the steps rely on. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "platform.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static void check(const struct platform *platform)
{
    assert(platform->scheme_count > 0 || platform->token_authenticates);
    for (size_t i = 0; i < platform->scheme_count; i++) {
        const struct signature_scheme *scheme = &platform->schemes[i];
        assert((scheme->header_count > 0) + (scheme->query != NULL) + (scheme->json != NULL) == 1);
        assert(scheme->header_count == 0 || scheme->headers[0] != NULL);
        assert(scheme->message_count > 0 || scheme->algorithm == STATIC_EQUALITY);
    }
    for (size_t i = 0; i < platform->challenge_count; i++) {
        const struct challenge_rule *rule = &platform->challenges[i];
        bool posted = rule->kind == CHALLENGE_POST_JSON;
        assert((rule->token == NULL) == (rule->answer == ANSWER_FIXED));
        assert(posted ? rule->when.name != NULL : rule->unsigned_ok);
        assert((rule->verify_key == NULL) == (rule->verify_prefix.len == 0));
        assert(!posted || !rule->unsigned_ok || rule->answer != ANSWER_HMAC_JSON);
    }
    assert(platform->event_count > 0 && platform->event_type_count > 0);
    for (size_t i = 0; i < platform->event_count; i++) {
        const struct event_rule *event = &platform->events[i];
        assert(event->spelling_count == 0 || event->beginning.len == 0);
        for (size_t k = 0; k < event->hold_count; k++)
            assert(event->holds[k].pointer[0] == '/');
    }
    for (size_t i = 0; i < platform->id_count; i++)
        assert(platform->ids[i].part_count > 0);
    assert(platform->later_status == 503 || platform->later_status == 429);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    static const char *const folders[] = {"zoom", "fireflies", "otter", "acme"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        struct problems problems = {0};
        struct platforms *platforms = platforms_load_bytes(folders[i], data, size, &problems);
        assert((platforms == NULL) == problems_any(&problems));
        if (platforms != NULL)
            check(platforms_at(platforms, 0));
        platforms_free(platforms);
        problems_release(&problems);
    }
    return 0;
}
