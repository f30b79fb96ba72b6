/* YAML trees: nodes that know their line, column and path, and the memory of a document. Called by
 * the configuration and by platforms, at start. yaml_read.c builds the tree, yaml_bind.c gives it
 * its meaning. Thread: as yaml.h says. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "yaml.h"

#include "yaml_parts.h"

#include <stdalign.h>
#include <stdarg.h>
#include <stdio.h>

#define PATH_MAX_BYTES 512

struct yaml_block {
    struct yaml_block *next;
    alignas(max_align_t) char bytes[];
};

struct yaml *yaml_new(const char *name)
{
    struct yaml *yaml = xcalloc(1, sizeof *yaml);
    yaml->name = xstrdup(name);
    yaml->blocks = xcalloc(1, sizeof(*yaml->blocks));
    return yaml;
}

void *yaml_alloc(const struct yaml *yaml, size_t count, size_t size)
{
    size_t total;
    bool overflow = __builtin_mul_overflow(count, size, &total);
    assert(!overflow && total < SIZE_MAX - sizeof(struct yaml_block));

    struct yaml_block *block = xcalloc(1, sizeof *block + total);
    block->next = *yaml->blocks;
    *yaml->blocks = block;
    return block->bytes;
}

void yaml_free(struct yaml *yaml)
{
    if (yaml == NULL)
        return;
    while (*yaml->blocks != NULL) {
        struct yaml_block *block = *yaml->blocks;
        *yaml->blocks = block->next;
        free(block);
    }
    free(yaml->blocks);
    free(yaml->name);
    free(yaml);
}

const struct yaml_node *yaml_root(const struct yaml *yaml)
{
    return yaml->root;
}

enum yaml_type yaml_node_type(const struct yaml_node *node)
{
    return node->type;
}

const char *yaml_node_text(const struct yaml_node *node)
{
    assert(node->type == YAML_SCALAR);
    return node->text;
}

bool yaml_node_is_plain(const struct yaml_node *node)
{
    return node->type == YAML_SCALAR && node->plain;
}

size_t yaml_node_count(const struct yaml_node *node)
{
    return node->count;
}

const struct yaml_node *yaml_node_item(const struct yaml_node *node, size_t index)
{
    assert(node->type == YAML_SEQUENCE && index < node->count);
    return node->items[index];
}

const struct yaml_node *yaml_node_key_node(const struct yaml_node *node, size_t index)
{
    assert(node->type == YAML_MAPPING && index < node->count);
    return node->keys[index];
}

const char *yaml_node_key(const struct yaml_node *node, size_t index)
{
    return yaml_node_key_node(node, index)->text;
}

const struct yaml_node *yaml_node_value(const struct yaml_node *node, size_t index)
{
    assert(node->type == YAML_MAPPING && index < node->count);
    return node->items[index];
}

const struct yaml_node *yaml_node_get(const struct yaml_node *node, const char *key)
{
    assert(node->type == YAML_MAPPING);
    for (size_t i = 0; i < node->count; i++) {
        if (strcmp(node->keys[i]->text, key) == 0)
            return node->items[i];
    }
    return NULL;
}

/* "listen.https", "events[2].type"; empty for the root. Returns the length. */
static size_t write_path(const struct yaml_node *node, char *out, size_t size)
{
    if (node->parent == NULL) {
        out[0] = '\0';
        return 0;
    }
    size_t len = write_path(node->parent, out, size);
    const struct yaml_node *key = node->is_key ? node : node->key;
    int more;
    if (node->parent->type == YAML_SEQUENCE)
        more = snprintf(out + len, size - len, "[%zu]", node->index);
    else if (key == NULL || key->type != YAML_SCALAR)
        more = 0; /* a key that is no word */
    else
        more = snprintf(out + len, size - len, "%s%.80s", len > 0 ? "." : "", key->text);
    assert(more >= 0);
    return len + (size_t)more < size ? len + (size_t)more : size - 1;
}

void yaml_problem(const struct yaml_node *node, struct problems *problems, const char *fmt, ...)
{
    char path[PATH_MAX_BYTES], text[2048];
    va_list args;

    size_t len = write_path(node, path, sizeof path);
    va_start(args, fmt);
    int written = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    assert(written >= 0);
    problem_add(problems, node->yaml->name, node->line, node->column, "%s%s%s", path,
                len > 0 ? ": " : "", text);
}
