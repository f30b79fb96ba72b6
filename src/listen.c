/* Opens the sockets of listen.h. Addresses are numeric: a name could mean another host tomorrow. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "listen.h"

#include "activation.h"
#include "config.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

/* Accepted sockets inherit it. It bounds what one turn of the loop may read of a client, and what
 * the kernel keeps for it, which would be megabytes; a body of 1 MiB still takes 0.4 s over 50 ms.
 */
#define RECEIVE_BYTES 131072

int listen_open(const char *address, int64_t backlog, struct problems *problems)
{
    struct sockaddr_storage socket_address;
    socklen_t len;
    if (!config_address_parse(address, &socket_address, &len)) {
        problem_add(problems, NULL, 0, 0, "can't listen on %s: not a numeric address and port",
                    address);
        return -1;
    }
    int on = 1, receive = RECEIVE_BYTES;
    int fd = activation_take((const struct sockaddr *)&socket_address);
    if (fd >= 0) {
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive, sizeof receive);
        return fd;
    }
    fd = socket(socket_address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive, sizeof receive) == 0 &&
        bind(fd, (const struct sockaddr *)&socket_address, len) == 0 &&
        listen(fd, (int)backlog) == 0)
        return fd;
    problem_add(problems, NULL, 0, 0, "can't listen on %s: %s", address, strerror(errno));
    if (fd >= 0)
        close(fd);
    return -1;
}
