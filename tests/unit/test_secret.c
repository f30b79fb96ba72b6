/* Secrets and their files: what decodes, what is refused, and that a problem never tells a secret.
 */
/* SPDX-License-Identifier: Apache-2.0 */
#include "platform.h"
#include "secret.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static const struct platform text = {.scheme_count = 1};
static char directory[] = "/tmp/hookgate-secret-XXXXXX";

static bool usable(enum signature_algorithm algorithm, enum key_decoding key, struct slice bytes)
{
    struct platform platform = {.schemes = {{.algorithm = algorithm, .key = key}},
                                .scheme_count = 1};
    const char *reason = NULL;
    struct secret *secret = secret_new(&platform, "s", bytes, 0, &reason);
    assert_true((secret == NULL) == (reason != NULL));
    secret_free(secret);
    return secret != NULL;
}

static void test_decodings(void **state)
{
    (void)state;
    static char long_text[SECRET_BYTES_MAX + 1];
    memset(long_text, 'x', sizeof long_text);
    assert_true(usable(HMAC_SHA256, KEY_TEXT, slice_of("whsec_AAA")));
    assert_true(usable(HMAC_SHA256, KEY_TEXT, (struct slice){long_text, SECRET_BYTES_MAX}));
    assert_false(usable(HMAC_SHA256, KEY_TEXT, (struct slice){long_text, sizeof long_text}));
    assert_false(usable(HMAC_SHA256, KEY_TEXT, slice_of("")));
    assert_true(usable(HMAC_SHA256, KEY_WHSEC, slice_of("whsec_AAAA")));
    assert_true(usable(HMAC_SHA256, KEY_WHSEC, slice_of("AAAA")));
    assert_false(usable(HMAC_SHA256, KEY_WHSEC, slice_of("whsec_AAA")));
    assert_false(usable(HMAC_SHA256, KEY_WHSEC, slice_of("whsec_")));
    assert_false(usable(HMAC_SHA256, KEY_WHSEC, slice_of("whpk_AAAA")));
    assert_false(usable(HMAC_SHA256, KEY_BASE64, slice_of("not base64")));
    assert_true(usable(HMAC_SHA512, KEY_HEX, slice_of("00fFaA")));
    assert_false(usable(HMAC_SHA1, KEY_HEX, slice_of("00f")));
    static const char pk[] = "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    assert_true(usable(ED25519, KEY_WHSEC, slice_of(pk)));
    assert_true(usable(ED25519, KEY_BASE64, slice_of(pk + 5)));
    assert_false(usable(ED25519, KEY_WHSEC, slice_of("whpk_AAAA")));
    assert_false(usable(ED25519, KEY_WHSEC, slice_of("whsec_AAAA")));
    assert_true(usable(STATIC_EQUALITY, KEY_TEXT, slice_of("u:p")));
}

static void test_equality_and_life(void **state)
{
    (void)state;
    const char *reason;
    struct secret *secret = secret_new(&text, "label", slice_of("abc"), 100, &reason);
    assert_string_equal(secret_label(secret), "label");
    assert_true(secret_equals(secret, slice_of("abc")));
    assert_false(secret_equals(secret, slice_of("abd")));
    assert_false(secret_equals(secret, slice_of("ab")));
    assert_false(secret_equals(secret, (struct slice){0}));
    assert_true(secret_is_live(secret, 100));
    assert_false(secret_is_live(secret, 101));
    secret_free(secret);
    secret_free(NULL);
}

static void path_of(const char *name, char path[200])
{
    snprintf(path, 200, "%s/%s", directory, name);
}

static void write_file(const char *name, const char *bytes, size_t len, mode_t mode)
{
    char path[200];
    path_of(name, path);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(chmod(path, mode), 0);
}

/* How many secrets the file gives; -1 with a problem that names it but tells no secret. */
static int add(struct keyring *keys, const char *name, bool check_mode)
{
    struct problems problems = {0};
    *keys = (struct keyring){0};
    char path[400];
    if (name[0] == '/')
        snprintf(path, sizeof path, "%s", name);
    else
        path_of(name, path);
    const struct keyring_file file = {.path = path, .strict = check_mode};
    bool fine = keyring_add_file(keys, &text, &file, &problems);
    assert_true(fine == (problems.count == 0));
    for (size_t i = 0; i < problems.count; i++) {
        assert_non_null(strstr(problems.lines[i], name));
        assert_null(strstr(problems.lines[i], "hush"));
    }
    problems_release(&problems);
    return fine ? (int)keys->count : -1;
}

/* The complaint about the only wrong line names it. */
static void is_told(const char *bytes, const char *place)
{
    struct problems problems = {0};
    struct keyring keys = {0};
    char path[400], wanted[500];
    write_file("file", bytes, strlen(bytes), 0600);
    path_of("file", path);
    snprintf(wanted, sizeof wanted, "%s:%s: this secret can't be used: ", path, place);
    assert_false(keyring_add_file(&keys, &text, &(struct keyring_file){.path = path}, &problems));
    assert_int_equal(problems.count, 1);
    assert_int_equal(strncmp(problems.lines[0], wanted, strlen(wanted)), 0);
    keyring_release(&keys);
    problems_release(&problems);
}

static int add_bytes(const char *bytes, size_t len)
{
    struct keyring keys;
    write_file("file", bytes, len, 0600);
    int count = add(&keys, "file", true);
    keyring_release(&keys);
    return count;
}
#define ADD(literal) add_bytes(literal, sizeof literal - 1)

static void test_lines(void **state)
{
    (void)state;
    assert_int_equal(ADD("hush"), 1);
    assert_int_equal(ADD("hush\n"), 1);
    assert_int_equal(ADD("hush\r\nhush2\r\n"), 2);
    assert_int_equal(ADD(""), -1);
    assert_int_equal(ADD("\n"), -1);
    assert_int_equal(ADD("hush\n\n"), -1);
    assert_int_equal(ADD("hush\n\nhush2\n"), -1);
    is_told("hush\n\nhush2\n", "2:1");
    assert_int_equal(ADD("hush\0hush\n"), -1);
    assert_int_equal(ADD("hush\thush\n"), -1);
    assert_int_equal(ADD("1\n2\n3\n4\n5\n6\n7\n8\n"), 8);
    assert_int_equal(ADD("1\n2\n3\n4\n5\n6\n7\n8\n9\n"), -1);
    static char big[20000];
    memset(big, 'x', sizeof big);
    assert_int_equal(add_bytes(big, sizeof big), -1);
}

static void test_labels_and_order(void **state)
{
    (void)state;
    struct keyring keys;
    write_file("zoom-secret", "new \nold", 8, 0600);
    assert_int_equal(add(&keys, "zoom-secret", true), 2);
    assert_string_equal(secret_label(keys.secrets[0]), "zoom-secret");
    assert_string_equal(secret_label(keys.secrets[1]), "zoom-secret-2");
    assert_true(secret_equals(keys.secrets[0], slice_of("new "))); /* blanks are kept */
    assert_true(secret_equals(keys.secrets[1], slice_of("old")));
    keyring_release(&keys);
    assert_int_equal(keys.count, 0);
    char path[200];
    path_of("zoom-secret", path);
    assert_int_equal(add(&keys, path, true), 2);
    keyring_release(&keys);
}

static void test_modes(void **state)
{
    (void)state;
    static const mode_t open_modes[] = {0640, 0604, 0620, 0644};
    struct keyring keys;
    for (size_t i = 0; i < 4; i++) {
        write_file("open", "hush", 4, open_modes[i]);
        assert_int_equal(add(&keys, "open", true), -1);
        assert_int_equal(add(&keys, "open", false), 1);
        keyring_release(&keys);
    }
    assert_int_equal(add(&keys, "missing", true), -1);
    assert_int_equal(add(&keys, ".", false), -1);
}

static void test_credentials_directory(void **state)
{
    (void)state;
    struct keyring keys;
    char inside[300], path[400];
    snprintf(inside, sizeof inside, "%s/credentials", directory);
    assert_int_equal(mkdir(inside, 0700), 0);
    write_file("credentials/cred", "hush", 4, 0644);
    write_file("outside", "hush", 4, 0644);
    setenv("CREDENTIALS_DIRECTORY", inside, 1);
    assert_int_equal(add(&keys, "credentials/cred", true), 1); /* whatever its mode */
    keyring_release(&keys);
    assert_int_equal(add(&keys, "outside", true), -1);
    snprintf(path, sizeof path, "%s/../outside", inside);
    assert_int_equal(add(&keys, path, true), -1);
    snprintf(path, sizeof path, "%s/cred", inside);
    assert_int_equal(add(&keys, path, true), 1);
    keyring_release(&keys);
    unsetenv("CREDENTIALS_DIRECTORY");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(inside), 0);
}

static int set_up(void **state)
{
    (void)state;
    return mkdtemp(directory) == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    static const char *const names[] = {"file", "zoom-secret", "open", "outside"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[200];
        path_of(names[i], path);
        unlink(path);
    }
    return rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decodings), cmocka_unit_test(test_equality_and_life),
        cmocka_unit_test(test_lines),     cmocka_unit_test(test_labels_and_order),
        cmocka_unit_test(test_modes),     cmocka_unit_test(test_credentials_directory),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
