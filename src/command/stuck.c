/* `hookgate stuck`: the events that Kafka, or Postgres, refuses for good. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "stuck.h"
#include "command.h"
#include "config.h"
#include "options.h"

#include <string.h>

static int usage(FILE *out, int status)
{
    fputs("usage: hookgate stuck list [--config FILE]\n"
          "       hookgate stuck retry [--config FILE] [EVENT_ID …]\n"
          "       hookgate stuck drop [--config FILE] EVENT_ID …\n\n"
          "Events that were accepted and parked, and that Kafka refuses for good: too large for "
          "their topic,\nno such topic, not authorised. And events that were held while Postgres "
          "was away, and whose\nreceipts it refuses: a constraint, a trigger. Each keeps its "
          "payload in Postgres.\n\n"
          "  list           id, time of receipt, platform, type, workspace, topic, bytes, reason\n"
          "  retry          put them back on their way, all or those named, once the cause is "
          "mended\n"
          "  drop           give those named up: payload, receipt and claim are deleted\n"
          "  --config FILE  default conf/hookgate.yaml, then /etc/hookgate/hookgate.yaml\n"
          "  --help         this text\n\n"
          "Exit status: 0 done, 1 an event is not stuck or still refused, or Postgres could not be "
          "asked, 2 wrong "
          "usage or configuration.\n",
          out);
    return status;
}

static int run(const char *path, char **words, int count)
{
    const char *what = count > 0 ? words[0] : "";
    bool list = strcmp(what, "list") == 0, drop = strcmp(what, "drop") == 0;
    if (!list && !drop && strcmp(what, "retry") != 0)
        return options_refuse("stuck", usage, "`list`, `retry` or `drop` would be right");
    if (drop && count == 1)
        return options_refuse("stuck", usage, "drop needs the events' ids (hookgate stuck list)");
    if (list && count > 1)
        return options_refuse("stuck", usage, "unexpected argument '%s'", words[1]);
    struct config *config = options_config(path);
    if (config == NULL)
        return 2;
    bool fine = list   ? stuck_list(config, stdout, stderr)
                : drop ? stuck_drop(config, words + 1, count - 1, stdout, stderr)
                       : stuck_retry(config, words + 1, count - 1, stdout, stderr);
    config_free(config);
    return fine ? 0 : 1;
}

int command_stuck(int argc, char **argv)
{
    const char *path = NULL;
    const struct command_option known[] = {{"config", .value = &path}, {0}};
    int words, status = options_read(argc, argv, known, usage, &words);
    if (status >= 0)
        return status;
    return run(path, argv + argc - words, words);
}
