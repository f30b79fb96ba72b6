/* C11's threads on POSIX's, linked into the programs of a TSan build: librdkafka uses thrd_create()
 * and mtx_lock(), which gcc 12's TSan does not intercept, so it would crash in librdkafka's threads
 * and see none of its locks. glibc's own are the same calls under another name (nptl/mtx_lock.c).
 */
/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <threads.h>

#define EXPORT __attribute__((visibility("default")))

struct start {
    thrd_start_t run;
    void *argument;
};

static void *begin(void *argument)
{
    struct start start = *(struct start *)argument;
    free(argument);
    return (void *)(intptr_t)start.run(start.argument);
}

static int result_of(int error)
{
    return error == 0           ? thrd_success
           : error == ETIMEDOUT ? thrd_timedout
           : error == EBUSY     ? thrd_busy
                                : thrd_error;
}

static pthread_mutex_t *lock_of(mtx_t *mutex)
{
    return (pthread_mutex_t *)(void *)mutex;
}

static pthread_cond_t *condition_of(cnd_t *condition)
{
    return (pthread_cond_t *)(void *)condition;
}

EXPORT int thrd_create(thrd_t *thread, thrd_start_t run, void *argument)
{
    struct start *start = malloc(sizeof *start);
    if (start == NULL)
        return thrd_nomem;
    *start = (struct start){run, argument};
    return result_of(pthread_create(thread, NULL, begin, start));
}

EXPORT int thrd_join(thrd_t thread, int *ret)
{
    void *result;
    int error = pthread_join(thread, &result);
    if (error == 0 && ret != NULL)
        *ret = (int)(intptr_t)result;
    return result_of(error);
}

EXPORT int thrd_detach(thrd_t thread)
{
    return result_of(pthread_detach(thread));
}

EXPORT int mtx_lock(mtx_t *mutex)
{
    return result_of(pthread_mutex_lock(lock_of(mutex)));
}

EXPORT int mtx_trylock(mtx_t *mutex)
{
    return result_of(pthread_mutex_trylock(lock_of(mutex)));
}

EXPORT int mtx_unlock(mtx_t *mutex)
{
    return result_of(pthread_mutex_unlock(lock_of(mutex)));
}

EXPORT int cnd_wait(cnd_t *condition, mtx_t *mutex)
{
    return result_of(pthread_cond_wait(condition_of(condition), lock_of(mutex)));
}

EXPORT int cnd_timedwait(cnd_t *condition, mtx_t *mutex, const struct timespec *until)
{
    return result_of(pthread_cond_timedwait(condition_of(condition), lock_of(mutex), until));
}

EXPORT int cnd_signal(cnd_t *condition)
{
    return result_of(pthread_cond_signal(condition_of(condition)));
}

EXPORT int cnd_broadcast(cnd_t *condition)
{
    return result_of(pthread_cond_broadcast(condition_of(condition)));
}
