/* Sockets and words of a service manager, played by the test: each case runs in a child, because
 * descriptor 3 and the environment are the process's own. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "activation.h"
#include "listen.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* Runs `play` in a child; its exit status is the verdict. */
static void in_child(int (*play)(void))
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(play());
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

#define EXPECT(condition)                                                                          \
    do {                                                                                           \
        if (!(condition))                                                                          \
            return __LINE__ % 250 + 1;                                                             \
    } while (0)

/* A listening socket on a free port of 127.0.0.1, as descriptor `fd`. */
static struct sockaddr_in listen_as(int fd)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    int made = socket(AF_INET, SOCK_STREAM, 0);
    if (made < 0 || bind(made, (struct sockaddr *)&address, len) != 0 || listen(made, 8) != 0 ||
        getsockname(made, (struct sockaddr *)&address, &len) != 0)
        abort();
    if (made != fd && (dup2(made, fd) != fd || close(made) != 0))
        abort();
    return address;
}

static void set_number(const char *name, long number)
{
    char text[24];
    snprintf(text, sizeof text, "%ld", number);
    setenv(name, text, 1);
}

static int play_take(void)
{
    struct sockaddr_in one = listen_as(3), two = listen_as(4);
    set_number("LISTEN_FDS", 2);
    set_number("LISTEN_PID", getpid());
    activation_begin();
    EXPECT(getenv("LISTEN_FDS") == NULL && getenv("LISTEN_PID") == NULL);
    EXPECT((fcntl(3, F_GETFD) & FD_CLOEXEC) != 0);
    EXPECT(activation_take((struct sockaddr *)&two) == 4);
    EXPECT((fcntl(4, F_GETFL) & O_NONBLOCK) != 0);
    EXPECT(activation_take((struct sockaddr *)&two) == -1); /* taken */
    struct problems problems = {0};
    char text[64];
    snprintf(text, sizeof text, "127.0.0.1:%u", ntohs(one.sin_port));
    EXPECT(listen_open(text, 8, &problems) == 3); /* bind() would fail */
    activation_finish(&problems);
    EXPECT(!problems_any(&problems));
    return 0;
}

static int play_left_over(void)
{
    struct sockaddr_in one = listen_as(3);
    char text[64];
    snprintf(text, sizeof text, "127.0.0.1:%u", ntohs(one.sin_port));
    set_number("LISTEN_FDS", 1);
    set_number("LISTEN_PID", getpid());
    activation_begin();
    struct problems problems = {0};
    activation_finish(&problems);
    EXPECT(problems.count == 1 && strstr(problems.lines[0], text) != NULL);
    EXPECT(fcntl(3, F_GETFD) == -1); /* closed: who connects is refused at once */
    return 0;
}

/* What is meant for another process, or is no listening socket, is left alone. */
static int play_not_ours(void)
{
    struct sockaddr_in one = listen_as(3);
    set_number("LISTEN_FDS", 1);
    set_number("LISTEN_PID", getpid() + 1);
    set_number("WATCHDOG_USEC", 1000000);
    set_number("WATCHDOG_PID", getpid() + 1);
    activation_begin();
    EXPECT(activation_take((struct sockaddr *)&one) == -1);
    EXPECT(activation_watchdog_us() == 0);
    activation_notify("READY=1"); /* to nobody */
    return 0;
}

static int play_words(const char *name, bool abstract)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    size_t len = strlen(name);
    memcpy(address.sun_path, name, len);
    if (abstract)
        address.sun_path[0] = '\0';
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    EXPECT(fd >= 0 && bind(fd, (struct sockaddr *)&address, size) == 0);
    setenv("NOTIFY_SOCKET", name, 1);
    set_number("WATCHDOG_USEC", 3000000);
    activation_begin();
    EXPECT(getenv("NOTIFY_SOCKET") == NULL);
    EXPECT(activation_watchdog_us() == 3000000);
    activation_notify("READY=1\nSTATUS=fine");
    char text[64] = "";
    ssize_t got = recv(fd, text, sizeof text - 1, MSG_DONTWAIT);
    EXPECT(got == 19 && strcmp(text, "READY=1\nSTATUS=fine") == 0);
    if (!abstract)
        unlink(name);
    activation_notify("STOPPING=1"); /* a manager that is gone is no reason to die */
    return 0;
}

static int play_words_path(void)
{
    char name[64];
    snprintf(name, sizeof name, "/tmp/hookgate-notify-%d", (int)getpid());
    return play_words(name, false);
}

static int play_words_abstract(void)
{
    char name[64];
    snprintf(name, sizeof name, "@hookgate-notify-%d", (int)getpid());
    return play_words(name, true);
}

#define CASE(name)                                                                                 \
    static void test_##name(void **state)                                                          \
    {                                                                                              \
        (void)state;                                                                               \
        in_child(play_##name);                                                                     \
    }
CASE(take)
CASE(left_over)
CASE(not_ours)
CASE(words_path)
CASE(words_abstract)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_take),           cmocka_unit_test(test_left_over),
        cmocka_unit_test(test_not_ours),       cmocka_unit_test(test_words_path),
        cmocka_unit_test(test_words_abstract),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
