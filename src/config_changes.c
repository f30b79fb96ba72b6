/* What a reload makes of a configuration: keys marked RELOADS in config.c's tables are taken, the
 * others keep what the process started with, and both are told. Called by reload.c before anybody
 * else sees the new configuration. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

struct comparison {
    struct config *next;
    const struct config *present, *start;
    struct config_changes *changes;
};

static bool is_same_text(const char *a, const char *b)
{
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

static bool is_same_node(const struct yaml_node *a, const struct yaml_node *b)
{
    if (a == NULL || b == NULL)
        return a == b;
    enum yaml_type type = yaml_node_type(a);
    if (type != yaml_node_type(b))
        return false;
    if (type == YAML_SCALAR)
        return strcmp(yaml_node_text(a), yaml_node_text(b)) == 0 &&
               yaml_node_is_plain(a) == yaml_node_is_plain(b);
    size_t count = yaml_node_count(a);
    bool same = count == yaml_node_count(b);
    for (size_t i = 0; same && i < count; i++) {
        if (type == YAML_SEQUENCE)
            same = is_same_node(yaml_node_item(a, i), yaml_node_item(b, i));
        else
            same = strcmp(yaml_node_key(a, i), yaml_node_key(b, i)) == 0 &&
                   is_same_node(yaml_node_value(a, i), yaml_node_value(b, i));
    }
    return same;
}

static bool is_same_texts(const struct yaml_texts *a, const struct yaml_texts *b)
{
    bool same = a->count == b->count;
    for (size_t i = 0; same && i < a->count; i++)
        same = strcmp(a->items[i], b->items[i]) == 0;
    return same;
}

static size_t size_of(enum yaml_kind kind)
{
    switch (kind) {
    case YAML_TEXT:
        return sizeof(const char *);
    case YAML_NODE:
        return sizeof(const struct yaml_node *);
    case YAML_WORD:
        return sizeof(int);
    case YAML_FLAG:
        return sizeof(bool);
    case YAML_TEXTS:
        return sizeof(struct yaml_texts);
    case YAML_INTEGER:
    case YAML_SIZE:
    case YAML_DURATION:
        return sizeof(int64_t);
    case YAML_STRUCT:
        break;
    }
    assert(false && "a section is walked");
    return 0;
}

static bool is_same(enum yaml_kind kind, const void *a, const void *b)
{
    if (kind == YAML_TEXT)
        return is_same_text(*(const char *const *)a, *(const char *const *)b);
    if (kind == YAML_NODE)
        return is_same_node(*(const struct yaml_node *const *)a,
                            *(const struct yaml_node *const *)b);
    if (kind == YAML_TEXTS)
        return is_same_texts(a, b);
    return memcmp(a, b, size_of(kind)) == 0;
}

/* What config.c reads out of a node goes with it. */
static void keep_node(struct config *next, const struct config *start, size_t offset)
{
    if (offset == offsetof(struct config, threads_node)) {
        next->threads = start->threads;
    } else if (offset == offsetof(struct config, kafka.settings_node)) {
        next->kafka.settings = start->kafka.settings;
        next->kafka.setting_count = start->kafka.setting_count;
    } else {
        assert(false && "a node that a restart is needed for: say here what was read out of it");
    }
}

/* `mapping` NULL = the new file does not have the section. */
static void tell(const struct comparison *comparison, const struct yaml_field *field,
                 const struct yaml_node *mapping)
{
    struct problems *to =
        field->reloads ? &comparison->changes->taken : &comparison->changes->restart;
    const char *word =
        field->reloads ? "changed" : "changed, but needs a restart; the old value stays";
    const struct yaml_node *node = mapping ? yaml_node_get(mapping, field->key) : NULL;
    if (node != NULL)
        yaml_problem(node, to, "%s", word);
    else
        yaml_problem(mapping ? mapping : yaml_root(comparison->next->yaml), to,
                     "%s is not set any more: %s", field->key, word);
}

static void compare(const struct comparison *comparison, const struct yaml_field *fields,
                    const struct yaml_node *mapping)
{
    for (const struct yaml_field *field = fields; field->key != NULL; field++) {
        if (field->kind == YAML_STRUCT) {
            compare(comparison, field->fields, mapping ? yaml_node_get(mapping, field->key) : NULL);
            continue;
        }
        void *next = (char *)comparison->next + field->offset;
        const void *present = (const char *)comparison->present + field->offset;
        if (is_same(field->kind, next, present))
            continue;
        tell(comparison, field, mapping);
        if (field->reloads)
            continue;
        memcpy(next, (const char *)comparison->start + field->offset, size_of(field->kind));
        if (field->kind == YAML_NODE)
            keep_node(comparison->next, comparison->start, field->offset);
    }
}

void config_compare(struct config *next, const struct config *present, const struct config *start,
                    struct config_changes *changes)
{
    const struct comparison comparison = {next, present, start, changes};
    compare(&comparison, config_fields, yaml_root(next->yaml));
}

void config_changes_release(struct config_changes *changes)
{
    problems_release(&changes->taken);
    problems_release(&changes->restart);
}
