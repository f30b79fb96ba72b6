/* Called by `serve`. The sockets lie from descriptor 3 on; which is which is told by their address
 * and not by LISTEN_FDNAMES, so a unit file needs no names. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "activation.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/un.h>
#include <unistd.h>

#define FIRST_FD 3
#define SOCKETS_MAX 16

static struct {
    int fds[SOCKETS_MAX]; /* -1 = taken */
    size_t count;
    struct sockaddr_un notify;
    socklen_t notify_len; /* 0 = nobody listens */
    int64_t watchdog_us;
} manager;

/* A number in the environment; -1 = none. */
static int64_t number_of(const char *name)
{
    const char *text = getenv(name);
    if (text == NULL || text[0] == '\0' || strlen(text) > 18 ||
        strspn(text, "0123456789") != strlen(text))
        return -1;
    return strtoll(text, NULL, 10);
}

/* What is meant for another process (LISTEN_PID, WATCHDOG_PID) is not ours. */
static bool is_for_us(const char *name)
{
    int64_t pid = number_of(name);
    return pid == -1 ? getenv(name) == NULL : pid == (int64_t)getpid();
}

static void take_sockets(void)
{
    int64_t count = number_of("LISTEN_FDS");
    if (count <= 0 || getenv("LISTEN_PID") == NULL || !is_for_us("LISTEN_PID"))
        return;
    for (int fd = FIRST_FD; fd < FIRST_FD + count && manager.count < SOCKETS_MAX; fd++) {
        if (fcntl(fd, F_SETFD, FD_CLOEXEC) == 0)
            manager.fds[manager.count++] = fd;
    }
}

/* A path, or with '@' a name in the abstract namespace. */
static void take_notify(void)
{
    const char *path = getenv("NOTIFY_SOCKET");
    if (path == NULL || (path[0] != '/' && path[0] != '@') ||
        strlen(path) >= sizeof manager.notify.sun_path)
        return;
    size_t len = strlen(path);
    manager.notify.sun_family = AF_UNIX;
    memcpy(manager.notify.sun_path, path, len);
    if (path[0] == '@')
        manager.notify.sun_path[0] = '\0';
    manager.notify_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
}

void activation_begin(void)
{
    static const char *const names[] = {"LISTEN_PID",    "LISTEN_FDS",    "LISTEN_FDNAMES",
                                        "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"};
    take_sockets();
    take_notify();
    int64_t watchdog = number_of("WATCHDOG_USEC");
    manager.watchdog_us = watchdog > 0 && is_for_us("WATCHDOG_PID") ? watchdog : 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unsetenv(names[i]);
}

/* Family, address and port; a socket's flow information or scope may differ. */
static bool same_address(const struct sockaddr *a, const struct sockaddr *b)
{
    if (a->sa_family != b->sa_family)
        return false;
    if (a->sa_family == AF_INET) {
        const struct sockaddr_in *x = (const void *)a, *y = (const void *)b;
        return x->sin_port == y->sin_port && x->sin_addr.s_addr == y->sin_addr.s_addr;
    }
    if (a->sa_family == AF_INET6) {
        const struct sockaddr_in6 *x = (const void *)a, *y = (const void *)b;
        return x->sin6_port == y->sin6_port &&
               memcmp(&x->sin6_addr, &y->sin6_addr, sizeof x->sin6_addr) == 0;
    }
    return false;
}

static bool listens_at(int fd, const struct sockaddr *address)
{
    struct sockaddr_storage own = {0};
    socklen_t len = sizeof own;
    int listening = 0;
    socklen_t size = sizeof listening;
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) == 0 && listening &&
           getsockname(fd, (struct sockaddr *)(void *)&own, &len) == 0 &&
           same_address((const struct sockaddr *)(const void *)&own, address);
}

int activation_take(const struct sockaddr *address)
{
    for (size_t i = 0; i < manager.count; i++) {
        int fd = manager.fds[i];
        if (fd < 0 || !listens_at(fd, address))
            continue;
        int flags = fcntl(fd, F_GETFL);
        if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
            return -1;
        manager.fds[i] = -1;
        return fd;
    }
    return -1;
}

static void describe(int fd, char *text, size_t size)
{
    struct sockaddr_storage own = {0};
    socklen_t len = sizeof own;
    char host[INET6_ADDRSTRLEN] = "?";
    const struct sockaddr_in *v4 = (const void *)&own;
    const struct sockaddr_in6 *v6 = (const void *)&own;
    snprintf(text, size, "descriptor %d", fd);
    if (getsockname(fd, (struct sockaddr *)(void *)&own, &len) != 0)
        return;
    if (own.ss_family == AF_INET && inet_ntop(AF_INET, &v4->sin_addr, host, sizeof host))
        snprintf(text, size, "%s:%u", host, ntohs(v4->sin_port));
    if (own.ss_family == AF_INET6 && inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof host))
        snprintf(text, size, "[%s]:%u", host, ntohs(v6->sin6_port));
}

void activation_finish(struct problems *problems)
{
    for (size_t i = 0; i < manager.count; i++) {
        char text[64];
        if (manager.fds[i] < 0)
            continue;
        describe(manager.fds[i], text, sizeof text);
        problem_add(problems, NULL, 0, 0,
                    "the service manager handed over a socket at %s, which listen.https, "
                    "listen.plain and listen.admin do not name; make them agree",
                    text);
        close(manager.fds[i]);
    }
    manager.count = 0;
}

void activation_notify(const char *state)
{
    if (manager.notify_len == 0)
        return;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return;
    /* A manager that does not listen is no reason to stop. */
    (void)sendto(fd, state, strlen(state), MSG_NOSIGNAL,
                 (const struct sockaddr *)(const void *)&manager.notify, manager.notify_len);
    close(fd);
}

int64_t activation_watchdog_us(void)
{
    return manager.watchdog_us;
}
