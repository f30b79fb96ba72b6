/* The one reader of command lines, but for `hookgate send`, whose options are numbers. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "options.h"

#include "config.h"

#include <assert.h>
#include <getopt.h>
#include <stdarg.h>
#include <unistd.h>

#define FIRST 256 /* what getopt_long() returns for the first of the table */

int options_refuse(const char *command, command_usage_f *usage, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "hookgate %s: ", command);
    vfprintf(stderr, format, args);
    fputs("\n\n", stderr);
    va_end(args);
    return usage(stderr, 2);
}

struct config *options_config(const char *path)
{
    struct problems problems = {0};
    struct config *config = config_read(path != NULL ? path : config_default_path(), &problems);
    problems_print(&problems);
    problems_release(&problems);
    return config;
}

const char *options_platforms(void)
{
    return access("platforms", R_OK | X_OK) == 0 ? "platforms" : HOOKGATE_DATA "/platforms";
}

static void prepare(const struct command_option *options, struct option known[OPTIONS_MAX + 2])
{
    size_t count = 0;
    for (; options[count].name != NULL; count++) {
        assert(count < OPTIONS_MAX);
        known[count] = (struct option){.name = options[count].name,
                                       .has_arg = options[count].value != NULL ? required_argument
                                                                               : no_argument,
                                       .val = FIRST + (int)count};
    }
    known[count++] = (struct option){.name = "help", .has_arg = no_argument, .val = 'h'};
    known[count] = (struct option){0};
}

int options_read(int argc, char **argv, const struct command_option *options,
                 command_usage_f *usage, int *ret_words)
{
    struct option known[OPTIONS_MAX + 2];
    prepare(options, known);
    opterr = 0;
    for (int found; (found = getopt_long(argc, argv, ":h", known, NULL)) != -1;) {
        if (found == 'h')
            return usage(stdout, 0);
        if (found == ':')
            return options_refuse(argv[0], usage, "%s needs a value", argv[optind - 1]);
        if (found < FIRST)
            return options_refuse(argv[0], usage, "there is no option '%s'", argv[optind - 1]);
        const struct command_option *option = &options[found - FIRST];
        if (option->value != NULL)
            *option->value = optarg;
        else
            *option->flag = true;
    }
    if (ret_words != NULL)
        *ret_words = argc - optind;
    else if (optind < argc)
        return options_refuse(argv[0], usage, "unexpected argument '%s'", argv[optind]);
    return -1;
}
