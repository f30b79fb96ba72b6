/* The forge behind forge.h. Each fit sample becomes a recipe once; an event is then a fill of its
 * texts, a signature and one header line. What is forged is a function of seed and counter, so
 * that an event of the past can be forged again. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "forge.h"

#include "extract.h"
#include "forge_recipe.h"
#include "json.h"
#include "verify.h"

#include <glob.h>
#include <stdio.h>

#define RECIPES_MAX 64
#define RING_SIZE 1000
#define POOL_ROOM (1u << 20)

struct past_event {
    uint64_t counter;
    int64_t birth_us;
};

struct forge {
    const struct platform *platform;
    const struct secret *secret;
    const struct forge_options *options;
    struct recipe recipes[RECIPES_MAX];
    size_t recipe_count;
    char *pool; /* of padding */
    size_t pool_len;
    uint64_t random, first_number, counter;
    int64_t last_birth_us;
    struct past_event ring[RING_SIZE];
    size_t ring_count, ring_next;
};

/* --- making ----------------------------------------------------------------------------------- */

static struct forge_values values_of(const struct forge *forge, struct past_event event)
{
    uint64_t random = forge->options->seed ^ (event.counter * UINT64_C(0xd1342543de82ef95));
    forge_random(&random);
    return (struct forge_values){.random = random,
                                 .number = forge->first_number + event.counter,
                                 .wall_us = event.birth_us,
                                 .padding = {forge->pool, forge->pool_len}};
}

/* One bit of the digest, in hex and in base64 alike: the neighbour in the alphabet. */
static void spoil(char *value)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t end = strlen(value);
    while (end > 0 && value[end - 1] == '=')
        end--;
    char *at = value + (end > 4 ? end - 4 : 0);
    const char *found = *at != '\0' ? strchr(alphabet, *at) : NULL;
    *at = found != NULL ? alphabet[(size_t)(found - alphabet) ^ 1] : 'A';
}

/* Puts the signature's header line behind the head; false when the scheme can't sign. */
static bool sign(const struct forge *forge, struct recipe *recipe, int64_t birth_us, bool bad)
{
    struct inbound *in = &recipe->in;
    const struct timestamp_rule *rule = &forge->platform->timestamp;
    char stamp[40] = "";
    struct slice timestamp = {stamp, 0};
    const char *header = recipe->scheme->timestamp_header;
    if (header == NULL && rule->from.source == FROM_HEADER)
        header = rule->from.name;
    if (header != NULL)
        inbound_header_find(in, header, &timestamp);
    else if (rule->from.source != FROM_NOTHING)
        timestamp.len = forge_time_format(
            rule->unit, false, rule->from.source == FROM_JSON ? birth_us : in->received_wall_us,
            stamp, sizeof stamp);
    char *line = recipe->head.bytes + recipe->head.len;
    size_t name_len = strlen(recipe->signature_header);
    memcpy(line, recipe->signature_header, name_len);
    memcpy(line + name_len, ": ", 2);
    char *value = line + name_len + 2;
    if (!verify_sign(forge->platform, recipe->scheme, forge->secret, in, forge->options->origin,
                     timestamp, value, RECIPE_SIGNATURE_MAX - name_len - 8))
        return false;
    if (bad)
        spoil(value);
    in->headers[in->header_count++] =
        (struct inbound_header){{recipe->signature_header, name_len}, slice_of(value)};
    return true;
}

static bool make(const struct forge *forge, struct recipe *recipe, struct past_event event,
                 int64_t now_us, bool bad, struct forged *ret)
{
    struct forge_values values = values_of(forge, event);
    forge_text_fill(&recipe->body, &values);
    values.wall_us = now_us;
    forge_text_fill(&recipe->head, &values);
    struct inbound *in = &recipe->in;
    in->received_wall_us = now_us;
    in->header_count = recipe->header_count;
    char *end = recipe->head.bytes + recipe->head.len;
    if (recipe->scheme != NULL) {
        if (!sign(forge, recipe, event.birth_us, bad))
            return false;
        const struct inbound_header *signature = &in->headers[recipe->header_count];
        end += signature->name.len + 2 + signature->value.len;
        memcpy(end, "\r\n", 2);
        end += 2;
    }
    memcpy(end, "\r\n", 2);
    ret->in = in;
    ret->head = (struct slice){recipe->head.bytes, (size_t)(end + 2 - recipe->head.bytes)};
    return true;
}

/* The one of the past that is sent again, or false. */
static bool recall(struct forge *forge, int64_t now_us, struct past_event *ret)
{
    if (forge->ring_count == 0)
        return false;
    const struct past_event *event = &forge->ring[forge_random(&forge->random) % forge->ring_count];
    const struct timestamp_rule *rule = &forge->platform->timestamp;
    /* A time in the body can't be renewed without a new event: not one that is soon stale. */
    if (rule->from.source == FROM_JSON && now_us - event->birth_us > rule->past_us / 2)
        event = &forge->ring[(forge->ring_next + RING_SIZE - 1) % RING_SIZE];
    if (rule->from.source == FROM_JSON && now_us - event->birth_us > rule->past_us / 2)
        return false;
    *ret = *event;
    return true;
}

static struct past_event bear(struct forge *forge, int64_t now_us)
{
    struct past_event event = {forge->counter++, now_us};
    int64_t step = forge->recipes[event.counter % forge->recipe_count].time_step_us;
    if (step > 0 && event.birth_us < forge->last_birth_us + step)
        event.birth_us = forge->last_birth_us + step;
    if (step > 0)
        forge->last_birth_us = event.birth_us;
    return event;
}

void forge_make(struct forge *forge, int64_t now_wall_us, unsigned how, struct forged *ret)
{
    struct past_event event;
    bool bad = (how & FORGE_BAD_SIGNATURE) != 0;
    ret->repeated = !bad && (how & FORGE_REPEAT) && recall(forge, now_wall_us, &event);
    if (!ret->repeated) {
        event = bear(forge, now_wall_us);
        if (!bad) {
            forge->ring[forge->ring_next] = event;
            forge->ring_next = (forge->ring_next + 1) % RING_SIZE;
            forge->ring_count += forge->ring_count < RING_SIZE;
        }
    }
    struct recipe *recipe = &forge->recipes[event.counter % forge->recipe_count];
    bool made = make(forge, recipe, event, now_wall_us, bad, ret);
    assert(made); /* it was tried when the recipe was made */
    (void)made;
}

/* --- which samples are fit, and for what --------------------------------------------------------
 */

struct facts {
    enum outcome outcome;
    char type[EVENT_TYPE_MAX + 1];
    char id[EVENT_EXTERNAL_ID_MAX];
    size_t id_len;
};

/* What the gateway would say of the request. */
static void learn(const struct platform *platform, const struct inbound *in,
                  const struct signature_scheme *matched, struct facts *ret)
{
    struct json_reader *reader = json_reader_new(in->body.len + 64);
    struct extract_buffer *buffer = xcalloc(1, sizeof *buffer);
    const struct json *json;
    struct event event = {0};
    const char *detail = NULL;
    *ret = (struct facts){.outcome = json_read(reader, in->body, &json)};
    if (ret->outcome == OUTCOME_NONE)
        ret->outcome = extract_event(platform, in, json, matched, buffer, &event, &detail);
    if (event.type.len > 0 && event.type.len < sizeof ret->type)
        memcpy(ret->type, event.type.ptr, event.type.len);
    if (ret->outcome == OUTCOME_NONE && event.external_id.len <= sizeof ret->id) {
        memcpy(ret->id, event.external_id.ptr, event.external_id.len);
        ret->id_len = event.external_id.len;
    }
    free(buffer);
    json_reader_free(reader);
}

/* True when two events of one moment differ in their external ids. */
static bool makes_unique(const struct forge *forge, struct recipe *recipe, int64_t step_us,
                         enum outcome *ret_outcome)
{
    const int64_t now_us = INT64_C(1700000000) * 1000000;
    struct facts first, second;
    struct forged forged;
    if (!make(forge, recipe, (struct past_event){0, now_us}, now_us, false, &forged))
        return false;
    learn(forge->platform, forged.in, recipe->scheme, &first);
    *ret_outcome = first.outcome;
    /* No two come at once: an id may be the moment of arrival. */
    if (!make(forge, recipe, (struct past_event){1, now_us + step_us}, now_us + 1, false, &forged))
        return false;
    learn(forge->platform, forged.in, recipe->scheme, &second);
    return first.id_len != second.id_len || memcmp(first.id, second.id, first.id_len) != 0;
}

/* The scheme whose header the sample carries, else the first that can sign. */
static bool choose_scheme(const struct forge *forge, struct recipe *recipe)
{
    bool carried_elsewhere = false; /* in the address or in the sample's body, as it is */
    const struct platform *platform = forge->platform;
    recipe->scheme = NULL;
    if (forge->secret == NULL || platform->scheme_count == 0)
        return true;
    struct forged forged;
    struct slice value;
    for (int carried = 1; carried >= 0; carried--) {
        for (size_t i = 0; i < platform->scheme_count; i++) {
            const struct signature_scheme *scheme = &platform->schemes[i];
            carried_elsewhere |= scheme->query != NULL || scheme->json != NULL;
            for (size_t j = 0; j < scheme->header_count; j++) {
                if (carried &&
                    inbound_header_find(&recipe->sample.in, scheme->headers[j], &value) == 0)
                    continue;
                recipe->scheme = scheme;
                recipe->signature_header = scheme->headers[j];
                if (make(forge, recipe, (struct past_event){0, 1}, 1, false, &forged))
                    return true;
            }
        }
    }
    recipe->scheme = NULL;
    return carried_elsewhere;
}

/* Builds the recipe of a sample that is parsed; `type` as recipe_build() has it. */
static const char *prepare(struct forge *forge, struct recipe *recipe, const char *type,
                           const char *own_type)
{
    const struct platform *platform = forge->platform;
    const enum time_unit unit =
        platform->time.from.source == FROM_JSON ? platform->time.unit : platform->timestamp.unit;
    const int64_t step_us = unit == UNIT_MILLISECONDS ? 1000 : 1000000;
    enum outcome outcome = OUTCOME_NONE;
    for (int nonce = 0; nonce < 2; nonce++) {
        const char *problem =
            recipe_build(recipe, platform, forge->options, type, slice_of(own_type), nonce == 1);
        if (problem != NULL)
            return problem;
        if (!choose_scheme(forge, recipe))
            return "no scheme of the platform can sign with this secret";
        if (makes_unique(forge, recipe, 0, &outcome))
            return NULL;
        if (outcome != OUTCOME_NONE)
            break;
    }
    if (outcome != OUTCOME_NONE) /* a type that was asked for may well be refused or ignored */
        return type != NULL ? NULL : "with fresh values the gateway would not accept it";
    recipe->time_step_us = step_us;
    return makes_unique(forge, recipe, step_us, &outcome)
               ? NULL
               : "nothing in it could make one event differ from another";
}

/* Reads a sample; NULL when it is fit to be made into events, "" when it is not meant to be. */
static const char *read_sample(const struct forge *forge, const char *path, struct recipe *recipe,
                               struct facts *facts)
{
    const char *reason = NULL;
    size_t len;
    recipe->sample_bytes = sample_load(path, &len, &reason);
    if (recipe->sample_bytes == NULL)
        return reason;
    if (!sample_parse(recipe->sample_bytes, len, &recipe->sample, &reason))
        return ""; /* malformed on purpose */
    struct inbound *in = &recipe->sample.in;
    struct slice expect = sample_note(&recipe->sample, "expect");
    if (expect.ptr == NULL || !slice_is(expect, "accepted") || !slice_is(in->method, "POST"))
        return "";
    learn(forge->platform, in, NULL, facts);
    return facts->outcome == OUTCOME_NONE ? NULL : "";
}

static void add_samples(struct forge *forge, const glob_t *files, bool write_type,
                        struct problems *problems)
{
    const char *event = forge->options->event;
    for (size_t i = 0; i < files->gl_pathc && forge->recipe_count < RECIPES_MAX; i++) {
        struct recipe *recipe = &forge->recipes[forge->recipe_count];
        struct facts facts;
        const char *problem = read_sample(forge, files->gl_pathv[i], recipe, &facts);
        bool other =
            problem == NULL && event != NULL && !write_type && strcmp(facts.type, event) != 0;
        if (problem == NULL && !other)
            problem = prepare(forge, recipe, write_type ? event : NULL, facts.type);
        if (problem != NULL && *problem != '\0')
            problem_add(problems, files->gl_pathv[i], 0, 0, "%s", problem);
        if (problem != NULL || other) {
            recipe_release(recipe);
            continue;
        }
        forge->recipe_count++;
        if (write_type)
            return; /* one sample with another's type is enough */
    }
}

/* Words of random letters: they look like text and don't shrink like one letter repeated. */
static void fill_pool(struct forge *forge)
{
    forge->pool_len = POOL_ROOM + forge->options->size;
    forge->pool = xmalloc(forge->pool_len);
    uint64_t random = forge->options->seed ^ 0x706f6f6c;
    size_t word = 0;
    for (size_t i = 0; i < forge->pool_len; i++) {
        uint64_t r = forge_random(&random);
        bool blank = word > 1 && (word > 9 || r % 6 == 0);
        forge->pool[i] = blank ? ' ' : (char)('a' + (r >> 32) % 26);
        word = blank ? 0 : word + 1;
    }
}

struct forge *forge_new(const struct platform *platform, const struct secret *secret,
                        const struct forge_options *options, struct problems *problems)
{
    if ((options->account != NULL && platform->account_count == 0) ||
        (options->email != NULL && platform->email_count == 0)) {
        problem_add(problems, NULL, 0, 0, "%s: its file says no place of an %s", platform->name,
                    platform->account_count == 0 && options->account ? "account id"
                                                                     : "e-mail address");
        return NULL;
    }
    struct forge *forge = xcalloc(1, sizeof *forge);
    forge->platform = platform;
    forge->secret = secret;
    forge->options = options;
    forge->random = options->seed ^ 0x72657065;
    uint64_t random = options->seed;
    forge->first_number =
        UINT64_C(100000000000000) + forge_random(&random) % UINT64_C(800000000000000);
    fill_pool(forge);
    char pattern[4096];
    snprintf(pattern, sizeof pattern, "%s/samples/*.http", platform->directory);
    glob_t files = {0};
    if (glob(pattern, 0, NULL, &files) == 0) {
        add_samples(forge, &files, false, problems);
        if (forge->recipe_count == 0 && options->event != NULL && !problems_any(problems))
            add_samples(forge, &files, true, problems);
    }
    globfree(&files);
    if (forge->recipe_count == 0 && !problems_any(problems))
        problem_add(problems, pattern, 0, 0, "no sample here is expected to be accepted");
    if (forge->recipe_count > 0)
        return forge; /* problems of other samples are remarks */
    forge_free(forge);
    return NULL;
}

void forge_free(struct forge *forge)
{
    if (forge == NULL)
        return;
    for (size_t i = 0; i < forge->recipe_count; i++)
        recipe_release(&forge->recipes[i]);
    free(forge->pool);
    free(forge);
}
