/* The server's SSL_CTX. Renegotiation, compression and HTTP/2's ALPN are off; sessions resume by
 * tickets, whose keys live with the process. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "edge_tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

static SSL_CTX *failed(SSL_CTX *tls, const char *file, const char *what, struct problems *problems)
{
    char text[256];
    ERR_error_string_n(ERR_get_error(), text, sizeof text);
    ERR_clear_error();
    problem_add(problems, file, 0, 0, "%s: %s", what, text);
    SSL_CTX_free(tls);
    return NULL;
}

/* OpenSSL would ask at the terminal, and a reload wait there for ever. */
static int no_passphrase(char *buf, int size, int for_writing, void *context)
{
    (void)buf, (void)size, (void)for_writing, (void)context;
    return -1;
}

SSL_CTX *edge_tls_new(const char *certificate, const char *key, struct problems *problems)
{
    SSL_CTX *tls = SSL_CTX_new(TLS_server_method());
    if (tls == NULL)
        abort();
    SSL_CTX_set_min_proto_version(tls, TLS1_2_VERSION);
    SSL_CTX_set_options(tls, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_session_cache_mode(tls, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(tls, 1);
    SSL_CTX_set_mode(tls, SSL_MODE_RELEASE_BUFFERS); /* 34 KB less for each idle connection */
    SSL_CTX_set_default_passwd_cb(tls, no_passphrase);
    if (SSL_CTX_use_certificate_chain_file(tls, certificate) != 1)
        return failed(tls, certificate, "not a PEM certificate chain", problems);
    if (SSL_CTX_use_PrivateKey_file(tls, key, SSL_FILETYPE_PEM) != 1)
        return failed(tls, key,
                      "not a PEM private key without a passphrase, or not the certificate's",
                      problems);
    if (SSL_CTX_check_private_key(tls) != 1)
        return failed(tls, key, "does not belong to the certificate", problems);
    return tls;
}

SSL_CTX *edge_tls_ref(SSL_CTX *tls)
{
    SSL_CTX_up_ref(tls);
    return tls;
}

void edge_tls_unref(SSL_CTX *tls)
{
    SSL_CTX_free(tls);
}
