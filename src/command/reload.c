/* `hookgate reload`: asks the running gateway, on its private listener, to take its configuration
 * anew, waits for the verdict and prints it. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "client.h"
#include "clock.h"
#include "command.h"
#include "config.h"
#include "destination.h"
#include "loop.h"
#include "options.h"

#include <stdio.h>
#include <sys/time.h>
#include <unistd.h>

/* Files, new topics and a big directory: seconds. More than that is a gateway that hangs. */
#define DEADLINE_US INT64_C(60000000)

struct verdict {
    bool done;
    enum client_result result;
    int status;
};

static int usage(FILE *out, int status)
{
    fputs(
        "usage: hookgate reload [--config FILE | --admin ADDRESS]\n\n"
        "Makes the running gateway take its configuration, platforms, secrets and certificate "
        "anew: all of\nit, or nothing when anything is wrong. Prints what was taken, what was "
        "refused, and what needs a\nrestart. SIGHUP does the same and tells it in the log.\n\n"
        "  --config FILE     the file whose listen.admin tells where the gateway listens; default\n"
        "                    conf/hookgate.yaml, then /etc/hookgate/hookgate.yaml\n"
        "  --admin ADDRESS   listen.admin of the running gateway, when the file has another now\n"
        "  --help            this text\n\n"
        "Exit status: 0 taken, 1 refused or no gateway answers, 2 wrong usage or "
        "configuration.\n",
        out);
    return status;
}

static void on_done(struct client *client, enum client_result result,
                    const struct client_answer *answer, void *context)
{
    (void)client;
    struct verdict *verdict = context;
    verdict->done = true;
    verdict->result = result;
    if (answer == NULL)
        return;
    verdict->status = answer->status;
    fwrite(answer->body.ptr, 1, answer->body.len, answer->status == 200 ? stdout : stderr);
}

/* The client below tries until its deadline; a gateway that is not there is told at once. */
static bool is_listening(const char *address)
{
    const struct timeval limit = {.tv_sec = 5};
    struct sockaddr_storage to;
    socklen_t len;
    if (!config_address_parse(address, &to, &len))
        return false;
    int fd = socket(to.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool fine = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) == 0 &&
                connect(fd, (const struct sockaddr *)&to, len) == 0;
    if (fd >= 0)
        close(fd);
    return fine;
}

static int ask(const char *address)
{
    char url[128], head[256], error[256] = "";
    if (!is_listening(address)) {
        fprintf(stderr,
                "hookgate reload: no gateway answers at %s (listen.admin); where the running one "
                "has another address, --admin names it\n",
                address);
        return 1;
    }
    snprintf(url, sizeof url, "http://%s", address);
    struct destination *to = destination_new(url, NULL, error, sizeof error);
    if (to == NULL) {
        fprintf(stderr, "hookgate reload: %s: %s\n", address, error);
        return 2;
    }
    int len = snprintf(head, sizeof head,
                       "POST /reload HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\n\r\n",
                       destination_authority(to));
    struct loop *loop = loop_new();
    struct verdict verdict = {0};
    struct client *client = client_new(loop, to, on_done, &verdict);
    client_send(client, (struct slice){head, (size_t)len}, (struct slice){"", 0},
                clock_mono_us() + DEADLINE_US);
    while (!verdict.done)
        loop_turn(loop, -1);
    if (verdict.result != CLIENT_ANSWERED)
        fprintf(stderr, "hookgate reload: no verdict from %s (listen.admin): %s\n", address,
                client_failure(client));
    client_free(client);
    destination_free(to);
    loop_free(loop);
    return verdict.result == CLIENT_ANSWERED && verdict.status == 200 ? 0 : 1;
}

static int ask_by_config(const char *path)
{
    struct config *config = options_config(path);
    if (config == NULL)
        return 2;
    int status = ask(config->listen.admin.text);
    config_free(config);
    return status;
}

int command_reload(int argc, char **argv)
{
    const char *path = NULL, *address = NULL;
    const struct command_option known[] = {
        {"config", .value = &path}, {"admin", .value = &address}, {0}};
    int status = options_read(argc, argv, known, usage, NULL);
    if (status >= 0)
        return status;
    if (path != NULL && address != NULL)
        return options_refuse("reload", usage, "either --config or --admin");
    return address != NULL ? ask(address) : ask_by_config(path);
}
