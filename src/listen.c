/* Opens the sockets of listen.h. Addresses are numeric: a name could mean another host tomorrow. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "listen.h"

#include "activation.h"
#include "config.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

int listen_open(const char *address, int64_t backlog, struct problems *problems)
{
    struct sockaddr_storage socket_address;
    socklen_t len;
    if (!config_address_parse(address, &socket_address, &len)) {
        problem_add(problems, NULL, 0, 0, "can't listen on %s: not a numeric address and port",
                    address);
        return -1;
    }
    int fd = activation_take((const struct sockaddr *)&socket_address, len);
    if (fd >= 0)
        return fd;
    int on = 1;
    fd = socket(socket_address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
        bind(fd, (const struct sockaddr *)&socket_address, len) == 0 &&
        listen(fd, (int)backlog) == 0)
        return fd;
    problem_add(problems, NULL, 0, 0, "can't listen on %s: %s", address, strerror(errno));
    if (fd >= 0)
        close(fd);
    return -1;
}
