/* A strict reader of small YAML files that keeps line and column of every node, so that each
 * complaint can point.
 *
 * A file is read whole (≤ 1 MiB; no aliases, no tags, no second document, no repeated key) and
 * bound to structs by tables of fields: unknown keys, wrong types, values out of range and missing
 * required keys become problems, with a suggestion for a misspelt word. Strings and arrays that are
 * bound live as long as the document.
 *
 * libcyaml was weighed and not chosen: it can't check ranges and keeps no line numbers for the
 * semantic pass. Thread: any, one document on one thread at a time while it is read; const
 * afterwards. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "problem.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct yaml;      /* a document */
struct yaml_node; /* a node of it */

enum yaml_type { YAML_SCALAR, YAML_SEQUENCE, YAML_MAPPING };

/* NULL on failure, with the problem added. The path is kept for messages. */
MUST_CHECK struct yaml *yaml_read_file(const char *path, struct problems *problems);
MUST_CHECK struct yaml *yaml_read_bytes(const char *name, const void *bytes, size_t len,
                                        struct problems *problems);
/* Hidden whatever the build's flags say: libyaml exports a function of this name, and would call
 * ours instead of its own. */
void yaml_free(struct yaml *yaml) __attribute__((visibility("hidden")));

const struct yaml_node *yaml_root(const struct yaml *yaml);
enum yaml_type yaml_node_type(const struct yaml_node *node);
/* Text of a scalar, NUL-terminated; it holds no NUL inside. */
const char *yaml_node_text(const struct yaml_node *node);
/* True for a plain (unquoted) scalar; "300" in quotes is no number. */
bool yaml_node_is_plain(const struct yaml_node *node);
/* Items of a sequence or pairs of a mapping. */
size_t yaml_node_count(const struct yaml_node *node);
const struct yaml_node *yaml_node_item(const struct yaml_node *node, size_t index);
const char *yaml_node_key(const struct yaml_node *node, size_t index);
const struct yaml_node *yaml_node_value(const struct yaml_node *node, size_t index);
/* The key's node, for a complaint that points at the key (its path ends with the key too). */
const struct yaml_node *yaml_node_key_node(const struct yaml_node *node, size_t index);
/* NULL when the mapping has no such key. */
const struct yaml_node *yaml_node_get(const struct yaml_node *node, const char *key);

/* "file:line:column: <dotted.path>: text". */
void yaml_problem(const struct yaml_node *node, struct problems *problems, const char *fmt, ...)
    PRINTF_LIKE(3, 4);

/* Memory that lives as long as the document, zeroed. */
void *yaml_alloc(const struct yaml *yaml, size_t count, size_t size);

enum yaml_kind {
    YAML_TEXT,  /* const char *                                                                   */
    YAML_TEXTS, /* struct yaml_texts; one scalar or a sequence of them; min..max bound the count */
    YAML_WORD, /* int: index into `words`                                                         */
    YAML_FLAG, /* bool: true or false                                                             */
    YAML_INTEGER, /* int64_t */
    YAML_SIZE, /* int64_t bytes: 4096, 64KiB, 1MiB, 2GiB                                          */
    YAML_DURATION, /* int64_t microseconds: 500us, 250ms, 3s, 5m, 12h, 7d */
    YAML_STRUCT,   /* a mapping bound in place by `fields`   */
    YAML_NODE, /* const struct yaml_node *: whatever stands there; the caller reads it            */
};

struct yaml_texts {
    const char *const *items;
    size_t count;
};

struct yaml_field {
    const char *key;
    enum yaml_kind kind;
    size_t offset;            /* of the member in the struct */
    bool required;            /* else the member keeps what it held: set the defaults before */
    int64_t min, max;         /* TEXT: length; TEXTS: count; numbers: value; both 0 = no bound */
    const char *const *words; /* WORD: NULL-terminated */
    const struct yaml_field *fields; /* STRUCT: ends with key NULL */
    bool reloads; /* for the table's owner (config.c); the binder does not look at it */
    ptrdiff_t node_offset_plus1; /* when not 0: 1 + offset of a `const struct yaml_node *` that gets
                                  * the value's node, for a later complaint */
};

/* Binds the mapping `node` to the struct at `out`. Returns false when it added a problem; goes on
 * after one, so that all problems of a file are told at once. */
bool yaml_bind(const struct yaml *yaml, const struct yaml_node *node,
               const struct yaml_field *fields, void *out, struct problems *problems);
