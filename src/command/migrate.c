/* `hookgate migrate`: brings the database to this program's schema. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate.h"
#include "command.h"
#include "config.h"
#include "options.h"

#include <limits.h>
#include <string.h>
#include <unistd.h>

static int usage(FILE *out, int status)
{
    fputs("usage: hookgate migrate [--config FILE] [--sql DIR] [--dry-run]\n\n"
          "Applies the numbered files of sql/ that the database does not have yet.\n\n"
          "  --config FILE  default conf/hookgate.yaml, then /etc/hookgate/hookgate.yaml\n"
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
    const char *path = NULL, *directory = NULL;
    bool dry_run = false;
    const struct command_option known[] = {{"config", .value = &path},
                                           {"sql", .value = &directory},
                                           {"dry-run", .flag = &dry_run},
                                           {0}};
    int status = options_read(argc, argv, known, usage, NULL);
    if (status >= 0)
        return status;
    struct config *config = options_config(path);
    if (config == NULL)
        return 2;
    char installed[PATH_MAX + 32];
    const struct migrate_options options = {
        .conninfo = config->postgres.conninfo,
        .password_file = config->postgres.password_file,
        .directory = directory ? directory : default_directory(installed, sizeof installed),
        .dry_run = dry_run,
    };
    bool fine = migrate_run(&options, stdout, stderr);
    config_free(config);
    return fine ? 0 : 1;
}
