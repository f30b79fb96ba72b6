/* The one reader of small files with secrets: what it refuses, and that it never takes a part for
 * the whole. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "secret_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char directory[] = "/tmp/test_secret_file.XXXXXX";
static char path[64];

static void write_file(const char *bytes, size_t len, mode_t mode)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(chmod(path, mode), 0);
}

/* Refused for a reason that names the file and holds `part`. */
static void refused(size_t max, bool strict, const char *part)
{
    struct secret_file file;
    char *reason = NULL;
    assert_false(secret_file_read(path, max, strict, &file, &reason));
    assert_null(file.bytes);
    assert_non_null(strstr(reason, path));
    if (strstr(reason, part) == NULL)
        fail_msg("%s", reason);
    free(reason);
}

static void the_whole_or_nothing(void **state)
{
    (void)state;
    struct secret_file file;
    char *reason = NULL;
    write_file("0123456789", 10, 0600);
    assert_true(secret_file_read(path, 10, true, &file, &reason));
    assert_int_equal(file.len, 10);
    assert_string_equal(file.bytes, "0123456789");
    secret_file_release(&file);
    assert_null(file.bytes);
    refused(9, true, "longer than 9 bytes");
    write_file("", 0, 0600);
    refused(10, true, "is empty");
    unlink(path);
    refused(10, true, "No such file");
}

static void closed_to_others(void **state)
{
    (void)state;
    static const mode_t open_modes[] = {0640, 0604, 0620, 0601};
    struct secret_file file;
    char *reason = NULL;
    for (size_t i = 0; i < sizeof open_modes / sizeof *open_modes; i++) {
        write_file("x", 1, open_modes[i]);
        refused(10, true, "chmod 600");
        assert_true(secret_file_read(path, 10, false, &file, &reason));
        secret_file_release(&file);
    }
    setenv("CREDENTIALS_DIRECTORY", directory, 1);
    assert_true(secret_file_read(path, 10, true, &file, &reason));
    secret_file_release(&file);
    unsetenv("CREDENTIALS_DIRECTORY");
}

/* A pipe that nobody writes to must not hold the gateway up. */
static void regular_files_alone(void **state)
{
    (void)state;
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    alarm(5);
    refused(10, true, "no regular file");
    alarm(0);
    unlink(path);
    assert_int_equal(mkdir(path, 0700), 0);
    refused(10, true, "no regular file");
    rmdir(path);
}

static void passwords_are_one_text(void **state)
{
    (void)state;
    char *reason = NULL;
    write_file("pass word\n", 10, 0600);
    char *password = secret_file_password(path, &reason);
    assert_string_equal(password, "pass word");
    free(password);
    write_file("two\n\n", 5, 0600);
    password = secret_file_password(path, &reason);
    assert_string_equal(password, "two\n");
    free(password);
    static const struct {
        const char *bytes;
        size_t len;
        mode_t mode;
    } bad[] = {{"\n", 1, 0600}, {"a\0b", 3, 0600}, {"open", 4, 0644}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_file(bad[i].bytes, bad[i].len, bad[i].mode);
        assert_null(secret_file_password(path, &reason));
        assert_non_null(strstr(reason, path));
        free(reason);
    }
}

static int set_up(void **state)
{
    (void)state;
    unsetenv("CREDENTIALS_DIRECTORY");
    if (mkdtemp(directory) == NULL)
        return 1;
    snprintf(path, sizeof path, "%s/file", directory);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_whole_or_nothing),
        cmocka_unit_test(closed_to_others),
        cmocka_unit_test(regular_files_alone),
        cmocka_unit_test(passwords_are_one_text),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
