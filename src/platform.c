/* The loader of platforms/: finds the folders, reads each platform.yaml and compiles it, by the
 * other platform_*.c files, into an immutable struct platform. Called at start by config.c and the
 * commands; every mistake of every file is told at once. What a closed vocabulary allows but makes
 * no sense is refused here, so that the steps need no checks of their own. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "platform.h"

#include "metrics.h"
#include "platform_parts.h"

#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PLATFORMS_MAX METRICS_MAX_PLATFORMS
#define NAME_MAX_LEN 32

struct loaded {
    struct platform platform;
    struct yaml *yaml; /* owns what the platform points to */
};

struct platforms {
    struct loaded *items[PLATFORMS_MAX]; /* sorted by name */
    size_t count;
};

enum { TOKEN_ROUTES, TOKEN_AUTHENTICATES };
enum { BODY_JSON, BODY_OPAQUE };

static const char *const body_words[] = {"json", "opaque", NULL};
static const char *const endpoint_words[] = {"routes", "authenticates", NULL};

struct raw_platform {
    const char *name, *title, *docs; /* the latter two for people alone */
    struct yaml_texts aliases, content_types, unrepeatable;
    const struct yaml_node *name_node, *aliases_node, *unrepeatable_node;
    const struct yaml_node *signatures, *timestamp, *challenges, *event_type, *events, *id, *time;
    const struct yaml_node *hold_back_while;
    int endpoint_token, body;
    struct {
        const struct yaml_node *account, *email;
    } workspace;
    struct {
        int64_t status, retry_after;
        const struct yaml_node *status_node;
    } limited;
};

#define AT(member) offsetof(struct raw_platform, member)

static const struct yaml_field workspace_fields[] = {
    {"account", YAML_NODE, AT(workspace.account) - AT(workspace)},
    {"email", YAML_NODE, AT(workspace.email) - AT(workspace)},
    {0},
};

static const struct yaml_field limited_fields[] = {
    {"status", YAML_INTEGER, AT(limited.status) - AT(limited), .required = true, .min = 400,
     .max = 599, .node_offset_plus1 = 1 + AT(limited.status_node) - AT(limited)},
    {"retry_after", YAML_DURATION, AT(limited.retry_after) - AT(limited), .min = 1000000,
     .max = INT64_C(86400) * 1000000},
    {0},
};

static const struct yaml_field platform_fields[] = {
    {"name", YAML_TEXT, AT(name), .required = true, .min = 1, .max = NAME_MAX_LEN,
     .node_offset_plus1 = 1 + AT(name_node)},
    {"title", YAML_TEXT, AT(title), .required = true, .min = 1, .max = 64},
    {"docs", YAML_TEXT, AT(docs), .min = 1, .max = 256},
    {"aliases", YAML_TEXTS, AT(aliases), .min = 1, .max = 8,
     .node_offset_plus1 = 1 + AT(aliases_node)},
    {"content_types", YAML_TEXTS, AT(content_types), .min = 1, .max = 8},
    {"body", YAML_WORD, AT(body), .words = body_words},
    {"signatures", YAML_NODE, AT(signatures)},
    {"timestamp", YAML_NODE, AT(timestamp)},
    {"endpoint_token", YAML_WORD, AT(endpoint_token), .words = endpoint_words},
    {"unrepeatable_headers", YAML_TEXTS, AT(unrepeatable), .min = 1, .max = 16,
     .node_offset_plus1 = 1 + AT(unrepeatable_node)},
    {"challenges", YAML_NODE, AT(challenges)},
    {"event_type", YAML_NODE, AT(event_type), .required = true},
    {"events", YAML_NODE, AT(events), .required = true},
    {"hold_back_while", YAML_NODE, AT(hold_back_while)},
    {"id", YAML_NODE, AT(id)},
    {"time", YAML_NODE, AT(time)},
    {"workspace", YAML_STRUCT, AT(workspace), .fields = workspace_fields},
    {"limited", YAML_STRUCT, AT(limited), .required = true, .fields = limited_fields},
    {0},
};

static bool is_name(const char *text, size_t max)
{
    size_t len = strlen(text);
    return len > 0 && len <= max && text[0] >= 'a' && text[0] <= 'z' &&
           strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-") == len;
}

static void check_aliases(struct platform_reader *reader, const struct raw_platform *raw)
{
    for (size_t i = 0; i < raw->aliases.count; i++) {
        const char *alias = raw->aliases.items[i];
        const struct yaml_node *node = platform_item(raw->aliases_node, i);
        if (!is_name(alias, NAME_MAX_LEN) || strpbrk(alias, "0123456789") != NULL)
            PLATFORM_COMPLAIN(reader, node,
                              "'%s' could be taken for an endpoint token; an alias is at most %d "
                              "lower-case letters and hyphens, such as recording-completed",
                              alias, NAME_MAX_LEN);
        for (size_t k = 0; k < i; k++) {
            if (strcmp(alias, raw->aliases.items[k]) == 0)
                PLATFORM_COMPLAIN(reader, node, "'%s' stands twice", alias);
        }
    }
}

static void check_content_types(struct platform_reader *reader, const struct yaml_node *root,
                                const struct raw_platform *raw)
{
    const struct yaml_node *list = yaml_node_get(root, "content_types");
    for (size_t i = 0; i < raw->content_types.count; i++) {
        const char *type = raw->content_types.items[i];
        const char *slash = strchr(type, '/');
        if (slash == NULL || slash == type || slash[1] == '\0' || strpbrk(type, "; \t") != NULL)
            PLATFORM_COMPLAIN(reader, platform_item(list, i),
                              "expected a media type without parameters, such as "
                              "application/json");
    }
}

/* A growing list of header names, each once. */
struct header_set {
    const struct yaml *yaml;
    const char **names;
    size_t count, size;
};

static void add_header(struct header_set *set, const char *name)
{
    if (name == NULL) /* was complained about */
        return;
    for (size_t i = 0; i < set->count; i++) {
        if (strcmp(set->names[i], name) == 0)
            return;
    }
    if (set->count == set->size) {
        set->size = set->size ? set->size * 2 : 16;
        const char **names = yaml_alloc(set->yaml, set->size, sizeof *names);
        for (size_t i = 0; i < set->count; i++)
            names[i] = set->names[i];
        set->names = names;
    }
    set->names[set->count++] = name;
}

static void add_values(struct header_set *set, const struct value_rule *values, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (values[i].source == FROM_HEADER)
            add_header(set, values[i].name);
    }
}

static void add_ids(struct header_set *set, const struct id_rule *rules, size_t count)
{
    for (size_t i = 0; i < count; i++)
        add_values(set, rules[i].parts, rules[i].part_count);
}

static void add_scheme(struct header_set *set, const struct signature_scheme *scheme)
{
    for (size_t i = 0; i < scheme->header_count; i++)
        add_header(set, scheme->headers[i]);
    for (size_t i = 0; i < scheme->message_count; i++) {
        if (scheme->message[i].kind == TOKEN_HEADER)
            add_header(set, scheme->message[i].text.ptr); /* made by platform_header() */
    }
    if (scheme->timestamp_header != NULL)
        add_header(set, scheme->timestamp_header);
}

/* Every header that decides something is ambiguous when it comes twice. */
static void collect_single_headers(struct platform_reader *reader, const struct raw_platform *raw)
{
    struct platform *platform = reader->platform;
    struct header_set set = {.yaml = reader->yaml};
    for (size_t i = 0; i < platform->scheme_count; i++)
        add_scheme(&set, &platform->schemes[i]);
    add_values(&set, &platform->timestamp.from, 1);
    for (size_t i = 0; i < platform->challenge_count; i++)
        add_values(&set, &platform->challenges[i].when, 1);
    add_values(&set, platform->event_types, platform->event_type_count);
    add_ids(&set, platform->ids, platform->id_count);
    for (size_t i = 0; i < platform->event_count; i++)
        add_ids(&set, platform->events[i].ids, platform->events[i].id_count);
    for (size_t i = 0; i < raw->unrepeatable.count; i++) {
        const char *name = platform_header(reader, platform_item(raw->unrepeatable_node, i),
                                           raw->unrepeatable.items[i]);
        if (name != NULL)
            add_header(&set, name);
    }
    platform->single_headers = set.names;
    platform->single_header_count = set.count;
}

static void check_whole(struct platform_reader *reader, const struct yaml_node *root,
                        const struct raw_platform *raw, const char *folder)
{
    if (!is_name(raw->name, NAME_MAX_LEN))
        PLATFORM_COMPLAIN(reader, raw->name_node,
                          "'%s' is no name; it is lower-case letters, digits and hyphens, and "
                          "begins with a letter",
                          raw->name);
    else if (strcmp(raw->name, folder) != 0)
        PLATFORM_COMPLAIN(reader, raw->name_node,
                          "'%s' is not the folder's name; name: %s would be right", raw->name,
                          folder);
    if (platform_item_count(raw->signatures) == 0 && !reader->platform->token_authenticates)
        PLATFORM_COMPLAIN(reader, root,
                          "nothing authenticates a request: expected signatures: or "
                          "endpoint_token: authenticates");
    if (raw->limited.status != 429 && raw->limited.status != 503)
        PLATFORM_COMPLAIN(reader, raw->limited.status_node, "expected 503 or 429");
    check_aliases(reader, raw);
    check_content_types(reader, root, raw);
}

static void compile(struct platform_reader *reader, const struct yaml_node *root,
                    const char *folder)
{
    struct raw_platform raw = {.limited.retry_after = INT64_C(60) * 1000000};
    struct platform *platform = reader->platform;
    size_t before = problems_total(reader->problems);
    if (!yaml_bind(reader->yaml, root, platform_fields, &raw, reader->problems))
        return;

    platform->name = raw.name;
    platform->aliases = raw.aliases.items;
    platform->alias_count = raw.aliases.count;
    platform->content_types = raw.content_types.items;
    platform->content_type_count = raw.content_types.count;
    platform->opaque = raw.body == BODY_OPAQUE;
    platform->token_authenticates = raw.endpoint_token == TOKEN_AUTHENTICATES;
    platform->later_status = (int)raw.limited.status;
    platform->retry_after_s = (int)(raw.limited.retry_after / 1000000);

    platform_read_timestamp(reader, raw.timestamp); /* a message may refer to it */
    platform_read_signatures(reader, raw.signatures);
    if (problems_total(reader->problems) == before)
        platform_check_timestamp(reader, raw.timestamp);
    platform->event_types =
        platform_values(reader, raw.event_type, VALUE_JSON | VALUE_HEADER | VALUE_MEANS,
                        &platform->event_type_count);
    platform_read_challenges(reader, raw.challenges); /* some depend on the keys and the types */
    platform_read_events(reader, raw.events, raw.hold_back_while);
    platform->ids = platform_ids(reader, raw.id, &platform->id_count);
    platform_read_time(reader, raw.time);
    platform->accounts =
        platform_values(reader, raw.workspace.account, VALUE_JSON, &platform->account_count);
    platform->emails =
        platform_values(reader, raw.workspace.email, VALUE_JSON, &platform->email_count);
    check_whole(reader, root, &raw, folder);
    collect_single_headers(reader, &raw);
}

static void loaded_free(struct loaded *loaded)
{
    if (loaded == NULL)
        return;
    keyring_release(&loaded->platform.secrets);
    yaml_free(loaded->yaml);
    free(loaded);
}

/* Takes the document over; NULL when there was a problem. */
static struct loaded *compile_document(struct yaml *yaml, const char *folder, const char *directory,
                                       struct problems *problems)
{
    if (yaml == NULL)
        return NULL;
    size_t before = problems_total(problems);
    struct loaded *loaded = xcalloc(1, sizeof *loaded);
    loaded->yaml = yaml;
    char *copy = yaml_alloc(yaml, strlen(directory) + 1, 1);
    memcpy(copy, directory, strlen(directory));
    loaded->platform.directory = copy;
    struct platform_reader reader = {yaml, problems, &loaded->platform};
    compile(&reader, yaml_root(yaml), folder);
    if (problems_total(problems) != before) {
        loaded_free(loaded);
        return NULL;
    }
    return loaded;
}

/* About the folder itself: at the place that names it, where there is one. */
PRINTF_LIKE(4, 5)
static void complain(const char *directory, const struct yaml_node *where,
                     struct problems *problems, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (where != NULL)
        yaml_problem(where, problems, "%s: %s", directory, text);
    else
        problem_add(problems, directory, 0, 0, "%s", text);
}

static void load_folder(struct platforms *platforms, const char *directory,
                        const struct yaml_node *where, const char *folder,
                        struct problems *problems)
{
    char path[4096], file[4096 + 16];
    if (snprintf(path, sizeof path, "%s/%s", directory, folder) >= (int)sizeof path) {
        complain(directory, where, problems, "the path is too long");
        return;
    }
    if (platforms->count == PLATFORMS_MAX) {
        complain(directory, where, problems, "there are more than %d platforms", PLATFORMS_MAX);
        return;
    }
    snprintf(file, sizeof file, "%s/platform.yaml", path);
    struct loaded *loaded =
        compile_document(yaml_read_file(file, problems), folder, path, problems);
    if (loaded != NULL)
        platforms->items[platforms->count++] = loaded;
}

static int is_folder_name(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static bool has_file(const char *directory, const char *folder)
{
    char file[4096];
    int len = snprintf(file, sizeof file, "%s/%s/platform.yaml", directory, folder);
    return len < (int)sizeof file && access(file, F_OK) == 0;
}

static void free_entries(struct dirent **entries, int count)
{
    for (int i = 0; i < count; i++)
        free(entries[i]);
    free(entries);
}

static void complain_absent(const char *directory, const struct yaml_node *where,
                            struct dirent **entries, int count, const char *name,
                            struct problems *problems)
{
    const char **known = xcalloc((size_t)count + 1, sizeof *known);
    size_t known_count = 0;
    for (int i = 0; i < count; i++) {
        if (has_file(directory, entries[i]->d_name))
            known[known_count++] = entries[i]->d_name;
    }
    const char *meant = problem_suggest(name, known);
    complain(directory, where, problems, "there is no platform '%s' (no %s/platform.yaml)%s%s%s",
             name, name, meant ? "; did you mean '" : "", meant ? meant : "", meant ? "'?" : "");
    free(known);
}

static bool is_wanted(const char *const *only, const char *name)
{
    for (size_t i = 0; only != NULL && only[i] != NULL; i++) {
        if (strcmp(only[i], name) == 0)
            return true;
    }
    return only == NULL;
}

static bool is_entry(struct dirent **entries, int count, const char *name)
{
    for (int i = 0; i < count; i++) {
        if (strcmp(entries[i]->d_name, name) == 0)
            return true;
    }
    return false;
}

struct platforms *platforms_load(const char *directory, const struct yaml_node *where,
                                 const char *const *only, struct problems *problems)
{
    size_t before = problems_total(problems);
    struct dirent **entries = NULL;
    int count = scandir(directory, &entries, is_folder_name, alphasort);
    if (count < 0) {
        complain(directory, where, problems, "the folder of platforms can't be read: %s",
                 strerror(errno));
        return NULL;
    }
    struct platforms *platforms = xcalloc(1, sizeof *platforms);
    for (int i = 0; i < count; i++) {
        const char *folder = entries[i]->d_name;
        if (is_wanted(only, folder) && has_file(directory, folder))
            load_folder(platforms, directory, where, folder, problems);
    }
    for (size_t i = 0; only != NULL && only[i] != NULL; i++) {
        if (!is_entry(entries, count, only[i]) || !has_file(directory, only[i]))
            complain_absent(directory, where, entries, count, only[i], problems);
    }
    free_entries(entries, count);

    if (problems_total(problems) == before && platforms->count == 0)
        complain(directory, where, problems,
                 "there is no platform here; expected NAME/platform.yaml");
    if (problems_total(problems) != before) {
        platforms_free(platforms);
        return NULL;
    }
    return platforms;
}

struct platforms *platforms_load_bytes(const char *folder, const void *bytes, size_t len,
                                       struct problems *problems)
{
    char name[128];
    snprintf(name, sizeof name, "%s/platform.yaml", folder);
    struct yaml *yaml = yaml_read_bytes(name, bytes, len, problems);
    struct loaded *loaded = compile_document(yaml, folder, folder, problems);
    if (loaded == NULL)
        return NULL;
    struct platforms *platforms = xcalloc(1, sizeof *platforms);
    platforms->items[platforms->count++] = loaded;
    return platforms;
}

void platforms_free(struct platforms *platforms)
{
    if (platforms == NULL)
        return;
    for (size_t i = 0; i < platforms->count; i++)
        loaded_free(platforms->items[i]);
    free(platforms);
}

size_t platforms_count(const struct platforms *platforms)
{
    return platforms->count;
}

struct platform *platforms_at(const struct platforms *platforms, size_t index)
{
    assert(index < platforms->count);
    return &platforms->items[index]->platform;
}

const struct platform *platforms_find(const struct platforms *platforms, struct slice name)
{
    for (size_t i = 0; i < platforms->count; i++) {
        if (slice_is(name, platforms->items[i]->platform.name))
            return &platforms->items[i]->platform;
    }
    return NULL;
}
