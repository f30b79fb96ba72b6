/* ACTIVATION: what a service manager hands over and wants to hear: listening sockets that it holds
 * open over restarts (LISTEN_FDS), and words about our state (NOTIFY_SOCKET). The protocols are
 * systemd's, sd_listen_fds(3) and sd_notify(3); without a manager all of it does nothing.
 *
 * Thread: activation_take() at start only; activation_notify() any. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "obj.h"
#include "problem.h"

#include <stdint.h>
#include <sys/socket.h>

/* Reads LISTEN_PID, LISTEN_FDS and NOTIFY_SOCKET and takes them out of the environment. Once,
 * before the first thread. */
void activation_begin(void);

/* The handed-over socket that listens at this address, with close-on-exec, now the caller's; -1
 * when there is none. */
MUST_CHECK int activation_take(const struct sockaddr *address);

/* Complains about handed-over sockets that nobody took: the manager listens where the configuration
 * does not, and who connects there would wait for ever. Closes them. */
void activation_finish(struct problems *problems);

/* "READY=1", "STOPPING=1", "WATCHDOG=1" and the like; lines may be joined by \n. Never blocks. */
void activation_notify(const char *state);

/* How often WATCHDOG=1 must come at least, in microseconds; 0 = nobody watches. */
int64_t activation_watchdog_us(void);
