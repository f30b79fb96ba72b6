/* The command line of a command: `--name VALUE`, `--flag`, `--help`, and words beside them. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdio.h>

#define OPTIONS_MAX 8

struct command_option {
    const char *name;   /* "config" of --config; NULL ends the table */
    const char **value; /* NULL = it takes none, and */
    bool *flag;         /* this becomes true */
};

typedef int command_usage_f(FILE *out, int status);

/* Reads the options and moves the words behind them: they stand at the end of `argv`, and
 * *ret_words tells how many there are; NULL = none is allowed. Returns -1 to go on, or the exit
 * status with which to end now: 0 after --help, or 2 when the mistake and the usage were printed.
 * argv[0] is the command's name. */
int options_read(int argc, char **argv, const struct command_option *options,
                 command_usage_f *usage, int *ret_words);

struct config;

/* The configuration at `path`, NULL = the default; NULL when the complaints were printed. */
struct config *options_config(const char *path);

/* The folder of platforms when none is named: ./platforms, else the installed one. */
const char *options_platforms(void);

/* Prints "hookgate COMMAND: complaint" and the usage; returns 2. */
int options_refuse(const char *command, command_usage_f *usage, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
