/* The TLS side of the edge: TLS 1.2 and 1.3 with the operator's certificate chain. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "problem.h"

struct ssl_ctx_st;

/* PEM files; NULL when a problem was added. Shared by all threads. */
MUST_CHECK struct ssl_ctx_st *edge_tls_new(const char *certificate, const char *key,
                                           struct problems *problems);
/* Its references are OpenSSL's own count. Thread: any. */
struct ssl_ctx_st *edge_tls_ref(struct ssl_ctx_st *tls);
/* NULL is fine. */
void edge_tls_unref(struct ssl_ctx_st *tls);
