/* `hookgate version`: which program this is. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "command.h"
#include "options.h"

static int usage(FILE *out, int status)
{
    fputs("usage: hookgate version\n\n"
          "Prints the version.\n",
          out);
    return status;
}

int command_version(int argc, char **argv)
{
    static const struct command_option none[] = {{0}};
    int status = options_read(argc, argv, none, usage, NULL);
    if (status >= 0)
        return status;
    puts("hookgate " HOOKGATE_VERSION);
    return 0;
}
