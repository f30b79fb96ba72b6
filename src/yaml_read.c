/* Reads a small YAML file with libyaml's events into the nodes of a document. The only file that
 * knows libyaml. What makes YAML surprising is refused instead of understood: anchors, aliases,
 * tags, repeated keys, a second document. Sizes are bounded before memory is taken. Thread: as
 * yaml.h says. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "yaml.h"

#include "slice.h"
#include "yaml_parts.h"

#include <errno.h>
#include <stdio.h>
#include <yaml.h> /* libyaml's; this directory is never an -I of this file */

enum { FILE_MAX_BYTES = 1 << 20, DEPTH_MAX = 32, NODES_MAX = 20000 };

/* While a document is read. */
struct reader {
    yaml_parser_t parser;
    struct slice input;
    struct yaml *yaml;
    struct problems *problems;
    const struct yaml_node *key; /* of the value that comes next */
    size_t nodes;
    bool refused; /* although reading goes on, for what else is wrong */
};

static void refuse_at(const struct reader *reader, yaml_mark_t mark, const char *text)
{
    problem_add(reader->problems, reader->yaml->name, mark.line + 1, mark.column + 1, "%s", text);
}

/* Where a byte stands, counted as libyaml counts: columns are characters. */
static yaml_mark_t mark_of(struct slice input, size_t offset)
{
    yaml_mark_t mark = {0};

    for (size_t i = 0; i < input.len && i < offset; i++) {
        bool is_newline = input.ptr[i] == '\n';
        mark.line += is_newline;
        mark.column = is_newline ? 0 : mark.column + (((unsigned char)input.ptr[i] & 0xc0) != 0x80);
    }
    return mark;
}

/* libyaml's own complaint: its reader knows only an offset, the rest a mark. */
static void refuse_syntax(const struct reader *reader)
{
    const yaml_parser_t *parser = &reader->parser;
    const char *problem = parser->problem ? parser->problem : "unknown error";

    if (parser->error == YAML_MEMORY_ERROR)
        abort();
    bool is_reader = parser->error == YAML_READER_ERROR;
    yaml_mark_t mark =
        is_reader ? mark_of(reader->input, parser->problem_offset) : parser->problem_mark;
    const char *context = parser->context ? parser->context : "", *right = "";
    if (is_reader)
        right = "; UTF-8 text without control characters would be right";
    problem_add(reader->problems, reader->yaml->name, mark.line + 1, mark.column + 1,
                "not valid YAML: %s%s%s%s", problem, context[0] != '\0' ? " " : "", context, right);
}

/* The caller deletes the event when this is true. */
static bool next_event(struct reader *reader, yaml_event_t *event)
{
    if (yaml_parser_parse(&reader->parser, event))
        return true;
    refuse_syntax(reader);
    return false;
}

static struct yaml_node *new_node(struct reader *reader, const yaml_event_t *event,
                                  enum yaml_type type, const struct yaml_node *parent)
{
    struct yaml_node *node = yaml_alloc(reader->yaml, 1, sizeof *node);

    node->type = type;
    node->yaml = reader->yaml;
    node->parent = parent;
    node->key = reader->key;
    reader->key = NULL;
    node->index = parent != NULL ? parent->count : 0;
    node->line = event->start_mark.line + 1;
    node->column = event->start_mark.column + 1;
    return node;
}

/* What we don't take, whatever its place. */
static bool is_welcome(struct reader *reader, const yaml_event_t *event, size_t depth)
{
    const yaml_char_t *anchor = NULL, *tag = NULL;

    if (event->type == YAML_SCALAR_EVENT) {
        anchor = event->data.scalar.anchor;
        tag = event->data.scalar.tag;
    } else if (event->type == YAML_SEQUENCE_START_EVENT) {
        anchor = event->data.sequence_start.anchor;
        tag = event->data.sequence_start.tag;
    } else if (event->type == YAML_MAPPING_START_EVENT) {
        anchor = event->data.mapping_start.anchor;
        tag = event->data.mapping_start.tag;
    }

    const char *text = NULL;
    if (event->type == YAML_ALIAS_EVENT || anchor != NULL)
        text = "anchors (&) and aliases (*) are not allowed; write the value out, or quote a text "
               "that begins with one of these";
    else if (tag != NULL)
        text = "tags (!) are not allowed; write the value without, or quote a text that begins "
               "with '!'";
    else if (depth >= DEPTH_MAX)
        text = "nested too deep; at most 32 levels would be right";
    else if (++reader->nodes > NODES_MAX)
        text = "too many values; at most 20000 in a file would be right";
    if (text != NULL)
        refuse_at(reader, event->start_mark, text);
    return text == NULL;
}

static struct yaml_node *read_scalar(struct reader *reader, const yaml_event_t *event,
                                     const struct yaml_node *parent)
{
    size_t len = event->data.scalar.length;

    if (memchr(event->data.scalar.value, '\0', len) != NULL) {
        refuse_at(reader, event->start_mark, "a text with a zero byte is not allowed");
        return NULL;
    }
    struct yaml_node *node = new_node(reader, event, YAML_SCALAR, parent);
    char *text = yaml_alloc(reader->yaml, len + 1, 1);
    memcpy(text, event->data.scalar.value, len);
    node->text = text;
    node->plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    return node;
}

static struct yaml_node *read_node(struct reader *reader, const yaml_event_t *event,
                                   const struct yaml_node *parent, size_t depth);

/* The next child of an open collection; NULL with *ret_end = true at its end, with false when a
 * problem was added. */
static struct yaml_node *read_child(struct reader *reader, const struct yaml_node *parent,
                                    size_t depth, bool *ret_end)
{
    yaml_event_t event;
    struct yaml_node *node = NULL;

    *ret_end = false;
    if (!next_event(reader, &event))
        return NULL;
    if (event.type == YAML_SEQUENCE_END_EVENT || event.type == YAML_MAPPING_END_EVENT)
        *ret_end = true;
    else
        node = read_node(reader, &event, parent, depth);
    yaml_event_delete(&event);
    return node;
}

/* Children in reading order; freed by the caller. */
struct children {
    const struct yaml_node **nodes;
    size_t count, capacity;
};

static void children_push(struct children *children, const struct yaml_node *node)
{
    if (children->count == children->capacity) {
        children->capacity = children->capacity ? 2 * children->capacity : 8;
        children->nodes = xrealloc(children->nodes, children->capacity * sizeof(*children->nodes));
    }
    children->nodes[children->count++] = node;
}

static bool read_sequence(struct reader *reader, struct yaml_node *node, size_t depth)
{
    struct children items = {0};
    struct yaml_node *item;
    bool end;

    while ((item = read_child(reader, node, depth, &end)) != NULL) {
        children_push(&items, item);
        node->count = items.count; /* the next one's index */
    }
    node->items = yaml_alloc(reader->yaml, items.count, sizeof(*node->items));
    for (size_t i = 0; i < items.count; i++)
        node->items[i] = items.nodes[i];
    free(items.nodes);
    return end;
}

static bool is_good_key(struct reader *reader, const struct yaml_node *key)
{
    if (key->type == YAML_SCALAR && key->text[0] != '\0')
        return true;
    yaml_problem(key, reader->problems, "a key must be a word: `key: value`");
    return false;
}

/* By text, then by place. */
static int compare_keys(const void *left, const void *right)
{
    const struct yaml_node *a = *(const struct yaml_node *const *)left;
    const struct yaml_node *b = *(const struct yaml_node *const *)right;
    int order = strcmp(a->text, b->text);

    if (order == 0)
        order = (a->line > b->line) - (a->line < b->line);
    if (order == 0)
        order = (a->column > b->column) - (a->column < b->column);
    return order;
}

/* Sorted, so that a hostile file can't make it quadratic. */
static void refuse_repeated_keys(struct reader *reader, const struct yaml_node *mapping)
{
    if (mapping->count < 2)
        return;

    const struct yaml_node **sorted = xcalloc(mapping->count, sizeof(*sorted));
    for (size_t i = 0; i < mapping->count; i++)
        sorted[i] = mapping->keys[i];
    qsort(sorted, mapping->count, sizeof(*sorted), compare_keys);
    for (size_t i = 1; i < mapping->count; i++) {
        if (strcmp(sorted[i - 1]->text, sorted[i]->text) != 0)
            continue;
        yaml_problem(sorted[i], reader->problems,
                     "this key stands already at line %zu; once would be right",
                     sorted[i - 1]->line);
        reader->refused = true;
    }
    free(sorted);
}

static bool read_mapping(struct reader *reader, struct yaml_node *node, size_t depth)
{
    struct children pairs = {0};
    struct yaml_node *key, *value;
    bool end, good = true;

    while ((key = read_child(reader, node, depth, &end)) != NULL) {
        key->is_key = true;
        good = is_good_key(reader, key);
        reader->key = key;
        value = good ? read_child(reader, node, depth, &end) : NULL;
        if (value == NULL) {
            end = false;
            break;
        }
        children_push(&pairs, key);
        children_push(&pairs, value);
    }
    node->count = pairs.count / 2;
    node->keys = yaml_alloc(reader->yaml, node->count, sizeof(*node->keys));
    node->items = yaml_alloc(reader->yaml, node->count, sizeof(*node->items));
    for (size_t i = 0; i < node->count; i++) {
        node->keys[i] = pairs.nodes[2 * i];
        node->items[i] = pairs.nodes[2 * i + 1];
    }
    free(pairs.nodes);
    refuse_repeated_keys(reader, node);
    return end;
}

/* NULL when a problem was added. */
static struct yaml_node *read_node(struct reader *reader, const yaml_event_t *event,
                                   const struct yaml_node *parent, size_t depth)
{
    if (!is_welcome(reader, event, depth))
        return NULL;
    if (event->type == YAML_SCALAR_EVENT)
        return read_scalar(reader, event, parent);

    bool is_mapping = event->type == YAML_MAPPING_START_EVENT;
    struct yaml_node *node =
        new_node(reader, event, is_mapping ? YAML_MAPPING : YAML_SEQUENCE, parent);
    bool good =
        is_mapping ? read_mapping(reader, node, depth + 1) : read_sequence(reader, node, depth + 1);
    return good ? node : NULL;
}

/* An empty file means an empty mapping: everything at its default. */
static const struct yaml_node *empty_root(struct reader *reader, const yaml_event_t *event)
{
    struct yaml_node *node = new_node(reader, event, YAML_MAPPING, NULL);

    node->keys = yaml_alloc(reader->yaml, 0, sizeof(*node->keys));
    node->items = yaml_alloc(reader->yaml, 0, sizeof(*node->items));
    return node;
}

static bool is_nothing(const struct yaml_node *node)
{
    return node->type == YAML_SCALAR && node->plain && node->text[0] == '\0';
}

/* One event of the stream outside of the document's tree; false ends the reading. */
static bool read_stream_event(struct reader *reader, const yaml_event_t *event, bool *ret_good)
{
    struct yaml *yaml = reader->yaml;

    switch (event->type) {
    case YAML_STREAM_START_EVENT:
    case YAML_DOCUMENT_END_EVENT:
        return true;
    case YAML_DOCUMENT_START_EVENT:
        if (yaml->root == NULL)
            return true;
        refuse_at(reader, event->start_mark,
                  "a second document begins here; one document in a file would be right");
        return false;
    case YAML_STREAM_END_EVENT:
        if (yaml->root == NULL)
            yaml->root = empty_root(reader, event);
        *ret_good = true;
        return false;
    default:
        break;
    }
    const struct yaml_node *root = read_node(reader, event, NULL, 0);
    yaml->root = root != NULL && is_nothing(root) ? empty_root(reader, event) : root;
    return root != NULL;
}

static bool read_stream(struct reader *reader)
{
    bool good = false, more = true;

    while (more) {
        yaml_event_t event;
        if (!next_event(reader, &event))
            return false;
        more = read_stream_event(reader, &event, &good);
        yaml_event_delete(&event);
    }
    return good;
}

struct yaml *yaml_read_bytes(const char *name, const void *bytes, size_t len,
                             struct problems *problems)
{
    struct reader reader = {.problems = problems, .input = {len ? bytes : "", len}};

    if (len > FILE_MAX_BYTES) {
        problem_add(problems, name, 0, 0, "too large; at most 1 MiB would be right");
        return NULL;
    }
    reader.yaml = yaml_new(name);
    if (!yaml_parser_initialize(&reader.parser))
        abort();
    /* Some editors' byte order mark, which would shift the columns of the first line. */
    if (slice_starts(reader.input, SLICE_LITERAL("\xef\xbb\xbf")))
        reader.input = slice_from(reader.input, 3);
    /* Else UTF-16 would be guessed from the first bytes. */
    yaml_parser_set_encoding(&reader.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&reader.parser, (const void *)reader.input.ptr, reader.input.len);
    bool good = read_stream(&reader);
    yaml_parser_delete(&reader.parser);
    if (good && !reader.refused)
        return reader.yaml;
    yaml_free(reader.yaml);
    return NULL;
}

struct yaml *yaml_read_file(const char *path, struct problems *problems)
{
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        problem_add(problems, path, 0, 0, "can't be opened: %s", strerror(errno));
        return NULL;
    }

    struct yaml *yaml = NULL;
    char *bytes = xmalloc(FILE_MAX_BYTES + 1); /* one more shows that it is too large */
    size_t len = fread(bytes, 1, FILE_MAX_BYTES + 1, file);
    if (ferror(file))
        problem_add(problems, path, 0, 0, "can't be read: %s", strerror(errno));
    else
        yaml = yaml_read_bytes(path, bytes, len, problems);
    fclose(file);
    free(bytes);
    return yaml;
}
