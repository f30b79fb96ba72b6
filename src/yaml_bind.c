/* YAML binding: gives a tree its meaning by a table of fields, and tells all that is wrong with it
 * at once. Called by the configuration and by platforms, at start. Knows units and ranges; knows
 * nothing of libyaml. A value that is wrong leaves its member as it was, so that the caller's
 * semantic pass can still run. Thread: as yaml.h says. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "yaml.h"

#include <stdio.h>

struct binding {
    const struct yaml *yaml;
    struct problems *problems;
};

static bool bind_mapping(const struct binding *binding, const struct yaml_node *node,
                         const struct yaml_field *fields, void *out);

struct unit {
    const char *name;
    int64_t factor;
};

/* Largest first, for telling. */
static const struct unit size_units[] = {
    {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"", 1}, {NULL, 0}};
static const struct unit duration_units[] = {{"d", 86400000000}, {"h", 3600000000}, {"m", 60000000},
                                             {"s", 1000000},     {"ms", 1000},      {"us", 1},
                                             {NULL, 0}};
static const struct unit no_units[] = {{"", 1}, {NULL, 0}};

static const struct unit *units_of(enum yaml_kind kind)
{
    return kind == YAML_SIZE ? size_units : kind == YAML_DURATION ? duration_units : no_units;
}

struct told {
    char text[32];
};

/* In the largest unit that loses nothing: 2500ms, 7d, 64KiB. */
static struct told tell_number(int64_t value, const struct unit *units)
{
    struct told told;

    if (value == 0 && units == duration_units)
        units += 3; /* "0s", not "0d" */
    while (value % units->factor != 0)
        units++;
    snprintf(told.text, sizeof told.text, "%lld%s", (long long)(value / units->factor),
             units->name);
    return told;
}

static const char *form_of(enum yaml_kind kind)
{
    return kind == YAML_SIZE       ? "a size like 4096, 64KiB or 1MiB"
           : kind == YAML_DURATION ? "a duration like 500us, 250ms, 3s, 5m, 12h or 7d"
                                   : "a whole number, unquoted and decimal,";
}

/* Decimal digits and a unit, nothing else: no sign but '-' of an integer, no leading zero (some
 * readers would take it as octal), no blank, no fraction. */
static bool parse_number(const char *text, const struct unit *units, int64_t *ret_value)
{
    bool negative = units == no_units && *text == '-';
    const char *p = text + negative;
    int64_t value = 0;

    if (*p < '0' || *p > '9' || (*p == '0' && p[1] >= '0' && p[1] <= '9'))
        return false;
    for (; *p >= '0' && *p <= '9'; p++) {
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, *p - '0', &value))
            return false;
    }
    while (units->name != NULL && strcmp(units->name, p) != 0)
        units++;
    if (units->name == NULL || __builtin_mul_overflow(value, units->factor, &value))
        return false;
    *ret_value = negative ? -value : value;
    return true;
}

static const char *name_of_type(const struct yaml_node *node)
{
    switch (yaml_node_type(node)) {
    case YAML_SEQUENCE:
        return "a list";
    case YAML_MAPPING:
        return "a mapping";
    case YAML_SCALAR:
        break;
    }
    return "a single value";
}

/* YAML's spellings of "nothing". */
static bool is_null(const struct yaml_node *node)
{
    static const char *const words[] = {"", "~", "null", "Null", "NULL", NULL};

    for (size_t i = 0; yaml_node_is_plain(node) && words[i] != NULL; i++) {
        if (strcmp(yaml_node_text(node), words[i]) == 0)
            return true;
    }
    return false;
}

static bool is_of_type(const struct binding *binding, const struct yaml_node *node,
                       enum yaml_type type, const char *wanted)
{
    if (is_null(node))
        yaml_problem(node, binding->problems,
                     "nothing stands here; %s would be right, or leave the key out", wanted);
    else if (yaml_node_type(node) != type)
        yaml_problem(node, binding->problems, "%s stands here; %s would be right",
                     name_of_type(node), wanted);
    else
        return true;
    return false;
}

static bool is_count_in_range(const struct binding *binding, const struct yaml_node *node,
                              const struct yaml_field *field, size_t count, const char *things)
{
    int64_t n = (int64_t)count;

    if (n >= field->min && (field->max == 0 || n <= field->max))
        return true;
    yaml_problem(node, binding->problems, "%zu %s; %lld to %lld would be right", count, things,
                 (long long)field->min, (long long)field->max);
    return false;
}

static void bind_number(const struct binding *binding, const struct yaml_node *node,
                        const struct yaml_field *field, int64_t *out)
{
    const struct unit *units = units_of(field->kind);
    bool bounded = field->min != 0 || field->max != 0;
    struct told min = tell_number(field->min, units), max = tell_number(field->max, units);
    int64_t value;

    if (!is_of_type(binding, node, YAML_SCALAR, form_of(field->kind)))
        return;
    const char *text = yaml_node_text(node);
    size_t digits = strspn(text, "-0123456789");
    /* "300" in quotes is a text; "3s" is one with quotes and without. */
    bool good =
        (yaml_node_is_plain(node) || text[digits] != '\0') && parse_number(text, units, &value);
    if (!good && bounded)
        yaml_problem(node, binding->problems, "'%s' is not valid; %s from %s to %s would be right",
                     text, form_of(field->kind), min.text, max.text);
    else if (!good)
        yaml_problem(node, binding->problems, "'%s' is not valid; %s would be right", text,
                     form_of(field->kind));
    else if (bounded && (value < field->min || value > field->max))
        yaml_problem(node, binding->problems, "%s is out of range; %s to %s would be right", text,
                     min.text, max.text);
    else
        *out = value;
}

static void bind_text(const struct binding *binding, const struct yaml_node *node,
                      const struct yaml_field *field, const char **out)
{
    if (is_of_type(binding, node, YAML_SCALAR, "a text") &&
        is_count_in_range(binding, node, field, strlen(yaml_node_text(node)), "bytes"))
        *out = yaml_node_text(node);
}

static void bind_texts(const struct binding *binding, const struct yaml_node *node,
                       const struct yaml_field *field, struct yaml_texts *out)
{
    bool is_list = yaml_node_type(node) == YAML_SEQUENCE;
    size_t count = is_list ? yaml_node_count(node) : 1;
    bool good = true;

    const char **items = yaml_alloc(binding->yaml, count, sizeof *items);
    for (size_t i = 0; i < count; i++) {
        const struct yaml_node *item = is_list ? yaml_node_item(node, i) : node;
        if (is_of_type(binding, item, YAML_SCALAR, is_list ? "a text" : "a text or a list of them"))
            items[i] = yaml_node_text(item);
        else
            good = false;
    }
    if (good && is_count_in_range(binding, node, field, count, "values"))
        *out = (struct yaml_texts){items, count};
}

/* "a, b, c" into a buffer; what does not fit is left out. */
static const char *join(const char *const *words, char *out, size_t size)
{
    size_t len = 0;

    out[0] = '\0';
    for (size_t i = 0; words[i] != NULL && len < size; i++) {
        int more = snprintf(out + len, size - len, "%s%s", i > 0 ? ", " : "", words[i]);
        assert(more >= 0);
        len += (size_t)more;
    }
    return out;
}

/* `at` is where to point; the words are told when none of them is near. */
static void refuse_word(const struct binding *binding, const struct yaml_node *at, const char *what,
                        const char *text, const char *const *words)
{
    char list[1024];
    const char *guess = problem_suggest(text, words);

    if (guess != NULL)
        yaml_problem(at, binding->problems, "unknown %s '%s'; did you mean '%s'?", what, text,
                     guess);
    else
        yaml_problem(at, binding->problems, "unknown %s '%s'; one of these would be right: %s",
                     what, text, join(words, list, sizeof list));
}

static void bind_word(const struct binding *binding, const struct yaml_node *node,
                      const struct yaml_field *field, int *out)
{
    char list[1024], wanted[1100];

    snprintf(wanted, sizeof wanted, "one of %s", join(field->words, list, sizeof list));
    if (!is_of_type(binding, node, YAML_SCALAR, wanted))
        return;
    for (int i = 0; field->words[i] != NULL; i++) {
        if (strcmp(field->words[i], yaml_node_text(node)) == 0) {
            *out = i;
            return;
        }
    }
    refuse_word(binding, node, "word", yaml_node_text(node), field->words);
}

static void bind_flag(const struct binding *binding, const struct yaml_node *node, bool *out)
{
    if (!is_of_type(binding, node, YAML_SCALAR, "true or false"))
        return;
    const char *text = yaml_node_text(node);
    bool is_true = strcmp(text, "true") == 0;
    if (yaml_node_is_plain(node) && (is_true || strcmp(text, "false") == 0))
        *out = is_true;
    else
        yaml_problem(node, binding->problems,
                     "'%s' is not valid; true or false, unquoted, would be"
                     " right",
                     text);
}

static void bind_value(const struct binding *binding, const struct yaml_node *node,
                       const struct yaml_field *field, void *out)
{
    void *member = (char *)out + field->offset;

    if (field->node_offset_plus1 != 0) {
        void *place = (char *)out + (field->node_offset_plus1 - 1);
        *(const struct yaml_node **)place = node;
    }
    switch (field->kind) {
    case YAML_TEXT:
        bind_text(binding, node, field, member);
        break;
    case YAML_TEXTS:
        bind_texts(binding, node, field, member);
        break;
    case YAML_WORD:
        bind_word(binding, node, field, member);
        break;
    case YAML_FLAG:
        bind_flag(binding, node, member);
        break;
    case YAML_INTEGER:
    case YAML_SIZE:
    case YAML_DURATION:
        bind_number(binding, node, field, member);
        break;
    case YAML_STRUCT:
        bind_mapping(binding, node, field->fields, member);
        break;
    case YAML_NODE:
        *(const struct yaml_node **)member = node;
        break;
    }
}

static const struct yaml_field *find_field(const struct yaml_field *fields, const char *key)
{
    for (; fields->key != NULL; fields++) {
        if (strcmp(fields->key, key) == 0)
            return fields;
    }
    return NULL;
}

static void refuse_key(const struct binding *binding, const struct yaml_node *key,
                       const struct yaml_field *fields)
{
    const char *words[65] = {0};

    for (size_t i = 0; i < 64 && fields[i].key != NULL; i++)
        words[i] = fields[i].key;
    refuse_word(binding, key, "key", yaml_node_text(key), words);
}

static bool bind_mapping(const struct binding *binding, const struct yaml_node *node,
                         const struct yaml_field *fields, void *out)
{
    size_t before = problems_total(binding->problems);

    if (!is_of_type(binding, node, YAML_MAPPING, "a mapping (`key: value` lines)"))
        return false;
    for (size_t i = 0; i < yaml_node_count(node); i++) {
        const struct yaml_field *field = find_field(fields, yaml_node_key(node, i));
        if (field == NULL)
            refuse_key(binding, yaml_node_key_node(node, i), fields);
        else
            bind_value(binding, yaml_node_value(node, i), field, out);
    }
    for (const struct yaml_field *field = fields; field->key != NULL; field++) {
        if (field->required && yaml_node_get(node, field->key) == NULL)
            yaml_problem(node, binding->problems, "the key '%s' is missing", field->key);
    }
    return problems_total(binding->problems) == before;
}

bool yaml_bind(const struct yaml *yaml, const struct yaml_node *node,
               const struct yaml_field *fields, void *out, struct problems *problems)
{
    const struct binding binding = {yaml, problems};

    return bind_mapping(&binding, node, fields, out);
}
