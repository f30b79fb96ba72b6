/* The recipes behind forge_recipe.h: a sample's body becomes a document that may be changed; what
 * an external id is made of, and the times, become places; the rest stays as it is. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "forge_recipe.h"

#include <stdio.h>
#include <yyjson.h>

#define FOUND_MAX 64
#define PAD_MEMBER ",\"padding_text\":\""

/* --- the draft: a document that may be changed ----------------------------------------------- */

struct draft {
    yyjson_mut_doc *doc;
    struct inbound_header headers[INBOUND_MAX_HEADERS];
    size_t header_count;
    char marks[FORGE_PLACES_MAX][FORGE_MARK_MAX]; /* what header values of places point to */
    yyjson_mut_val *kept[FOUND_MAX];              /* values that are not to be touched */
    size_t kept_count;
};

struct found {
    yyjson_mut_val *values[FOUND_MAX];
    size_t count;
};

/* Takes the first token of an RFC 6901 pointer, unescaped; false at its end. */
static bool take_token(const char **pointer, char *token, size_t size)
{
    if (**pointer != '/')
        return false;
    const char *p = *pointer + 1;
    size_t len = 0;
    for (; *p != '\0' && *p != '/'; p++) {
        char c = *p;
        if (c == '~' && (p[1] == '0' || p[1] == '1'))
            c = *++p == '0' ? '~' : '/';
        if (len + 1 < size)
            token[len++] = c;
    }
    token[len] = '\0';
    *pointer = p;
    return true;
}

/* All values that the pointer (with `*` tokens) matches. Bounded by the pointer's length. */
static void find_values(yyjson_mut_val *value, const char *pointer, struct found *found)
{
    char token[256];
    if (value == NULL || found->count == FOUND_MAX)
        return;
    if (!take_token(&pointer, token, sizeof token)) {
        found->values[found->count++] = value;
        return;
    }
    bool all = strcmp(token, "*") == 0;
    size_t index, max;
    yyjson_mut_val *key, *member;
    if (yyjson_mut_is_obj(value)) {
        yyjson_mut_obj_foreach(value, index, max, key, member)
        {
            if (all || yyjson_mut_equals_str(key, token))
                find_values(member, pointer, found);
        }
    } else if (yyjson_mut_is_arr(value)) {
        size_t wanted =
            strspn(token, "0123456789") == strlen(token) ? strtoul(token, NULL, 10) : SIZE_MAX;
        yyjson_mut_arr_foreach(value, index, max, member)
        {
            if (all || index == wanted)
                find_values(member, pointer, found);
        }
    }
}

static struct inbound_header *find_header(struct draft *draft, const char *name)
{
    for (size_t i = 0; i < draft->header_count; i++) {
        if (slice_is(draft->headers[i].name, name))
            return &draft->headers[i];
    }
    return NULL;
}

static void set_header(struct draft *draft, const char *name, struct slice value)
{
    struct inbound_header *header = find_header(draft, name);
    if (header == NULL && draft->header_count < INBOUND_MAX_HEADERS - 1)
        header = &draft->headers[draft->header_count++];
    if (header != NULL)
        *header = (struct inbound_header){slice_of(name), value};
}

static void keep(struct draft *draft, yyjson_mut_val *value)
{
    if (draft->kept_count < FOUND_MAX)
        draft->kept[draft->kept_count++] = value;
}

static bool is_kept(const struct draft *draft, const yyjson_mut_val *value)
{
    for (size_t i = 0; i < draft->kept_count; i++) {
        if (draft->kept[i] == value)
            return true;
    }
    return false;
}

static void keep_all(struct draft *draft, const char *pointer)
{
    struct found found = {.count = 0};
    find_values(yyjson_mut_doc_get_root(draft->doc), pointer, &found);
    for (size_t i = 0; i < found.count; i++)
        keep(draft, found.values[i]);
}

/* Writes `text` where the first of the rules finds a value, else where the first rule looks. */
static bool write_first(struct draft *draft, const struct value_rule *rules, size_t count,
                        const char *text)
{
    yyjson_mut_val *root = yyjson_mut_doc_get_root(draft->doc);
    for (size_t i = 0; i < count; i++) {
        struct found found = {.count = 0};
        if (rules[i].means != NULL) /* that it is there says the type, not its text */
            continue;
        if (rules[i].source == FROM_HEADER && find_header(draft, rules[i].name) != NULL) {
            set_header(draft, rules[i].name, slice_of(text));
            return true;
        }
        if (rules[i].source == FROM_JSON)
            find_values(root, rules[i].name, &found);
        if (found.count == 0)
            continue;
        bool number = yyjson_mut_is_raw(found.values[0]) && *text != '\0' &&
                      strspn(text, "0123456789") == strlen(text);
        return number ? yyjson_mut_set_raw(found.values[0], text, strlen(text))
                      : yyjson_mut_set_str(found.values[0], text);
    }
    if (count > 0 && rules[0].means != NULL)
        return false;
    if (count > 0 && rules[0].source == FROM_HEADER) {
        set_header(draft, rules[0].name, slice_of(text));
        return true;
    }
    return count > 0 && rules[0].source == FROM_JSON &&
           yyjson_mut_doc_ptr_set(draft->doc, rules[0].name, yyjson_mut_strcpy(draft->doc, text));
}

/* 2025-01-27T23:27:47... : an id that is made of a time gets another time. */
static bool looks_like_time(struct slice s)
{
    return s.len >= 20 && s.ptr[4] == '-' && s.ptr[7] == '-' && s.ptr[10] == 'T' &&
           s.ptr[13] == ':' && s.ptr[16] == ':' && strspn(s.ptr, "0123456789") == 4;
}

/* Puts a mark where `value` is; strings stay strings, numbers numbers. */
static void mark_value(struct draft *draft, struct forge_text *body, enum place_kind kind,
                       enum time_unit unit, yyjson_mut_val *value)
{
    bool raw = yyjson_mut_is_raw(value);
    if ((!raw && !yyjson_mut_is_str(value)) || is_kept(draft, value))
        return;
    struct slice sample = {raw ? yyjson_mut_get_raw(value) : yyjson_mut_get_str(value),
                           yyjson_mut_get_len(value)};
    if (kind == PLACE_ID && !raw && looks_like_time(sample)) {
        kind = PLACE_TIME;
        unit = UNIT_RFC3339;
    }
    char mark[FORGE_MARK_MAX];
    size_t len = sample.len == 0
                     ? 0
                     : forge_text_mark(body, raw && kind == PLACE_ID ? PLACE_NUMBER : kind, unit,
                                       sample, mark);
    if (len == 0)
        return;
    yyjson_mut_val *copy = yyjson_mut_strncpy(draft->doc, mark, len); /* for its memory */
    if (raw)
        yyjson_mut_set_raw(value, yyjson_mut_get_str(copy), len);
    else
        yyjson_mut_set_strn(value, yyjson_mut_get_str(copy), len);
    keep(draft, value);
}

static void mark_rule(struct draft *draft, struct recipe *recipe, enum place_kind kind,
                      enum time_unit unit, const struct value_rule *rule)
{
    if (rule->source == FROM_JSON || rule->source == FROM_JSON_ALL) {
        struct found found = {.count = 0};
        find_values(yyjson_mut_doc_get_root(draft->doc), rule->name, &found);
        for (size_t i = 0; i < found.count; i++)
            mark_value(draft, &recipe->body, kind, unit, found.values[i]);
    } else if (rule->source == FROM_HEADER) {
        struct inbound_header *header = find_header(draft, rule->name);
        if (header == NULL || header->value.len == 0 ||
            memchr(header->value.ptr, '\x7f', header->value.len) != NULL)
            return;
        char *mark =
            draft
                ->marks[recipe->head.place_count < FORGE_PLACES_MAX ? recipe->head.place_count : 0];
        size_t len = forge_text_mark(&recipe->head, kind, unit, header->value, mark);
        if (len > 0)
            header->value = (struct slice){mark, len};
    }
}

static bool event_rule_fits(const struct event_rule *rule, struct slice type)
{
    size_t len = strlen(rule->type);
    if (rule->type[len - 1] == '*')
        return slice_starts(type, (struct slice){rule->type, len - 1});
    for (size_t i = 0; i < rule->name_count; i++) {
        if (slice_is(type, rule->names[i]))
            return true;
    }
    return slice_is(type, rule->type);
}

static void mark_ids(struct draft *draft, struct recipe *recipe, const struct id_rule *ids,
                     size_t count)
{
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < ids[i].part_count; j++)
            mark_rule(draft, recipe, PLACE_ID, UNIT_SECONDS, &ids[i].parts[j]);
    }
}

/* First what must stay as it is, then the times, then all that an external id may be made of. */
static void mark_places(struct draft *draft, struct recipe *recipe, const struct platform *platform,
                        struct slice type)
{
    const struct {
        const struct value_rule *rules;
        size_t count;
    } stay[] = {{platform->event_types, platform->event_type_count},
                {platform->accounts, platform->account_count},
                {platform->emails, platform->email_count}};
    for (size_t i = 0; i < 3; i++) {
        for (size_t j = 0; j < stay[i].count; j++) {
            if (stay[i].rules[j].source == FROM_JSON && stay[i].rules[j].means == NULL)
                keep_all(draft, stay[i].rules[j].name);
        }
    }
    for (size_t i = 0; i < platform->event_count; i++) {
        for (size_t j = 0; j < platform->events[i].hold_count; j++)
            keep_all(draft, platform->events[i].holds[j].pointer);
    }
    mark_rule(draft, recipe, PLACE_TIME, platform->timestamp.unit, &platform->timestamp.from);
    for (size_t i = 0; i < platform->scheme_count; i++) {
        const struct value_rule own = {FROM_HEADER, platform->schemes[i].timestamp_header, NULL};
        if (own.name != NULL)
            mark_rule(draft, recipe, PLACE_TIME, platform->timestamp.unit, &own);
    }
    mark_rule(draft, recipe, PLACE_TIME, platform->time.unit, &platform->time.from);
    for (size_t i = 0; i < platform->event_count; i++) {
        const struct event_rule *rule = &platform->events[i];
        if (event_rule_fits(rule, type))
            mark_ids(draft, recipe, rule->ids, rule->id_count);
    }
    mark_ids(draft, recipe, platform->ids, platform->id_count);
}

/* --- from the draft to the recipe ------------------------------------------------------------ */

static bool finish_body(struct draft *draft, struct recipe *recipe, size_t size)
{
    size_t len;
    char *text = yyjson_mut_write(draft->doc, YYJSON_WRITE_NOFLAG, &len);
    if (text == NULL)
        return false;
    char *bytes = xmalloc(len > size ? len : size);
    memcpy(bytes, text, len);
    free(text);
    yyjson_mut_val *root = yyjson_mut_doc_get_root(draft->doc);
    const size_t overhead = sizeof PAD_MEMBER - 1 + 1; /* and the closing quote */
    size_t pad = 0, pad_at = 0;
    if (size > len + overhead && yyjson_mut_is_obj(root) && yyjson_mut_obj_size(root) > 0) {
        pad = size - len - overhead;
        memcpy(bytes + len - 1, PAD_MEMBER, sizeof PAD_MEMBER - 1);
        pad_at = len - 1 + sizeof PAD_MEMBER - 1;
        memset(bytes + pad_at, 'x', pad);
        memcpy(bytes + pad_at + pad, "\"}", 2);
        len = size;
    } else if (size > len) {
        memset(bytes + len, ' ', size - len); /* too little for a member: blanks are legal there */
        len = size;
    }
    if (!forge_text_bind(&recipe->body, bytes, len))
        return false;
    if (pad > 0)
        forge_text_pad(&recipe->body, pad_at, pad);
    recipe->in.body = (struct slice){bytes, len};
    return true;
}

/* The head without its last empty line, and with room for the signature. */
static bool finish_head(struct draft *draft, struct recipe *recipe,
                        const struct forge_options *options)
{
    size_t size = 256 + strlen(options->target) + strlen(options->authority) + RECIPE_SIGNATURE_MAX;
    for (size_t i = 0; i < draft->header_count; i++)
        size += draft->headers[i].name.len + draft->headers[i].value.len + 4;
    char *head = xmalloc(size + 128);
    size_t len =
        (size_t)snprintf(head, size, "POST %s HTTP/1.1\r\nhost: %s\r\ncontent-length: %zu\r\n",
                         options->target, options->authority, recipe->in.body.len);
    for (size_t i = 0; i < draft->header_count; i++)
        len += (size_t)snprintf(head + len, size - len, "%.*s: %.*s\r\n",
                                (int)draft->headers[i].name.len, draft->headers[i].name.ptr,
                                (int)draft->headers[i].value.len, draft->headers[i].value.ptr);
    if (!forge_text_bind(&recipe->head, head, len))
        return false;
    struct inbound *in = &recipe->in;
    in->method = SLICE_LITERAL("POST");
    const char *query = strchr(options->target, '?');
    in->path = (struct slice){options->target,
                              query ? (size_t)(query - options->target) : strlen(options->target)};
    in->query = query ? slice_of(query + 1) : (struct slice){"", 0};
    in->header_count = 0;
    const char *line = (const char *)memchr(head, '\n', len) + 1;
    while (line < head + len && in->header_count < INBOUND_MAX_HEADERS - 1) {
        const char *end = memchr(line, '\r', (size_t)(head + len - line));
        const char *colon = memchr(line, ':', (size_t)(end - line));
        in->headers[in->header_count++] = (struct inbound_header){
            {line, (size_t)(colon - line)}, {colon + 2, (size_t)(end - colon) - 2}};
        line = end + 2;
    }
    recipe->header_count = in->header_count;
    memcpy(in->peer, "127.0.0.1", sizeof "127.0.0.1");
    return true;
}

static bool is_dropped_header(const struct platform *platform, struct slice name)
{
    static const char *const own[] = {"host",       "content-length",    "connection",
                                      "keep-alive", "transfer-encoding", "expect"};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
        if (slice_is(name, own[i]))
            return true;
    }
    for (size_t i = 0; i < platform->scheme_count; i++) {
        for (size_t j = 0; j < platform->schemes[i].header_count; j++) {
            if (slice_is(name, platform->schemes[i].headers[j]))
                return true;
        }
    }
    return false;
}

static bool open_draft(struct draft *draft, const struct platform *platform,
                       const struct recipe *recipe)
{
    const struct inbound *in = &recipe->sample.in;
    yyjson_doc *doc = yyjson_read(in->body.ptr, in->body.len, YYJSON_READ_NUMBER_AS_RAW);
    if (doc == NULL)
        return false;
    draft->doc = yyjson_doc_mut_copy(doc, NULL);
    yyjson_doc_free(doc);
    for (size_t i = 0; i < in->header_count; i++) {
        if (!is_dropped_header(platform, in->headers[i].name))
            draft->headers[draft->header_count++] = in->headers[i];
    }
    if (find_header(draft, "content-type") == NULL)
        set_header(draft, "content-type", SLICE_LITERAL("application/json"));
    return draft->doc != NULL;
}

const char *recipe_build(struct recipe *recipe, const struct platform *platform,
                         const struct forge_options *options, const char *type,
                         struct slice own_type, bool nonce)
{
    const char *problem = NULL;
    struct draft *draft = xcalloc(1, sizeof *draft);
    forge_text_release(&recipe->head);
    forge_text_release(&recipe->body);
    if (!open_draft(draft, platform, recipe)) /* what extract.c took has half a surrogate pair */
        problem = platform->opaque ? "its body is not JSON" : "";
    else if (type != NULL &&
             !write_first(draft, platform->event_types, platform->event_type_count, type))
        problem = "there is no place to write the event type";
    else if (options->account != NULL &&
             !write_first(draft, platform->accounts, platform->account_count, options->account))
        problem = "the platform says no place of an account id";
    else if (options->email != NULL &&
             !write_first(draft, platform->emails, platform->email_count, options->email))
        problem = "the platform says no place of an e-mail address";
    if (problem == NULL) {
        yyjson_mut_val *root = yyjson_mut_doc_get_root(draft->doc);
        yyjson_mut_val *key = yyjson_mut_str(draft->doc, "hookgate_nonce");
        yyjson_mut_val *member = yyjson_mut_str(draft->doc, "xxxxxxxxxxxxxxxxxxxxxxxx");
        if (nonce && yyjson_mut_obj_add(root, key, member))
            mark_value(draft, &recipe->body, PLACE_ID, UNIT_SECONDS, member);
        mark_places(draft, recipe, platform, type ? slice_of(type) : own_type);
        if (!finish_body(draft, recipe, options->size) || !finish_head(draft, recipe, options))
            problem = "it can't be written anew";
    }
    yyjson_mut_doc_free(draft->doc);
    free(draft);
    return problem;
}

void recipe_release(struct recipe *recipe)
{
    forge_text_release(&recipe->head);
    forge_text_release(&recipe->body);
    free(recipe->sample_bytes);
    *recipe = (struct recipe){0};
}
