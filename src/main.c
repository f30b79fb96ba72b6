/* The hookgate binary: finds the command and runs it. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "command/command.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} commands[] = {
    {"serve", command_serve, "receive webhooks"},
    {"reload", command_reload, "make the running gateway take its configuration anew"},
    {"check", command_check, "validate the configuration and the platforms"},
    {"migrate", command_migrate, "bring the database to this program's schema"},
    {"verify", command_verify, "judge one raw request as the gateway would"},
    {"send", command_send, "post signed events made from a platform's samples"},
    {"seal", command_seal, "seal an integration's secret for the database, or make a key"},
    {"audit", command_audit, "is everything that was answered 2xx in Kafka?"},
    {"stuck", command_stuck, "list, retry or drop events that Kafka or Postgres refuses for good"},
    {"version", command_version, "print the version"},
};

static int usage(FILE *out, int status)
{
    fputs("usage: hookgate COMMAND [ARGUMENT …]\n\n", out);
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        fprintf(out, "  %-9s%s\n", commands[i].name, commands[i].summary);
    fputs("\n`hookgate COMMAND --help` tells more.\n", out);
    return status;
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return usage(stderr, 2);
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return usage(stdout, 0);
    if (strcmp(argv[1], "--version") == 0)
        argv[1] += strlen("--");
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    }
    fprintf(stderr, "hookgate: there is no command '%s'\n", argv[1]);
    return usage(stderr, 2);
}
