/* Threads of ours never take a signal: the control thread waits for all of them. A thread inherits
 * what its maker blocks, so that signals are blocked while it is made; that holds for libraries
 * which make threads of their own, too. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "obj.h"

#include <pthread.h>
#include <signal.h>

/* Blocks all signals for the calling thread; *ret_before is for thread_restore_signals(). */
static inline void thread_block_signals(sigset_t *ret_before)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, ret_before);
}

static inline void thread_restore_signals(const sigset_t *before)
{
    pthread_sigmask(SIG_SETMASK, before, NULL);
}

/* 0, or why there is no thread (EAGAIN). */
MUST_CHECK static inline int thread_start(pthread_t *ret_thread, void *(*run)(void *context),
                                          void *context)
{
    sigset_t before;
    thread_block_signals(&before);
    int rc = pthread_create(ret_thread, NULL, run, context);
    thread_restore_signals(&before);
    return rc;
}
