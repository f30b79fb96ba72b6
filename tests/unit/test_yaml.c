/* yaml.c and yaml_bind.c: what is read and bound, what is refused and where the complaint points.
 */
/* SPDX-License-Identifier: Apache-2.0 */
#include "yaml.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h> /* needs those above */

struct thing {
    const char *text;
    struct yaml_texts texts;
    int word;
    bool flag;
    int64_t integer, plain_integer, size, duration;
    const char *name;
    const struct yaml_node *node, *text_node;
};

static const char *const colours[] = {"red", "green", NULL};

static const struct yaml_field part_fields[] = {
    {"name", YAML_TEXT, offsetof(struct thing, name), .required = true},
    {NULL},
};

static const struct yaml_field numbers_fields[] = {
    {"integer", YAML_INTEGER, offsetof(struct thing, integer), .min = -5, .max = 100},
    {"free", YAML_INTEGER, offsetof(struct thing, plain_integer)},
    {"size", YAML_SIZE, offsetof(struct thing, size), .min = 1024, .max = 1 << 20},
    {"duration", YAML_DURATION, offsetof(struct thing, duration), .min = 0, .max = 604800000000},
    {NULL},
};

static const struct yaml_field fields[] = {
    {"text", YAML_TEXT, offsetof(struct thing, text), .min = 1, .max = 8,
     .node_offset_plus1 = 1 + offsetof(struct thing, text_node)},
    {"texts", YAML_TEXTS, offsetof(struct thing, texts), .min = 1, .max = 3},
    {"word", YAML_WORD, offsetof(struct thing, word), .words = colours},
    {"flag", YAML_FLAG, offsetof(struct thing, flag)},
    {"numbers", YAML_STRUCT, 0, .fields = numbers_fields},
    {"part", YAML_STRUCT, 0, .fields = part_fields},
    {"node", YAML_NODE, offsetof(struct thing, node)},
    {NULL},
};

static struct yaml *read_text(const char *text, struct problems *problems)
{
    return yaml_read_bytes("t.yaml", text, strlen(text), problems);
}

/* Reads and binds `text`, which must give exactly these lines (NULL-terminated). */
static void expect_problems(const char *text, const char *const *lines)
{
    struct problems problems = {0};
    struct thing thing = {0};
    size_t count = 0;

    struct yaml *yaml = read_text(text, &problems);
    if (yaml != NULL)
        assert_int_equal(yaml_bind(yaml, yaml_root(yaml), fields, &thing, &problems),
                         lines[0] == NULL);
    for (; lines[count] != NULL; count++) {
        assert_true(count < problems.count);
        assert_string_equal(problems.lines[count], lines[count]);
    }
    assert_int_equal(problems.count, count);
    problems_release(&problems);
    yaml_free(yaml);
}

#define EXPECT(text, ...) expect_problems(text, (const char *const[]){__VA_ARGS__, NULL})

/* Exactly one complaint, which begins so. */
static void expect_refused(const char *text, size_t len, const char *beginning)
{
    struct problems problems = {0};

    struct yaml *yaml = yaml_read_bytes("t.yaml", text, len, &problems);
    assert_null(yaml);
    assert_int_equal(problems.count, 1);
    if (strncmp(problems.lines[0], beginning, strlen(beginning)) != 0)
        fail_msg("'%s' does not begin with '%s'", problems.lines[0], beginning);
    problems_release(&problems);
}

static void refused(const char *text, const char *beginning)
{
    expect_refused(text, strlen(text), beginning);
}

static void every_kind_binds(void **state)
{
    static const char text[] = "text: hi there\n"
                               "texts: [a, 'b', \"c\"]\n"
                               "word: green\n"
                               "flag: true\n"
                               "numbers: {integer: -5, free: -123456789012, size: 64KiB, duration: "
                               "7d}\n"
                               "part:\n  name: one\n"
                               "node: {k: [v]}\n";
    struct problems problems = {0};
    struct thing thing = {0};
    (void)state;

    struct yaml *yaml = read_text(text, &problems);
    assert_non_null(yaml);
    assert_true(yaml_bind(yaml, yaml_root(yaml), fields, &thing, &problems));
    assert_int_equal(problems.count, 0);
    assert_string_equal(thing.text, "hi there");
    assert_int_equal(thing.texts.count, 3);
    assert_string_equal(thing.texts.items[1], "b");
    assert_int_equal(thing.word, 1);
    assert_true(thing.flag);
    assert_int_equal(thing.integer, -5);
    assert_int_equal(thing.plain_integer, -123456789012);
    assert_int_equal(thing.size, 65536);
    assert_int_equal(thing.duration, 604800000000);
    assert_string_equal(thing.name, "one");
    assert_ptr_equal(thing.node, yaml_node_get(yaml_root(yaml), "node"));
    assert_ptr_equal(thing.text_node, yaml_node_get(yaml_root(yaml), "text"));
    yaml_free(yaml);
}

static void trees_can_be_walked(void **state)
{
    struct problems problems = {0};
    (void)state;

    struct yaml *yaml = read_text("a: [x, {b: \"3\"}]\nc: 3\n", &problems);
    assert_non_null(yaml);
    const struct yaml_node *root = yaml_root(yaml);
    assert_int_equal(yaml_node_type(root), YAML_MAPPING);
    assert_int_equal(yaml_node_count(root), 2);
    assert_string_equal(yaml_node_key(root, 1), "c");
    assert_string_equal(yaml_node_text(yaml_node_value(root, 1)), "3");
    assert_true(yaml_node_is_plain(yaml_node_value(root, 1)));
    const struct yaml_node *list = yaml_node_get(root, "a");
    assert_int_equal(yaml_node_type(list), YAML_SEQUENCE);
    const struct yaml_node *b = yaml_node_get(yaml_node_item(list, 1), "b");
    assert_false(yaml_node_is_plain(b));
    assert_null(yaml_node_get(root, "b"));

    yaml_problem(b, &problems, "no %s", "good");
    yaml_problem(yaml_node_key_node(root, 1), &problems, "key");
    yaml_problem(root, &problems, "root");
    assert_string_equal(problems.lines[0], "t.yaml:1:12: a[1].b: no good");
    assert_string_equal(problems.lines[1], "t.yaml:2:1: c: key");
    assert_string_equal(problems.lines[2], "t.yaml:1:1: root");
    problems_release(&problems);
    yaml_free(yaml);
}

static void nothing_is_an_empty_mapping(void **state)
{
    static const char *const texts[] = {"", "\n", "# only a comment\n", "---\n", "---\n...\n"};
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct problems problems = {0};
        struct yaml *yaml = read_text(texts[i], &problems);
        assert_non_null(yaml);
        assert_int_equal(yaml_node_type(yaml_root(yaml)), YAML_MAPPING);
        assert_int_equal(yaml_node_count(yaml_root(yaml)), 0);
        yaml_free(yaml);
    }
}

static void one_scalar_is_a_list_of_texts(void **state)
{
    struct problems problems = {0};
    struct thing thing = {0};
    (void)state;

    struct yaml *yaml = read_text("texts: alone\n", &problems);
    assert_true(yaml_bind(yaml, yaml_root(yaml), fields, &thing, &problems));
    assert_int_equal(thing.texts.count, 1);
    assert_string_equal(thing.texts.items[0], "alone");
    yaml_free(yaml);
}

static void a_wrong_value_leaves_the_member_alone(void **state)
{
    struct problems problems = {0};
    struct thing thing = {.size = 7, .word = 9, .text = "before"};
    (void)state;

    struct yaml *yaml = read_text("numbers: {size: 1}\nword: blue\ntext: [a]\n", &problems);
    assert_false(yaml_bind(yaml, yaml_root(yaml), fields, &thing, &problems));
    assert_int_equal(problems.count, 3);
    assert_int_equal(thing.size, 7);
    assert_int_equal(thing.word, 9);
    assert_string_equal(thing.text, "before");
    problems_release(&problems);
    yaml_free(yaml);
}

static void unknown_words_get_a_guess(void **state)
{
    (void)state;
    EXPECT("txet: a\n", "t.yaml:1:1: txet: unknown key 'txet'; did you mean 'text'?");
    EXPECT("numbers:\n  sise: 4096\n",
           "t.yaml:2:3: numbers.sise: unknown key 'sise'; did you mean 'size'?");
    EXPECT("zzzzzzzz: a\n", "t.yaml:1:1: zzzzzzzz: unknown key 'zzzzzzzz'; one of these would be "
                            "right: text, texts, word, flag, numbers, part, node");
    EXPECT("word: gren\n", "t.yaml:1:7: word: unknown word 'gren'; did you mean 'green'?");
    EXPECT("word: purple\n",
           "t.yaml:1:7: word: unknown word 'purple'; one of these would be right: red, green");
}

static void types_are_told(void **state)
{
    (void)state;
    EXPECT("text: [a]\n", "t.yaml:1:7: text: a list stands here; a text would be right");
    EXPECT("numbers: 3\n", "t.yaml:1:10: numbers: a single value stands here; a mapping (`key: "
                           "value` lines) would be right");
    EXPECT("text:\n",
           "t.yaml:1:6: text: nothing stands here; a text would be right, or leave the key out");
    EXPECT("text: null\n",
           "t.yaml:1:7: text: nothing stands here; a text would be right, or leave the key out");
    EXPECT("text: \"null\"\n", NULL);
    EXPECT("texts: [a, [b]]\n", "t.yaml:1:12: texts[1]: a list stands here; a text would be right");
    EXPECT("flag: yes\n",
           "t.yaml:1:7: flag: 'yes' is not valid; true or false, unquoted, would be right");
    EXPECT("flag: 'true'\n",
           "t.yaml:1:7: flag: 'true' is not valid; true or false, unquoted, would be right");
    EXPECT("[]\n", "t.yaml:1:1: a list stands here; a mapping (`key: value` lines) would be right");
}

static void bounds_are_told(void **state)
{
    (void)state;
    EXPECT("text: ''\n", "t.yaml:1:7: text: 0 bytes; 1 to 8 would be right");
    EXPECT("text: 123456789\n", "t.yaml:1:7: text: 9 bytes; 1 to 8 would be right");
    EXPECT("texts: []\n", "t.yaml:1:8: texts: 0 values; 1 to 3 would be right");
    EXPECT("texts: [a, b, c, d]\n", "t.yaml:1:8: texts: 4 values; 1 to 3 would be right");
    EXPECT("numbers: {integer: 101}\n",
           "t.yaml:1:20: numbers.integer: 101 is out of range; -5 to 100 would be right");
    EXPECT("numbers: {integer: -6}\n",
           "t.yaml:1:20: numbers.integer: -6 is out of range; -5 to 100 would be right");
    EXPECT("numbers: {size: 1023}\n",
           "t.yaml:1:17: numbers.size: 1023 is out of range; 1KiB to 1MiB would be right");
    EXPECT("numbers: {duration: 8d}\n",
           "t.yaml:1:21: numbers.duration: 8d is out of range; 0s to 7d would be right");
    EXPECT("part: {}\n", "t.yaml:1:7: part: the key 'name' is missing");
}

static void is_number(const char *field, const char *value, bool good)
{
    char text[128];
    struct problems problems = {0};
    struct thing thing = {0};

    snprintf(text, sizeof text, "%s: %s\n", field, value);
    struct yaml *yaml = read_text(text, &problems);
    assert_non_null(yaml);
    if (yaml_bind(yaml, yaml_root(yaml), numbers_fields, &thing, &problems) != good)
        fail_msg("%s was %s", text, good ? "refused" : "taken");
    problems_release(&problems);
    yaml_free(yaml);
}

static void numbers_are_strict(void **state)
{
    static const char *const bad_integers[] = {"\"3\"",
                                               "+3",
                                               "0x10",
                                               "010",
                                               "1e3",
                                               "3.0",
                                               "1_000",
                                               "3s",
                                               "--",
                                               "9223372036854775808",
                                               "99999999999999999999"};
    static const char *const bad_sizes[] = {"4KB",          "4kib", "4 KiB",  "-4096",
                                            "1.5KiB",       "KiB",  "'4096'", "9999999999999GiB",
                                            "8589934592GiB"};
    static const char *const bad_durations[] = {"5", "0",   "5sec",  "1.5s", "-1s",
                                                "s", "5 s", "1h30m", "5S",   "106751991167301d"};
    (void)state;
    for (size_t i = 0; i < sizeof bad_integers / sizeof *bad_integers; i++)
        is_number("free", bad_integers[i], false);
    for (size_t i = 0; i < sizeof bad_sizes / sizeof *bad_sizes; i++)
        is_number("size", bad_sizes[i], false);
    for (size_t i = 0; i < sizeof bad_durations / sizeof *bad_durations; i++)
        is_number("duration", bad_durations[i], false);
    is_number("free", "9223372036854775807", true);
    is_number("free", "0", true);
    is_number("size", "'4KiB'", true);
    is_number("size", "1048576", true);
    is_number("duration", "0s", true);
    is_number("duration", "1us", true);
    is_number("duration", "'12h'", true);
}

static void surprising_yaml_is_refused(void **state)
{
    (void)state;
    refused("a: &x 1\n", "t.yaml:1:4: anchors");
    refused("a: *x\n", "t.yaml:1:4: anchors");
    refused("a: &x [1]\n", "t.yaml:1:4: anchors");
    refused("&x a: 1\n", "t.yaml:1:1: anchors");
    refused("a: !!str 1\n", "t.yaml:1:4: tags");
    refused("a: !x {}\n", "t.yaml:1:4: tags");
    refused("a: 1\n---\nb: 2\n", "t.yaml:2:1: a second document");
    refused("a: 1\nb: 2\na: 3\n", "t.yaml:3:1: a: this key stands already at line 1");
    refused("o: {i: {a: 1, \"a\": 3}}\n", "t.yaml:1:15: o.i.a: this key stands already at line 1");
    refused("? [a]\n: b\n", "t.yaml:1:3: a key must be a word");
    refused("'': b\n", "t.yaml:1:1: a key must be a word");
    refused("a: [1\n", "t.yaml:2:1: not valid YAML: ");
    refused("a: 1\n\tb: 2\n", "t.yaml:2:1: not valid YAML: ");
    refused("a: \"x\\0y\"\n", "t.yaml:1:4: a text with a zero byte");
}

static void hostile_bytes_are_refused(void **state)
{
    (void)state;
    expect_refused("a: b\0c", 6, "t.yaml:1:5: not valid YAML: ");
    refused("a: \xff\n", "t.yaml:1:4: not valid YAML: ");
    refused("a: \xc3", "t.yaml:1:4: not valid YAML: ");
    refused("a: 1\nb: 2\n\n\xc3\xa4\xc3\xb6: \xff\n", "t.yaml:4:5: not valid YAML: ");
    expect_refused("\xff\xfe"
                   "a\0:\0 \0b\0",
                   10, "t.yaml:1:1: not valid YAML: "); /* UTF-16 */
    refused("a: \001\n", "t.yaml:1:4: not valid YAML: ");
}

static void a_byte_order_mark_is_passed_over(void **state)
{
    (void)state;
    refused("\xef\xbb\xbf"
            "a: &x 1\n",
            "t.yaml:1:4: anchors");
    refused("\xef\xbb\xbf"
            "a: \xff\n",
            "t.yaml:1:4: not valid YAML: ");
    struct problems problems = {0};
    static const char text[] = "\xef\xbb\xbf"
                               "a: 1\n";
    struct yaml *yaml = yaml_read_bytes("t.yaml", text, sizeof text - 1, &problems);
    assert_non_null(yaml);
    assert_string_equal(yaml_node_key(yaml_root(yaml), 0), "a");
    yaml_free(yaml);
}

static void repeat(char *out, size_t count, const char *text)
{
    size_t len = strlen(text);
    for (size_t i = 0; i < count; i++)
        memcpy(out + i * len, text, len);
    out[count * len] = '\0';
}

static void size_and_depth_are_bounded(void **state)
{
    static char text[(1 << 20) + 2];
    struct problems problems = {0};
    (void)state;

    repeat(text, 100000, "[");
    refused(text, "t.yaml:1:33: nested too deep");
    repeat(text, 32, "[");
    repeat(text + 32, 32, "]");
    struct yaml *yaml = read_text(text, &problems);
    assert_non_null(yaml);
    yaml_free(yaml);
    text[0] = '[';
    repeat(text + 1, 20001, "1,");
    refused(text, "t.yaml:1:40000: too many values");
    repeat(text, (1 << 20) + 1, "#");
    refused(text, "t.yaml: too large");
    text[1 << 20] = '\0';
    yaml = read_text(text, &problems);
    assert_non_null(yaml);
    yaml_free(yaml);
}

static void long_paths_are_cut(void **state)
{
    static char text[8000];
    struct problems problems = {0};
    size_t len = 0;
    (void)state;

    for (int i = 0; i < 30; i++)
        len += (size_t)snprintf(text + len, sizeof text - len, "{%0100d: ", i);
    for (int i = 0; i < 30; i++)
        text[len++] = '}';
    text[len] = '\0';
    struct yaml *yaml = read_text(text, &problems);
    assert_non_null(yaml);
    const struct yaml_node *node = yaml_root(yaml);
    while (yaml_node_type(node) == YAML_MAPPING && yaml_node_count(node) > 0)
        node = yaml_node_value(node, 0);
    yaml_problem(node, &problems, "deep");
    assert_int_equal(problems.count, 1);
    problems_release(&problems);
    yaml_free(yaml);
}

static void files_that_cannot_be_read_are_told(void **state)
{
    struct problems problems = {0};
    (void)state;

    assert_null(yaml_read_file("/nonexistent/x.yaml", &problems));
    assert_null(yaml_read_file("/", &problems));
    assert_int_equal(problems.count, 2);
    assert_string_equal(problems.lines[0],
                        "/nonexistent/x.yaml: can't be opened: No such file or directory");
    assert_string_equal(problems.lines[1], "/: can't be read: Is a directory");
    problems_release(&problems);
}

static void files_are_read(void **state)
{
    char path[] = "/tmp/test_yaml.XXXXXX";
    struct problems problems = {0};
    (void)state;

    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "a: 1\n", 5), 5);
    close(fd);
    struct yaml *yaml = yaml_read_file(path, &problems);
    unlink(path);
    assert_non_null(yaml);
    assert_string_equal(yaml_node_text(yaml_node_get(yaml_root(yaml), "a")), "1");
    yaml_free(yaml);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_binds),
        cmocka_unit_test(trees_can_be_walked),
        cmocka_unit_test(nothing_is_an_empty_mapping),
        cmocka_unit_test(one_scalar_is_a_list_of_texts),
        cmocka_unit_test(a_wrong_value_leaves_the_member_alone),
        cmocka_unit_test(unknown_words_get_a_guess),
        cmocka_unit_test(types_are_told),
        cmocka_unit_test(bounds_are_told),
        cmocka_unit_test(numbers_are_strict),
        cmocka_unit_test(surprising_yaml_is_refused),
        cmocka_unit_test(hostile_bytes_are_refused),
        cmocka_unit_test(a_byte_order_mark_is_passed_over),
        cmocka_unit_test(size_and_depth_are_bounded),
        cmocka_unit_test(long_paths_are_cut),
        cmocka_unit_test(files_that_cannot_be_read_are_told),
        cmocka_unit_test(files_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
