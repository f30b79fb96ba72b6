/* The event loop behind loop.h: one epoll set that holds the watched descriptors, a monotonic
 * timerfd armed for the earliest timer, and an eventfd that wakes it for posted tasks. Timers are
 * few (one per lane, batch or queue, never one per event), so a sorted list beats a heap. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "loop.h"

#include "clock.h"

#include <errno.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define EVENTS_PER_TURN 64

struct loop {
    int epoll_fd;
    struct loop_watch timer_watch; /* timerfd */
    struct loop_watch post_watch;  /* eventfd */
    int64_t armed_us;              /* what the timerfd is set to; 0 = disarmed */
    struct list timers;            /* sorted by due_us */
    struct list deferred;
    /* Watches of the turn that runs; loop_unwatch() blanks them, so that no callback comes after
     * it. */
    struct epoll_event ready[EVENTS_PER_TURN];
    int ready_count;
    pthread_mutex_t post_lock;
    struct list posted; /* under post_lock */
};

static void arm(struct loop *loop)
{
    int64_t due = 0;
    if (!list_is_empty(&loop->timers))
        due = container_of(loop->timers.next, struct loop_timer, node)->due_us;
    if (due == loop->armed_us)
        return;
    struct itimerspec spec = {.it_value = {due / 1000000, due % 1000000 * 1000}};
    int rc = timerfd_settime(loop->timer_watch.fd, TFD_TIMER_ABSTIME, &spec, NULL);
    assert(rc == 0);
    loop->armed_us = due;
}

static void on_timer(struct loop_watch *watch, unsigned events)
{
    (void)events;
    struct loop *loop = container_of(watch, struct loop, timer_watch);
    uint64_t expirations;
    if (read(watch->fd, &expirations, sizeof expirations) < 0 && errno != EAGAIN)
        abort();
    loop->armed_us = 0;

    int64_t now = clock_mono_us();
    while (!list_is_empty(&loop->timers)) {
        struct loop_timer *timer = container_of(loop->timers.next, struct loop_timer, node);
        if (timer->due_us > now)
            break;
        list_remove(&timer->node);
        timer->due_us = 0;
        timer->on_due(timer);
    }
    arm(loop);
}

static void on_posted(struct loop_watch *watch, unsigned events)
{
    (void)events;
    struct loop *loop = container_of(watch, struct loop, post_watch);
    uint64_t count;
    if (read(watch->fd, &count, sizeof count) < 0 && errno != EAGAIN)
        abort();

    struct list batch;
    list_init(&batch);
    pthread_mutex_lock(&loop->post_lock);
    for (struct list *node; (node = list_pop(&loop->posted));)
        list_append(&batch, node);
    pthread_mutex_unlock(&loop->post_lock);

    for (struct list *node; (node = list_pop(&batch));) {
        struct loop_task *task = container_of(node, struct loop_task, node);
        task->queued = false;
        task->run(task);
    }
}

struct loop *loop_new(void)
{
    struct loop *loop = xcalloc(1, sizeof *loop);
    list_init(&loop->timers);
    list_init(&loop->deferred);
    list_init(&loop->posted);
    pthread_mutex_init(&loop->post_lock, NULL);
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    int post_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    assert(loop->epoll_fd >= 0 && timer_fd >= 0 && post_fd >= 0);
    loop->timer_watch.on_ready = on_timer;
    loop_watch(loop, &loop->timer_watch, timer_fd, LOOP_READ);
    loop->post_watch.on_ready = on_posted;
    loop_watch(loop, &loop->post_watch, post_fd, LOOP_READ);
    return loop;
}

void loop_free(struct loop *loop)
{
    if (loop == NULL)
        return;
    close(loop->timer_watch.fd);
    close(loop->post_watch.fd);
    close(loop->epoll_fd);
    pthread_mutex_destroy(&loop->post_lock);
    free(loop);
}

int loop_fd(const struct loop *loop)
{
    return loop->epoll_fd;
}

static void run_ready(struct loop *loop, int timeout_ms)
{
    loop->ready_count = epoll_wait(loop->epoll_fd, loop->ready, EVENTS_PER_TURN, timeout_ms);
    for (int i = 0; i < loop->ready_count; i++) {
        struct loop_watch *watch = loop->ready[i].data.ptr;
        if (watch == NULL) /* unwatched earlier in this turn */
            continue;
        uint32_t got = loop->ready[i].events;
        unsigned events = 0;
        if (got & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP))
            events |= LOOP_READ;
        if (got & (EPOLLOUT | EPOLLERR))
            events |= LOOP_WRITE;
        watch->on_ready(watch, events);
    }
    loop->ready_count = 0;
}

void loop_poll(struct loop *loop)
{
    run_ready(loop, 0);
}

void loop_turn(struct loop *loop, int timeout_ms)
{
    run_ready(loop, list_is_empty(&loop->deferred) ? timeout_ms : 0);
    loop_run_deferred(loop);
}

void loop_run_deferred(struct loop *loop)
{
    /* What is put off while this runs is run too: a task must not defer itself for ever. */
    for (struct list *node; (node = list_pop(&loop->deferred));) {
        struct loop_task *task = container_of(node, struct loop_task, node);
        task->queued = false;
        task->run(task);
    }
}

void loop_watch(struct loop *loop, struct loop_watch *watch, int fd, unsigned events)
{
    /* A watch that is zeroed and new has fd 0, which is never one of ours: standard input is not
     * watched. */
    bool known = watch->fd > 0;
    if (known && watch->fd == fd && watch->events == events)
        return;
    assert(!known || watch->fd == fd);
    struct epoll_event event = {.data.ptr = watch};
    if (events & LOOP_READ)
        event.events |= EPOLLIN;
    if (events & LOOP_WRITE)
        event.events |= EPOLLOUT;
    int rc = epoll_ctl(loop->epoll_fd, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event);
    assert(rc == 0);
    watch->fd = fd;
    watch->events = events;
}

void loop_unwatch(struct loop *loop, struct loop_watch *watch)
{
    if (watch->fd <= 0)
        return;
    /* The kernel may know it no longer, when libpq has closed the descriptor behind our back. */
    (void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, watch->fd, NULL);
    for (int i = 0; i < loop->ready_count; i++) {
        if (loop->ready[i].data.ptr == watch)
            loop->ready[i].data.ptr = NULL;
    }
    watch->fd = -1;
    watch->events = 0;
}

void loop_timer_set(struct loop *loop, struct loop_timer *timer, int64_t due_us)
{
    loop_timer_clear(loop, timer);
    list_init(&timer->node);
    timer->due_us = due_us > 0 ? due_us : 1;
    struct list *after = loop->timers.prev;
    while (after != &loop->timers &&
           container_of(after, struct loop_timer, node)->due_us > timer->due_us)
        after = after->prev;
    list_append(after->next, &timer->node); /* before `after->next` = right behind `after` */
    arm(loop);
}

void loop_timer_clear(struct loop *loop, struct loop_timer *timer)
{
    if (timer->due_us == 0)
        return;
    list_remove(&timer->node);
    timer->due_us = 0;
    arm(loop);
}

void loop_defer(struct loop *loop, struct loop_task *task)
{
    if (task->queued)
        return;
    task->queued = true;
    list_init(&task->node);
    list_append(&loop->deferred, &task->node);
}

void loop_cancel(struct loop_task *task)
{
    if (!task->queued)
        return;
    list_remove(&task->node);
    task->queued = false;
}

void loop_post(struct loop *loop, struct loop_task *task)
{
    pthread_mutex_lock(&loop->post_lock);
    assert(!task->queued);
    task->queued = true;
    list_init(&task->node);
    list_append(&loop->posted, &task->node);
    pthread_mutex_unlock(&loop->post_lock);
    uint64_t one = 1;
    if (write(loop->post_watch.fd, &one, sizeof one) != sizeof one && errno != EAGAIN)
        abort();
}
