/* The smallest parts of a platform.yaml: JSON pointers, header names, the values that they lead to,
 * and ids made of values. Called by the other files of the platform loader. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "platform_parts.h"

#include <string.h>

#define POINTER_MAX 256
#define VALUES_MAX 32

struct raw_value {
    const struct yaml_node *json, *header;
    const char *means, *text;
};

static const struct yaml_field value_fields[] = {
    {"json", YAML_NODE, offsetof(struct raw_value, json)},
    {"header", YAML_NODE, offsetof(struct raw_value, header)},
    {"text", YAML_TEXT, offsetof(struct raw_value, text), .min = 1, .max = 64},
    {"means", YAML_TEXT, offsetof(struct raw_value, means), .min = 1, .max = 128},
    {0},
};

size_t platform_item_count(const struct yaml_node *node)
{
    if (node == NULL)
        return 0;
    return yaml_node_type(node) == YAML_SEQUENCE ? yaml_node_count(node) : 1;
}

const struct yaml_node *platform_item(const struct yaml_node *node, size_t index)
{
    return yaml_node_type(node) == YAML_SEQUENCE ? yaml_node_item(node, index) : node;
}

static bool is_scalar(const struct yaml_node *node)
{
    return yaml_node_type(node) == YAML_SCALAR;
}

/* People write payload.id where /payload/id is meant. */
static void complain_no_pointer(struct platform_reader *reader, const struct yaml_node *node,
                                const char *text)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.";
    char guess[POINTER_MAX];
    size_t len = text != NULL ? strlen(text) : 0;
    if (len == 0 || len >= sizeof guess || strspn(text, plain) != len) {
        PLATFORM_COMPLAIN(reader, node,
                          "expected a JSON pointer, which begins with /, such as /payload/id");
        return;
    }
    for (size_t i = 0; i <= len; i++)
        guess[i] = text[i] == '.' ? '/' : text[i];
    PLATFORM_COMPLAIN(reader, node,
                      "expected a JSON pointer, which begins with /; did you mean '/%s'?", guess);
}

const char *platform_pointer(struct platform_reader *reader, const struct yaml_node *node)
{
    const char *text = is_scalar(node) ? yaml_node_text(node) : NULL;
    if (text == NULL || text[0] != '/') {
        complain_no_pointer(reader, node, text);
        return NULL;
    }
    if (reader->platform->opaque) {
        PLATFORM_COMPLAIN(reader, node,
                          "with body: opaque no field is read; expected a header, or leave body "
                          "out where the body is JSON");
        return NULL;
    }
    if (strlen(text) > POINTER_MAX) {
        PLATFORM_COMPLAIN(reader, node, "the JSON pointer is longer than %d bytes", POINTER_MAX);
        return NULL;
    }
    for (const char *c = text; *c != '\0'; c++) {
        if (*c == '~' && c[1] != '0' && c[1] != '1') {
            PLATFORM_COMPLAIN(reader, node,
                              "~ in a JSON pointer is written ~0 (and / inside a key ~1)");
            return NULL;
        }
    }
    return text;
}

const char *platform_header(struct platform_reader *reader, const struct yaml_node *node,
                            const char *text)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                  "!#$%&'*+-.^_`|~";
    size_t len = text ? strlen(text) : 0;
    if (len == 0 || len > 64 || strspn(text, allowed) != len) {
        PLATFORM_COMPLAIN(reader, node, "expected the name of a header, such as x-signature");
        return NULL;
    }
    char *name = yaml_alloc(reader->yaml, len + 1, 1);
    for (size_t i = 0; i < len; i++)
        name[i] = (char)(text[i] >= 'A' && text[i] <= 'Z' ? text[i] - 'A' + 'a' : text[i]);
    return name;
}

static bool has_star(const char *pointer)
{
    for (const char *at = pointer; (at = strstr(at, "/*")) != NULL; at++) {
        if (at[2] == '/' || at[2] == '\0')
            return true;
    }
    return false;
}

static bool value_of_text(struct platform_reader *reader, const struct yaml_node *node,
                          unsigned forms, struct value_rule *ret)
{
    const char *text = yaml_node_text(node);
    if ((forms & VALUE_ID) != 0) {
        static const char *const words[] = {"body-digest", "arrival", NULL};
        static const enum value_source sources[] = {FROM_BODY_DIGEST, FROM_ARRIVAL};
        for (size_t i = 0; words[i] != NULL; i++) {
            if (strcmp(text, words[i]) == 0) {
                *ret = (struct value_rule){.source = sources[i]};
                return true;
            }
        }
        const char *meant = text[0] == '/' ? NULL : problem_suggest(text, words);
        if (meant != NULL) {
            PLATFORM_COMPLAIN(reader, node, "unknown word '%s'; did you mean '%s'?", text, meant);
            return false;
        }
    }
    const char *pointer = platform_pointer(reader, node);
    *ret = (struct value_rule){.source = FROM_JSON, .name = pointer};
    return pointer != NULL;
}

/* Exactly one of the places that `forms` allows; says what would be right. */
static bool check_value(struct platform_reader *reader, const struct yaml_node *node,
                        unsigned forms, const struct raw_value *raw)
{
    bool header = (forms & VALUE_HEADER) != 0, text = (forms & VALUE_ID) != 0;
    bool means = (forms & VALUE_MEANS) != 0;
    int places = (raw->json != NULL) + (raw->header != NULL) + (raw->text != NULL);
    if (raw->means != NULL && (!means || (places > 0 && raw->json == NULL))) {
        PLATFORM_COMPLAIN(reader, node, "means: stands in event_type only, alone or beside json:");
        return false;
    }
    if (places + (raw->means != NULL && places == 0) != 1 || (raw->header != NULL && !header) ||
        (raw->text != NULL && !text)) {
        PLATFORM_COMPLAIN(reader, node, "expected one of json:%s%s%s", header ? ", header:" : "",
                          text ? ", text:" : "", means ? ", means:" : "");
        return false;
    }
    return true;
}

bool platform_value(struct platform_reader *reader, const struct yaml_node *node, unsigned forms,
                    struct value_rule *ret)
{
    if (is_scalar(node) && (forms & VALUE_JSON) != 0)
        return value_of_text(reader, node, forms, ret);

    struct raw_value raw = {0};
    if (!yaml_bind(reader->yaml, node, value_fields, &raw, reader->problems))
        return false;
    if (!check_value(reader, node, forms, &raw))
        return false;

    *ret = (struct value_rule){.means = raw.means};
    if (raw.json != NULL) {
        ret->source = FROM_JSON;
        ret->name = platform_pointer(reader, raw.json);
    } else if (raw.header != NULL) {
        ret->source = FROM_HEADER;
        ret->name = platform_header(reader, raw.header,
                                    is_scalar(raw.header) ? yaml_node_text(raw.header) : NULL);
    } else {
        ret->source = FROM_TEXT;
        ret->name = raw.text != NULL ? raw.text : raw.means;
    }
    return ret->name != NULL;
}

const struct value_rule *platform_values(struct platform_reader *reader,
                                         const struct yaml_node *node, unsigned forms,
                                         size_t *ret_count)
{
    size_t count = platform_item_count(node);
    *ret_count = 0;
    if (count == 0 || count > VALUES_MAX) {
        if (node != NULL)
            PLATFORM_COMPLAIN(reader, node, "expected 1 to %d values", VALUES_MAX);
        return NULL;
    }
    struct value_rule *values = yaml_alloc(reader->yaml, count, sizeof *values);
    for (size_t i = 0; i < count; i++) {
        struct value_rule *value = &values[*ret_count];
        if (!platform_value(reader, platform_item(node, i), forms, value))
            continue;
        if ((forms & VALUE_ID) != 0 && value->source == FROM_JSON && has_star(value->name))
            value->source = FROM_JSON_ALL;
        if ((forms & VALUE_MEANS) != 0 && value->source == FROM_TEXT && i + 1 < count)
            PLATFORM_COMPLAIN(reader, platform_item(node, i),
                              "what follows is never reached: a type that always holds comes last");
        ++*ret_count;
    }
    return values;
}

const struct id_rule *platform_ids(struct platform_reader *reader, const struct yaml_node *node,
                                   size_t *ret_count)
{
    *ret_count = 0;
    if (node == NULL)
        return NULL;
    size_t count = yaml_node_type(node) == YAML_SEQUENCE ? yaml_node_count(node) : 0;
    if (count == 0 || count > VALUES_MAX) {
        PLATFORM_COMPLAIN(reader, node,
                          "expected a list of 1 to %d rules, each a value or a list of values",
                          VALUES_MAX);
        return NULL;
    }
    struct id_rule *rules = yaml_alloc(reader->yaml, count, sizeof *rules);
    for (size_t i = 0; i < count; i++) {
        const struct yaml_node *item = yaml_node_item(node, i);
        struct id_rule *rule = &rules[i];
        rule->parts =
            platform_values(reader, item, VALUE_JSON | VALUE_HEADER | VALUE_ID, &rule->part_count);
        size_t texts = 0;
        for (size_t k = 0; k < rule->part_count; k++)
            texts += rule->parts[k].source == FROM_TEXT;
        if (texts > 0 && texts == rule->part_count)
            PLATFORM_COMPLAIN(reader, item,
                              "an id of nothing but text would be the same for all events");
        if (rule->part_count > 8)
            PLATFORM_COMPLAIN(reader, item, "an id has at most 8 parts");
    }
    *ret_count = count;
    return rules;
}
