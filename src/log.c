/* JSON lines on standard error. A line is built on the caller's stack and copied into one of two
 * buffers under a mutex; the writer thread swaps the buffers and writes the full one, so that the
 * lock is held for a memcpy only and a reader of standard error that stalls costs lines, not time.
 * Before log_start() and after log_stop() lines are written by the caller. Thread: any. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "log.h"

#include "clock.h"
#include "thread.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define BUFFER_SIZE ((size_t)2 << 20) /* of each of the two */
#define VALUE_MAX 1024                /* escaped bytes: one value can't crowd out the rest */
#define STOP_TIMEOUT_S 2
#define LINGER_US 5000
#define TAIL ",\"cut\":true}\n"
#define LINE_LIMIT (sizeof(((struct log_line *)0)->text) - sizeof(TAIL))

enum state {
    STATE_DIRECT, /* the caller writes */
    STATE_RUNNING,
    STATE_STOPPING,
    STATE_STUCK, /* standard error took nothing while stopping: lines are dropped */
};

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t filled;
    pthread_t thread;
    enum state state;
    bool writer_waits;
    char *buffers[2]; /* kept after the stop: a stuck writer may still read one */
    unsigned filling; /* which of them takes lines; the other is the writer's */
    size_t fill;
    uint64_t told; /* drops that the log has told; the writer's own once it runs */
} writer = {.mutex = PTHREAD_MUTEX_INITIALIZER, .filled = PTHREAD_COND_INITIALIZER};

static atomic_int wanted_level = LOG_INFO;
static atomic_uint_fast64_t dropped;

static uint64_t count_lines(const char *bytes, size_t len)
{
    uint64_t lines = 0;
    for (const char *p = bytes; (p = memchr(p, '\n', len - (size_t)(p - bytes))) != NULL; p++)
        lines++;
    return lines;
}

/* What standard error refuses for good (closed pipe, full disk) is dropped and counted. */
static void write_all(const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = write(STDERR_FILENO, bytes, len);
        if (n >= 0) {
            bytes += n;
            len -= (size_t)n;
        } else if (errno == EAGAIN) { /* somebody we share it with made it non-blocking */
            struct pollfd writable = {.fd = STDERR_FILENO, .events = POLLOUT};
            poll(&writable, 1, -1);
        } else if (errno != EINTR) {
            atomic_fetch_add(&dropped, count_lines(bytes, len));
            return;
        }
    }
}

/* A gap in the log is told in the log, once the reader is back. */
static void tell_dropped(void)
{
    uint64_t now = atomic_load(&dropped);
    if (now == writer.told)
        return;
    struct log_line line;
    log_begin(&line, LOG_WARNING, "log_lines_dropped");
    log_int(&line, "lines", (int64_t)(now - writer.told));
    if (line.wanted) {
        memcpy(line.text + line.len, "}\n", 2);
        write_all(line.text, line.len + 2);
    }
    writer.told = now;
}

static void *writer_main(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&writer.mutex);
    for (;;) {
        while (writer.fill == 0 && writer.state == STATE_RUNNING) {
            writer.writer_waits = true;
            pthread_cond_wait(&writer.filled, &writer.mutex);
        }
        writer.writer_waits = false;
        if (writer.state == STATE_RUNNING) {
            /* Waking a thread costs its caller more than a line does: let more lines come. */
            pthread_mutex_unlock(&writer.mutex);
            usleep(LINGER_US);
            pthread_mutex_lock(&writer.mutex);
        }
        if (writer.fill == 0 || writer.state == STATE_STUCK) /* too late for what is left */
            break;
        const char *full = writer.buffers[writer.filling];
        size_t len = writer.fill;
        writer.filling ^= 1;
        writer.fill = 0;
        pthread_mutex_unlock(&writer.mutex);
        write_all(full, len);
        tell_dropped();
        pthread_mutex_lock(&writer.mutex);
    }
    pthread_mutex_unlock(&writer.mutex);
    return NULL;
}

void log_start(void)
{
    assert(writer.state == STATE_DIRECT);
    for (size_t i = 0; i < 2; i++)
        if (writer.buffers[i] == NULL)
            writer.buffers[i] = xmalloc(BUFFER_SIZE);
    pthread_mutex_lock(&writer.mutex);
    writer.told = atomic_load(&dropped); /* here: the thread may begin late */
    if (thread_start(&writer.thread, writer_main, NULL) == 0) {
        writer.state = STATE_RUNNING;
        pthread_setname_np(writer.thread, "log");
    }
    pthread_mutex_unlock(&writer.mutex);
}

void log_stop(void)
{
    pthread_mutex_lock(&writer.mutex);
    bool running = writer.state == STATE_RUNNING;
    if (running)
        writer.state = STATE_STOPPING;
    pthread_cond_signal(&writer.filled);
    pthread_mutex_unlock(&writer.mutex);
    if (!running)
        return;
    /* A reader that stalls must not keep the process from ending. */
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += STOP_TIMEOUT_S;
    bool ended = pthread_timedjoin_np(writer.thread, NULL, &until) == 0;
    if (!ended)
        pthread_detach(writer.thread);
    pthread_mutex_lock(&writer.mutex);
    writer.state = ended ? STATE_DIRECT : STATE_STUCK;
    if (!ended)
        atomic_fetch_add(&dropped, count_lines(writer.buffers[writer.filling], writer.fill));
    if (ended && writer.fill > 0) { /* came between the writer's last look and its end */
        write_all(writer.buffers[writer.filling], writer.fill);
        writer.fill = 0;
    }
    pthread_mutex_unlock(&writer.mutex);
}

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&wanted_level, (int)level, memory_order_relaxed);
}

uint64_t log_dropped(void)
{
    return atomic_load_explicit(&dropped, memory_order_relaxed);
}

/* True when all of it fits; nothing is appended otherwise. */
static bool append(struct log_line *line, const char *bytes, size_t len)
{
    if (line->len + len > LINE_LIMIT) {
        line->cut = true;
        return false;
    }
    memcpy(line->text + line->len, bytes, len);
    line->len += len;
    return true;
}

/* `,"key":` and then, with room for `value_len` bytes at least. */
static bool append_key(struct log_line *line, const char *key, size_t value_len)
{
    size_t len = strlen(key);
    if (line->len + len + 4 + value_len > LINE_LIMIT) {
        line->cut = true;
        return false;
    }
    return append(line, ",\"", 2) && append(line, key, len) && append(line, "\":", 2);
}

/* "2026-01-31T12:00:00" of the second, computed once a second on each thread. */
static const char *second_text(time_t second)
{
    static _Thread_local time_t cached = -1;
    static _Thread_local char text[24];
    if (second != cached) {
        struct tm tm;
        gmtime_r(&second, &tm);
        strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
        cached = second;
    }
    return text;
}

void log_begin(struct log_line *line, enum log_level level, const char *event)
{
    static const char *const names[] = {"debug", "info", "warning", "error"};
    line->len = 0;
    line->cut = false;
    line->wanted = (int)level >= atomic_load_explicit(&wanted_level, memory_order_relaxed);
    if (!line->wanted)
        return;
    int64_t now = clock_wall_us();
    int ms = (int)(now % 1000000 / 1000);
    const char fraction[] = {
        '.', (char)('0' + ms / 100), (char)('0' + ms / 10 % 10), (char)('0' + ms % 10), 'Z', '"'};
    const char *second = second_text((time_t)(now / 1000000));
    append(line, "{\"ts\":\"", 7);
    append(line, second, strlen(second));
    append(line, fraction, sizeof(fraction));
    log_text(line, "level", names[level]);
    log_text(line, "event", event);
}

/* Length of the valid UTF-8 sequence of two to four bytes at `s`, or 0. Overlong forms, surrogates
 * and what lies beyond U+10FFFF are invalid. */
static size_t utf8_length(struct slice s)
{
    const unsigned char *p = (const unsigned char *)s.ptr;
    size_t len = p[0] >= 0xc2 && p[0] <= 0xdf   ? 2
                 : p[0] >= 0xe0 && p[0] <= 0xef ? 3
                 : p[0] >= 0xf0 && p[0] <= 0xf4 ? 4
                                                : 0;
    if (len == 0 || s.len < len)
        return 0;
    unsigned char low = p[0] == 0xe0 ? 0xa0 : p[0] == 0xf0 ? 0x90 : 0x80;
    unsigned char high = p[0] == 0xed ? 0x9f : p[0] == 0xf4 ? 0x8f : 0xbf;
    if (p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < len; i++)
        if (p[i] < 0x80 || p[i] > 0xbf)
            return 0;
    return len;
}

static bool is_plain(unsigned char c)
{
    return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

/* The JSON form of the first character of `s`, which is not plain ASCII, in `ret`; returns how many
 * bytes of `s` it stands for. Controls that a terminal would obey (DEL, U+0080 to U+009F) are
 * escaped too. */
static size_t escape(struct slice s, char ret[8], size_t *ret_len)
{
    unsigned char c = (unsigned char)s.ptr[0];
    const char *at = c ? strchr("\"\"\\\\\nn\rr\tt\bb\ff", c) : NULL;
    if (at != NULL && c < 0x7f && (at[0] == at[1] || c < 0x20)) {
        ret[0] = '\\';
        ret[1] = at[1];
        *ret_len = 2;
        return 1;
    }
    if (c < 0x20 || c == 0x7f) {
        *ret_len = (size_t)snprintf(ret, 8, "\\u%04x", c);
        return 1;
    }
    size_t len = utf8_length(s);
    if (len == 0) {
        memcpy(ret, "\xef\xbf\xbd", 3); /* U+FFFD */
        *ret_len = 3;
        return 1;
    }
    if (c == 0xc2 && (unsigned char)s.ptr[1] < 0xa0) {
        *ret_len = (size_t)snprintf(ret, 8, "\\u%04x", (unsigned char)s.ptr[1]);
        return 2;
    }
    memcpy(ret, s.ptr, len);
    *ret_len = len;
    return len;
}

/* Appends as much of the text as `limit` bytes of the line allow, ending between characters. */
static void append_escaped(struct log_line *line, struct slice s, size_t limit)
{
    while (s.len > 0) {
        size_t run = 0;
        while (run < s.len && is_plain((unsigned char)s.ptr[run]))
            run++;
        size_t room = limit - line->len;
        if (run > room) {
            append(line, s.ptr, room);
            line->cut = true;
            return;
        }
        append(line, s.ptr, run);
        s = slice_from(s, run);
        if (s.len == 0)
            return;
        char escaped[8];
        size_t escaped_len;
        size_t used = escape(s, escaped, &escaped_len);
        if (line->len + escaped_len > limit) {
            line->cut = true;
            return;
        }
        append(line, escaped, escaped_len);
        s = slice_from(s, used);
    }
}

void log_slice(struct log_line *line, const char *key, struct slice value)
{
    if (!line->wanted || !append_key(line, key, 2))
        return;
    append(line, "\"", 1);
    size_t limit = line->len + VALUE_MAX;
    if (limit > LINE_LIMIT - 1) /* the closing quote */
        limit = LINE_LIMIT - 1;
    append_escaped(line, value, limit);
    append(line, "\"", 1);
}

void log_text(struct log_line *line, const char *key, const char *value)
{
    if (value != NULL && line->wanted)
        log_slice(line, key, slice_of(value));
}

/* Digits of `value`, at least `width` of them, before `end`; returns where they begin. */
static char *digits(char *end, uint64_t value, int width)
{
    while (value > 0 || width > 0) {
        *--end = (char)('0' + value % 10);
        value /= 10;
        width--;
    }
    return end;
}

static void append_number(struct log_line *line, const char *key, const char *from, const char *end)
{
    size_t len = (size_t)(end - from);
    if (append_key(line, key, len))
        append(line, from, len);
}

static uint64_t magnitude(int64_t value)
{
    return value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
}

void log_int(struct log_line *line, const char *key, int64_t value)
{
    if (!line->wanted)
        return;
    char buf[24], *end = buf + sizeof(buf), *from = digits(end, magnitude(value), 1);
    if (value < 0)
        *--from = '-';
    append_number(line, key, from, end);
}

void log_seconds(struct log_line *line, const char *key, int64_t duration_us)
{
    if (!line->wanted)
        return;
    char buf[32], *end = buf + sizeof(buf);
    uint64_t us = magnitude(duration_us);
    char *from = digits(end, us % 1000000, 6);
    *--from = '.';
    from = digits(from, us / 1000000, 1);
    if (duration_us < 0)
        *--from = '-';
    append_number(line, key, from, end);
}

void log_end(struct log_line *line)
{
    if (!line->wanted)
        return;
    const char *tail = line->cut ? TAIL : "}\n";
    size_t tail_len = strlen(tail); /* LINE_LIMIT keeps room for it */
    memcpy(line->text + line->len, tail, tail_len);
    line->len += tail_len;
    line->wanted = false; /* once */

    pthread_mutex_lock(&writer.mutex);
    bool direct = writer.state == STATE_DIRECT;
    if (!direct) {
        if (writer.state == STATE_STUCK || writer.fill + line->len > BUFFER_SIZE) {
            atomic_fetch_add_explicit(&dropped, 1, memory_order_relaxed);
        } else {
            memcpy(writer.buffers[writer.filling] + writer.fill, line->text, line->len);
            writer.fill += line->len;
        }
        if (writer.writer_waits) {
            writer.writer_waits = false;
            pthread_cond_signal(&writer.filled);
        }
    }
    pthread_mutex_unlock(&writer.mutex);
    if (direct)
        write_all(line->text, line->len);
}

void log_event(enum log_level level, const char *event, const char *fmt, ...)
{
    struct log_line line;
    log_begin(&line, level, event);
    if (!line.wanted)
        return;
    char text[VALUE_MAX + 1];
    va_list args;
    va_start(args, fmt);
    int len = vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    if (len >= (int)sizeof(text))
        line.cut = true;
    log_text(&line, "msg", len < 0 ? fmt : text);
    log_end(&line);
}
