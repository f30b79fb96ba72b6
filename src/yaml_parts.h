/* What yaml_read.c builds and yaml.c hands out. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "yaml.h"

struct yaml_block;

struct yaml_node {
    enum yaml_type type;
    bool plain;
    bool is_key;
    size_t line, column; /* from 1 */
    const struct yaml *yaml;
    const struct yaml_node *parent; /* of a key too: the mapping */
    const struct yaml_node *key;    /* under which a value stands in a mapping */
    size_t index;                   /* in a sequence */
    const char *text;               /* SCALAR */
    const struct yaml_node **keys;  /* MAPPING */
    const struct yaml_node **items; /* values of a MAPPING, items of a SEQUENCE */
    size_t count;
};

struct yaml {
    char *name;
    /* What yaml_alloc() gave; behind a pointer so that readers stay const. */
    struct yaml_block **blocks;
    const struct yaml_node *root;
};

/* An empty document of this name (copied): no root yet. */
MUST_CHECK struct yaml *yaml_new(const char *name);
