/* What the files of the platform loader share: each reads one part of a platform.yaml into `struct
 * platform`. Nobody else includes this. Thread: the one that loads. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "platform.h"
#include "yaml.h"

struct platform_reader {
    const struct yaml *yaml; /* owns everything that is compiled */
    struct problems *problems;
    struct platform *platform;
};

#define PLATFORM_COMPLAIN(reader, node, ...) yaml_problem(node, (reader)->problems, __VA_ARGS__)

/* platform_value.c: pointers, header names, values and ids */

/* What may stand where a value is asked for; the bits go together. */
enum value_forms {
    VALUE_JSON = 1,
    VALUE_HEADER = 2,
    VALUE_ID = 4,    /* body-digest, arrival, text:; a pointer with * means all its values */
    VALUE_MEANS = 8, /* beside json:, or alone */
};

/* The items of a sequence; anything else counts as a sequence of itself. NULL has none. */
size_t platform_item_count(const struct yaml_node *node);
const struct yaml_node *platform_item(const struct yaml_node *node, size_t index);

/* The text of a scalar that is a JSON pointer, or NULL with a problem. */
const char *platform_pointer(struct platform_reader *reader, const struct yaml_node *node);
/* Lower-cased header name, or NULL with a problem. */
const char *platform_header(struct platform_reader *reader, const struct yaml_node *node,
                            const char *text);
bool platform_value(struct platform_reader *reader, const struct yaml_node *node, unsigned forms,
                    struct value_rule *ret);
/* One value or a list of them; NULL and *ret_count 0 when `node` is NULL. */
const struct value_rule *platform_values(struct platform_reader *reader,
                                         const struct yaml_node *node, unsigned forms,
                                         size_t *ret_count);
/* `id:` a list of rules, each a value or a list of values. */
const struct id_rule *platform_ids(struct platform_reader *reader, const struct yaml_node *node,
                                   size_t *ret_count);

/* platform_scheme.c: signatures, timestamps */
void platform_read_signatures(struct platform_reader *reader, const struct yaml_node *node);
void platform_read_timestamp(struct platform_reader *reader, const struct yaml_node *node);
/* When both are read: is the timestamp signed? */
void platform_check_timestamp(struct platform_reader *reader, const struct yaml_node *timestamp);
/* `time:`, the event's own: no tolerance. */
void platform_read_time(struct platform_reader *reader, const struct yaml_node *node);

/* platform_challenge.c */
void platform_read_challenges(struct platform_reader *reader, const struct yaml_node *node);

/* platform_event.c */
/* `holds`: the platform's own hold_back_while, for all its events; may be NULL. */
void platform_read_events(struct platform_reader *reader, const struct yaml_node *node,
                          const struct yaml_node *holds);
