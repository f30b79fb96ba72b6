/* What pg.c and session.c connect to in tests: a server that speaks just enough of the Postgres
 * protocol (www.postgresql.org/docs/15/protocol-message-formats.html), one connection at a time,
 * and two that are as silent as a host without power and one that is frozen. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "thread.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

struct pg_server {
    int listener;
    int port;
    int fillers[4];     /* of a full backlog */
    const char *answer; /* the column of the row that each query returns; NULL = it hears and says
                           nothing */
};

static inline void pg_server_listen(struct pg_server *server, int backlog)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    server->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool fine = server->listener >= 0 &&
                bind(server->listener, (struct sockaddr *)&address, size) == 0 &&
                listen(server->listener, backlog) == 0 &&
                getsockname(server->listener, (struct sockaddr *)&address, &size) == 0;
    assert(fine);
    server->port = ntohs(address.sin_port);
    for (size_t i = 0; i < 4; i++)
        server->fillers[i] = -1;
}

/* Connections are taken by the kernel, and nobody answers. */
static inline void pg_server_frozen(struct pg_server *server)
{
    pg_server_listen(server, 16);
}

/* Not even the kernel answers: it drops a SYN that finds the backlog full. */
static inline void pg_server_dead(struct pg_server *server)
{
    pg_server_listen(server, 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)server->port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    for (size_t i = 0; i < 4; i++) {
        server->fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        (void)!connect(server->fillers[i], (struct sockaddr *)&address, sizeof address);
    }
}

static inline void pg_server_close(struct pg_server *server)
{
    for (size_t i = 0; i < 4; i++) {
        if (server->fillers[i] >= 0)
            close(server->fillers[i]);
    }
    close(server->listener);
}

/* ---- one that answers ---- */

static inline bool pg_server_read(int fd, void *to, size_t size)
{
    return size == 0 || recv(fd, to, size, MSG_WAITALL) == (ssize_t)size;
}

static inline void pg_server_say(int fd, char type, const void *payload, size_t size)
{
    uint32_t length = htonl((uint32_t)size + 4);
    (void)!send(fd, &type, 1, MSG_NOSIGNAL);
    (void)!send(fd, &length, sizeof length, MSG_NOSIGNAL);
    (void)!send(fd, payload, size, MSG_NOSIGNAL);
}

/* The type of the next message of a client, whose payload is skipped; 0 = it is gone. */
static inline char pg_server_hear(int fd, bool typed)
{
    char type = 1, payload[4096];
    uint32_t length;
    if ((typed && !pg_server_read(fd, &type, 1)) || !pg_server_read(fd, &length, sizeof length))
        return 0;
    length = ntohl(length) - 4;
    return length <= sizeof payload && pg_server_read(fd, payload, length) ? type : 0;
}

/* The server_version, and that it takes writes. */
static inline void pg_server_greet(int fd)
{
    static const char version[] = "server_version\0"
                                  "15.0",
                      standby[] = "in_hot_standby\0off",
                      read_only[] = "default_transaction_read_only\0off";
    pg_server_say(fd, 'R', "\0\0\0", 4);
    pg_server_say(fd, 'S', version, sizeof version);
    pg_server_say(fd, 'S', standby, sizeof standby);
    pg_server_say(fd, 'S', read_only, sizeof read_only);
    pg_server_say(fd, 'Z', "I", 1);
}

/* One text column, and one row of it. */
static inline void pg_server_describe(int fd)
{
    static const char row[] = "\0\1answer\0\0\0\0\0\0\0\0\0\0\31\377\377\377\377\377\377\0";
    pg_server_say(fd, 'T', row, sizeof row);
}

static inline void pg_server_tell(int fd, const char *answer)
{
    char row[512];
    size_t size = strlen(answer);
    assert(size + 6 <= sizeof row);
    uint16_t columns = htons(1);
    uint32_t length = htonl((uint32_t)size);
    memcpy(row, &columns, 2);
    memcpy(row + 2, &length, 4);
    memcpy(row + 6, answer, size);
    pg_server_say(fd, 'D', row, size + 6);
    pg_server_say(fd, 'C', "SELECT 1", sizeof "SELECT 1");
}

static inline void pg_server_serve(struct pg_server *server, int fd)
{
    if (!pg_server_hear(fd, false))
        return;
    pg_server_greet(fd);
    for (char type; (type = pg_server_hear(fd, true)) != 0 && type != 'X';) {
        if (server->answer == NULL)
            continue;
        if (type == 'P')
            pg_server_say(fd, '1', "", 0);
        else if (type == 'B')
            pg_server_say(fd, '2', "", 0);
        else if (type == 'D')
            pg_server_describe(fd);
        else if (type == 'E')
            pg_server_tell(fd, server->answer);
        else if (type == 'S')
            pg_server_say(fd, 'Z', "I", 1);
    }
}

static inline void *pg_server_main(void *context)
{
    struct pg_server *server = context;
    for (int fd; (fd = accept(server->listener, NULL, NULL)) >= 0; close(fd))
        pg_server_serve(server, fd);
    return NULL;
}

/* Its thread lives as long as the test. */
static inline void pg_server_start(struct pg_server *server, const char *answer)
{
    pg_server_listen(server, 16);
    server->answer = answer;
    pthread_t thread;
    int rc = thread_start(&thread, pg_server_main, server);
    assert(rc == 0);
    pthread_detach(thread);
}
