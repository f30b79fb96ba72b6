/* HARDEN: what `hookgate serve` does to its own process before it reads a secret, so that a fault
 * elsewhere is worth less: no memory dump, no debugger, no new privileges, no file for others, and
 * not root unless told so. The sandbox around it is the service manager's. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "problem.h"

#include <stdbool.h>

/* Once, at the very start, before there are threads. Not dumpable also means that /proc/PID belongs
 * to root: other processes of the same user can read neither memory nor environment. */
void harden_process(void);

/* Adds a problem when the process is root's and that is not allowed. `file` is the configuration's,
 * for the message. */
void harden_check_user(bool allow_root, const char *file, struct problems *problems);
