/* mallopt(3) and malloc_trim(3) behind heap.h. Called by command/serve.c; the watch runs on the
 * control thread, because trimming takes an arena's lock for milliseconds. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "heap.h"

#include "clock.h"

#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <unistd.h>

/* Larger blocks are mappings of their own: a freed body is gone at once. */
#define MAPPED_FROM (256 << 10)
#define TRIM_FROM (1 << 20)
#define LOOK_EVERY_US 2000000
#define SETTLED ((size_t)8 << 20)
#define CHANGED ((size_t)16 << 20)

static struct watch {
    struct loop_timer timer;
    struct loop *loop;
    size_t before;  /* resident at the last look */
    size_t trimmed; /* resident after the last trim */
} the_watch;

void heap_setup(void)
{
    (void)mallopt(M_MMAP_THRESHOLD, MAPPED_FROM); /* a sanitizer's allocator takes neither */
    (void)mallopt(M_TRIM_THRESHOLD, TRIM_FROM);
}

/* Bytes; 0 when it is not told. */
static size_t resident(void)
{
    char text[128];
    FILE *file = fopen("/proc/self/statm", "re");
    if (file == NULL)
        return 0;
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    char *second;
    (void)strtoull(text, &second, 10);
    return (size_t)strtoull(second, NULL, 10) * (size_t)sysconf(_SC_PAGESIZE);
}

static size_t difference(size_t a, size_t b)
{
    return a > b ? a - b : b - a;
}

static void on_look(struct loop_timer *timer)
{
    struct watch *watch = container_of(timer, struct watch, timer);
    size_t now = resident();
    if (difference(now, watch->before) < SETTLED && difference(now, watch->trimmed) > CHANGED) {
        malloc_trim(0);
        watch->trimmed = now = resident();
    }
    watch->before = now;
    loop_timer_set(watch->loop, timer, clock_mono_us() + LOOK_EVERY_US);
}

void heap_watch(struct loop *loop)
{
    the_watch.loop = loop;
    the_watch.timer.on_due = on_look;
    on_look(&the_watch.timer);
}
