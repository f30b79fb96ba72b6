/* `hookgate migrate`: brings the database to this program's schema. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate.h"
#include "command.h"
#include "config.h"

#include <limits.h>
#include <string.h>
#include <unistd.h>

static int usage(FILE *out, int status)
{
    fputs("usage: hookgate migrate [--config FILE] [--sql DIR] [--dry-run]\n\n"
          "Applies the numbered files of sql/ that the database does not have yet.\n\n"
          "  --config FILE  default conf/hookgate.yaml\n"
          "  --sql DIR      default sql/ of the working directory, then the installed one\n"
          "  --dry-run      say what would be applied\n",
          out);
    return status;
}

/* Installed, the files lie in ../share/hookgate/sql, seen from the program. */
static const char *default_directory(char *buffer, size_t size)
{
    if (access("sql/001_core.sql", R_OK) == 0)
        return "sql";
    char self[PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    if (len <= 0)
        return "sql";
    self[len] = '\0';
    char *slash = strrchr(self, '/');
    if (slash == NULL)
        return "sql";
    *slash = '\0';
    snprintf(buffer, size, "%s/../share/hookgate/sql", self);
    return access(buffer, R_OK) == 0 ? buffer : "sql";
}

int command_migrate(int argc, char **argv)
{
    const char *path = "conf/hookgate.yaml", *directory = NULL;
    bool dry_run = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0)
            return usage(stdout, 0);
        if (strcmp(argv[i], "--dry-run") == 0)
            dry_run = true;
        else if (strcmp(argv[i], "--config") == 0 && i + 1 < argc)
            path = argv[++i];
        else if (strcmp(argv[i], "--sql") == 0 && i + 1 < argc)
            directory = argv[++i];
        else {
            fprintf(stderr, "hookgate migrate: '%s' is not understood\n", argv[i]);
            return usage(stderr, 2);
        }
    }
    struct problems problems = {0};
    struct config *config = config_read(path, &problems);
    if (config == NULL) {
        problems_print(&problems);
        problems_release(&problems);
        return 2;
    }
    char installed[PATH_MAX + 32];
    const struct migrate_options options = {
        .conninfo = config->postgres.conninfo,
        .password_file = config->postgres.password_file,
        .directory = directory ? directory : default_directory(installed, sizeof installed),
        .dry_run = dry_run,
    };
    bool fine = migrate_run(&options, stdout, stderr);
    problems_release(&problems);
    config_free(config);
    return fine ? 0 : 1;
}
