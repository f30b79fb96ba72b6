/* Rows of the directory as Postgres might hold them: what is taken is found again by each of its
 * keys, under its own platform alone. Input: rows of lines, fields parted by tabs: id, workspace,
 * platform, status, token, account, e-mail, domain. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "directory.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

#define FIELDS 8
#define ROWS_MAX 64

struct row {
    const char *fields[FIELDS];
};

static size_t read_rows(char *text, struct row *rows)
{
    size_t count = 0;
    for (char *line; count < ROWS_MAX && (line = strsep(&text, "\n")) != NULL; count++) {
        for (size_t i = 0; i < FIELDS; i++) {
            const char *field = strsep(&line, "\t");
            rows[count].fields[i] = field ? field : "";
        }
    }
    return count;
}

static struct integration *add(struct directory *directory, const struct row *row)
{
    const char *const *f = row->fields;
    return directory_add(directory, &(struct directory_row){.integration_id = f[0],
                                                            .workspace = f[1],
                                                            .platform = f[2],
                                                            .status = f[3],
                                                            .token = f[4][0] ? f[4] : NULL,
                                                            .accounts = &f[5],
                                                            .account_count = 1,
                                                            .emails = &f[6],
                                                            .email_count = 1,
                                                            .domains = &f[7],
                                                            .domain_count = 1});
}

static void check_found(const struct integration *found, const struct row *row)
{
    assert(found != NULL && strcmp(found->platform, row->fields[2]) == 0);
}

static void look_up(const struct directory *directory, const struct row *row)
{
    struct slice platform = slice_of(row->fields[2]), none = {0};
    const char *const *f = row->fields;
    if (f[4][0] != '\0') {
        check_found(directory_by_token(directory, platform, slice_of(f[4])), row);
        /* A field of a row holds no tab, so this is nobody's platform. */
        assert(directory_by_token(directory, SLICE_LITERAL("\t"), slice_of(f[4])) == NULL);
    }
    if (f[5][0] != '\0')
        check_found(directory_by_account(directory, platform, slice_of(f[5]), none), row);
    if (f[6][0] != '\0')
        check_found(directory_by_account(directory, platform, none, slice_of(f[6])), row);
    assert(directory_by_token(directory, platform, none) == NULL);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    char *text = xmalloc(size + 1);
    if (size > 0)
        memcpy(text, data, size);
    text[size] = '\0';
    struct row rows[ROWS_MAX];
    bool taken[ROWS_MAX];
    size_t count = read_rows(text, rows), total = 0;
    struct directory *directory = directory_new(NULL);
    for (size_t i = 0; i < count; i++)
        total += taken[i] = add(directory, &rows[i]) != NULL;
    assert(directory_count(directory) == total);
    for (size_t i = 0; i < count; i++) {
        if (taken[i])
            look_up(directory, &rows[i]);
    }
    directory_unref(directory);
    free(text);
    return 0;
}
