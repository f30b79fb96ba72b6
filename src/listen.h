/* Listening sockets. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "problem.h"

#include <stdint.h>

/* Listens on "127.0.0.1:8443", "[::1]:8443" or "0.0.0.0:443": the socket that a service manager
 * handed over for this address, else one of our own; -1 when a problem was added. */
MUST_CHECK int listen_open(const char *address, int64_t backlog, struct problems *problems);
