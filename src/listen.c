/* Opens the sockets of listen.h. Addresses are numeric: a name could mean another host tomorrow. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "listen.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

static struct addrinfo *parse(const char *address)
{
    const char *colon = strrchr(address, ':');
    if (colon == NULL)
        return NULL;
    char host[64];
    size_t len = (size_t)(colon - address);
    if (len >= sizeof host)
        return NULL;
    bool brackets = len >= 2 && address[0] == '[' && colon[-1] == ']';
    snprintf(host, sizeof host, "%.*s", (int)(brackets ? len - 2 : len),
             brackets ? address + 1 : address);
    const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
                                   .ai_family = AF_UNSPEC,
                                   .ai_socktype = SOCK_STREAM};
    struct addrinfo *info = NULL;
    return getaddrinfo(host, colon + 1, &hints, &info) == 0 ? info : NULL;
}

int listen_open(const char *address, int64_t backlog, struct problems *problems)
{
    struct addrinfo *info = parse(address);
    if (info == NULL) {
        problem_add(problems, NULL, 0, 0, "can't listen on %s: not a numeric address and port",
                    address);
        return -1;
    }
    int on = 1;
    int fd = socket(info->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    bool ok = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
              bind(fd, info->ai_addr, info->ai_addrlen) == 0 && listen(fd, (int)backlog) == 0;
    if (!ok) {
        problem_add(problems, NULL, 0, 0, "can't listen on %s: %s", address, strerror(errno));
        if (fd >= 0)
            close(fd);
        fd = -1;
    }
    freeaddrinfo(info);
    return fd;
}
