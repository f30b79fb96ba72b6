/* DESTINATION: where requests go: a URL, resolved once, with what TLS needs; shared by the
 * connections of one loop and outlives them. TLS sessions are kept here, so that a connection after
 * the first resumes. Thread: the loop's. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "obj.h"

#include <stddef.h>

struct addrinfo;
struct destination;
struct ssl_st; /* OpenSSL's SSL */

/* `ca_file` NULL = $HOOKGATE_CA, else the system's. A certificate that can't be verified is
 * accepted from a loopback address when `ca_file` is NULL. Blocks while it resolves the name. On
 * failure NULL and a sentence in `error`. */
MUST_CHECK struct destination *destination_new(const char *url, const char *ca_file, char *error,
                                               size_t error_size);
void destination_free(struct destination *to);
/* As the URL has it, with its query; "" when it has none or only "/". */
const char *destination_path(const struct destination *to);
/* "host" or "host:port", for the header; "https://host:port", for messages that sign the URL. */
const char *destination_authority(const struct destination *to);
const char *destination_origin(const struct destination *to);
/* Why the certificate could not be verified though it was accepted, or NULL. */
const char *destination_doubt(const struct destination *to);

/* ---- for a connection (client.c) ---- */

/* The address to try now; lives as long as the destination. */
const struct addrinfo *destination_address(const struct destination *to);
/* That one failed. */
void destination_next_address(struct destination *to);
/* TLS for a connection of this socket, which the caller frees; NULL = the URL is http://. */
MUST_CHECK struct ssl_st *destination_tls_new(struct destination *to, int fd);
/* What the handshake found of the certificate (X509_V_*), for destination_doubt(). */
void destination_note_verdict(struct destination *to, long verdict);
/* The next handshake resumes nothing. */
void destination_forget_session(struct destination *to);
