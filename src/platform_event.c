/* `events:` of a platform.yaml: which types are taken, what they must hold, how each is identified
 * and when it is held back. Exact types come before beginnings (`meeting.*`) in the result, and `*`
 * comes last, so that the first match is the most precise one. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "event.h"
#include "platform_parts.h"

#include <string.h>

#define EVENTS_MAX 64
#define NAMES_MAX 16
#define REQUIRED_MAX 16
#define HOLDS_MAX 48

struct raw_event {
    const char *type;
    struct yaml_texts names;
    const struct yaml_node *type_node, *names_node, *required, *id, *holds;
};

#define AT(member) offsetof(struct raw_event, member)

static const struct yaml_field event_fields[] = {
    {"type", YAML_TEXT, AT(type), .required = true, .min = 1, .max = EVENT_TYPE_MAX,
     .node_offset_plus1 = 1 + AT(type_node)},
    {"names", YAML_TEXTS, AT(names), .min = 1, .max = NAMES_MAX,
     .node_offset_plus1 = 1 + AT(names_node)},
    {"required", YAML_NODE, AT(required)},
    {"id", YAML_NODE, AT(id)},
    {"hold_back_while", YAML_NODE, AT(holds)},
    {0},
};

struct raw_hold {
    const struct yaml_node *json;
    struct yaml_texts is, is_not;
};

static const struct yaml_field hold_fields[] = {
    {"json", YAML_NODE, offsetof(struct raw_hold, json), .required = true},
    {"is", YAML_TEXTS, offsetof(struct raw_hold, is), .min = 1, .max = 32},
    {"is_not", YAML_TEXTS, offsetof(struct raw_hold, is_not), .min = 1, .max = 32},
    {0},
};

/* `type:` and the form that matches deliveries: an exact text, a beginning with `.*` at its end, or
 * `*`, the beginning of everything. */
static void read_type(struct platform_reader *reader, const struct raw_event *raw,
                      struct event_rule *rule)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                  "._:-";
    size_t len = strlen(raw->type);
    bool any = strcmp(raw->type, "*") == 0;
    bool open = any || (len > 2 && strcmp(raw->type + len - 2, ".*") == 0);
    size_t name_len = open ? len - 1 : len;
    if (strspn(raw->type, allowed) < name_len)
        PLATFORM_COMPLAIN(reader, raw->type_node,
                          "a type is letters, digits and . _ : -, with .* at its end for any with "
                          "this beginning, or * alone for any; other spellings go into names");
    if (open && raw->names.count > 0)
        PLATFORM_COMPLAIN(reader, raw->names_node, "names don't go with a type that ends in *");
    rule->type = raw->type;
    rule->names = raw->names.items;
    rule->name_count = raw->names.count;
    if (open) {
        rule->beginning = (struct slice){raw->type, name_len};
        return;
    }
    struct slice *spellings = yaml_alloc(reader->yaml, raw->names.count + 1, sizeof *spellings);
    spellings[0] = slice_of(raw->type);
    for (size_t i = 0; i < raw->names.count; i++)
        spellings[i + 1] = slice_of(raw->names.items[i]);
    rule->spellings = spellings;
    rule->spelling_count = raw->names.count + 1;
}

static void read_required(struct platform_reader *reader, const struct yaml_node *node,
                          struct event_rule *rule)
{
    size_t count = platform_item_count(node);
    if (count > REQUIRED_MAX) {
        PLATFORM_COMPLAIN(reader, node, "expected at most %d required fields", REQUIRED_MAX);
        return;
    }
    struct required_rule *required = yaml_alloc(reader->yaml, count + 1, sizeof *required);
    for (size_t i = 0; i < count; i++) {
        const struct yaml_node *item = platform_item(node, i);
        size_t choices = platform_item_count(item);
        if (choices == 0 || choices > REQUIRED_MAX) {
            PLATFORM_COMPLAIN(reader, item, "expected 1 to %d fields to choose from", REQUIRED_MAX);
            continue;
        }
        const char **any = yaml_alloc(reader->yaml, choices, sizeof *any);
        for (size_t k = 0; k < choices; k++)
            any[k] = platform_pointer(reader, platform_item(item, k));
        required[i] = (struct required_rule){any, choices};
    }
    rule->required = required;
    rule->required_count = count;
}

/* What is read of one hold_back_while: the platform's conditions, then the event's own. */
struct hold_set {
    struct hold_rule *rules;
    size_t count;
};

static void read_hold(struct platform_reader *reader, const struct yaml_node *node,
                      struct hold_set *set)
{
    struct raw_hold raw = {0};
    if (!yaml_bind(reader->yaml, node, hold_fields, &raw, reader->problems))
        return;
    if ((raw.is.count > 0) == (raw.is_not.count > 0))
        PLATFORM_COMPLAIN(reader, node, "expected either is: or is_not:");
    for (size_t i = 0; i < platform_item_count(raw.json); i++) {
        if (set->count == HOLDS_MAX) {
            PLATFORM_COMPLAIN(reader, node, "there are more than %d conditions", HOLDS_MAX);
            return;
        }
        set->rules[set->count++] = (struct hold_rule){
            .pointer = platform_pointer(reader, platform_item(raw.json, i)),
            .is = raw.is.items,
            .is_count = raw.is.count,
            .is_not = raw.is_not.items,
            .is_not_count = raw.is_not.count,
        };
    }
}

static struct hold_set read_holds(struct platform_reader *reader, const struct yaml_node *node,
                                  const struct hold_set *base)
{
    if (node == NULL && base != NULL)
        return *base;
    struct hold_set set = {.rules = yaml_alloc(reader->yaml, HOLDS_MAX, sizeof *set.rules)};
    for (size_t i = 0; base != NULL && i < base->count; i++)
        set.rules[set.count++] = base->rules[i];
    for (size_t i = 0; i < platform_item_count(node); i++)
        read_hold(reader, platform_item(node, i), &set);
    return set;
}

/* Complains where the spellings of `rule` stand for an earlier type as well. */
static void check_repeated(struct platform_reader *reader, const struct raw_event *raw,
                           const struct event_rule *rule, const struct event_rule *earlier)
{
    if (rule->spelling_count == 0) {
        if (earlier->spelling_count == 0 && slice_equal(rule->beginning, earlier->beginning))
            PLATFORM_COMPLAIN(reader, raw->type_node, "'%s' stands twice", rule->type);
        return;
    }
    for (size_t i = 0; i < rule->spelling_count; i++) {
        for (size_t k = 0; k < earlier->spelling_count; k++) {
            if (slice_equal(rule->spellings[i], earlier->spellings[k]))
                PLATFORM_COMPLAIN(reader, i == 0 ? raw->type_node : raw->names_node,
                                  "'%s' is already a spelling of %s", rule->spellings[i].ptr,
                                  earlier->type);
        }
    }
}

static bool read_event(struct platform_reader *reader, const struct yaml_node *node,
                       const struct hold_set *base, const struct event_rule *first,
                       struct event_rule *rule)
{
    struct raw_event raw = {0};
    if (!yaml_bind(reader->yaml, node, event_fields, &raw, reader->problems))
        return false;
    read_type(reader, &raw, rule);
    read_required(reader, raw.required, rule);
    struct hold_set holds = read_holds(reader, raw.holds, base);
    rule->holds = holds.rules;
    rule->hold_count = holds.count;
    rule->ids = platform_ids(reader, raw.id, &rule->id_count);
    /* The rules stand in one array, this one behind those that were read. */
    for (const struct event_rule *earlier = first; earlier < rule; earlier++)
        check_repeated(reader, &raw, rule, earlier);
    return true;
}

enum precision { EXACT, BEGINNING, ANY };

static enum precision precision_of(const struct event_rule *rule)
{
    return rule->spelling_count > 0 ? EXACT : rule->beginning.len > 0 ? BEGINNING : ANY;
}

void platform_read_events(struct platform_reader *reader, const struct yaml_node *node,
                          const struct yaml_node *holds)
{
    size_t count =
        node != NULL && yaml_node_type(node) == YAML_SEQUENCE ? yaml_node_count(node) : 0;
    if (count == 0 || count > EVENTS_MAX) {
        PLATFORM_COMPLAIN(reader, node, "expected a list of 1 to %d events", EVENTS_MAX);
        return;
    }
    struct hold_set base = read_holds(reader, holds, NULL);
    struct event_rule *read = yaml_alloc(reader->yaml, count, sizeof *read);
    size_t read_count = 0;
    for (size_t i = 0; i < count; i++) {
        if (read_event(reader, yaml_node_item(node, i), &base, read, &read[read_count]))
            read_count++;
    }

    struct event_rule *events = yaml_alloc(reader->yaml, count, sizeof *events);
    size_t placed = 0;
    for (enum precision precision = EXACT; precision <= ANY; precision++) {
        for (size_t i = 0; i < read_count; i++) {
            if (precision_of(&read[i]) == precision)
                events[placed++] = read[i];
        }
    }
    reader->platform->events = events;
    reader->platform->event_count = placed;
}
