/* The destination behind destination.h: reads the URL, asks the resolver and prepares TLS. Called
 * by the commands that send, and by their connections. Thread: the connections'. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "destination.h"

#include "slice.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <sys/socket.h>

struct destination {
    char host[256]; /* without brackets */
    char port[8];
    char authority[272];
    char origin[288];
    char *path;
    struct addrinfo *addresses;
    const struct addrinfo *next_address; /* the one that is tried next; moves on when one fails */
    SSL_CTX *tls;                        /* NULL = plain */
    SSL_SESSION *session;                /* of the newest connection */
    bool lenient;                        /* an unverifiable certificate is accepted */
    long doubt;                          /* X509_V_*: why it was not verifiable */
};

static bool is_loopback(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *v4 = (const void *)address;
        return ntohl(v4->sin_addr.s_addr) >> 24 == 127;
    }
    const struct sockaddr_in6 *v6 = (const void *)address;
    return address->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
}

static int on_new_session(SSL *ssl, SSL_SESSION *session)
{
    struct destination *to = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    SSL_SESSION_free(to->session);
    to->session = session; /* the reference is ours: 1 */
    return 1;
}

static const char *parse_authority(struct destination *to, struct slice authority,
                                   const char *default_port)
{
    struct slice host = authority, port = slice_of(default_port);
    if (authority.len > 0 && authority.ptr[0] == '[') {
        const char *end = memchr(authority.ptr, ']', authority.len);
        if (end == NULL)
            return "the address has no closing ']'";
        host = (struct slice){authority.ptr + 1, (size_t)(end - authority.ptr) - 1};
        authority = slice_from(authority, host.len + 2);
    } else {
        const char *colon = memchr(authority.ptr, ':', authority.len);
        if (colon != NULL)
            host.len = (size_t)(colon - authority.ptr);
        authority = slice_from(authority, host.len);
    }
    if (authority.len > 0) {
        if (authority.ptr[0] != ':' || authority.len == 1)
            return "after the host comes :PORT, /PATH or nothing";
        port = slice_from(authority, 1);
    }
    if (host.len == 0 || host.len >= sizeof to->host || memchr(host.ptr, '@', host.len) != NULL)
        return "it needs a host (without a user)";
    unsigned long number = strtoul(port.ptr, NULL, 10);
    if (port.len > 5 || strspn(port.ptr, "0123456789") < port.len || number < 1 || number > 65535)
        return "the port must be a number from 1 to 65535";
    memcpy(to->host, host.ptr, host.len);
    memcpy(to->port, port.ptr, port.len);
    return NULL;
}

/* NULL or what is wrong. */
static const char *parse_url(struct destination *to, const char *url, bool *ret_tls)
{
    struct slice rest = slice_of(url);
    bool tls = slice_starts(rest, SLICE_LITERAL("https://"));
    if (!tls && !slice_starts(rest, SLICE_LITERAL("http://")))
        return "it must begin with https:// or http://";
    for (size_t i = 0; i < rest.len; i++) {
        if (rest.ptr[i] <= ' ' || rest.ptr[i] == 0x7f)
            return "it holds a blank or a control character";
    }
    rest = slice_from(rest, tls ? 8 : 7);
    size_t authority_len = strcspn(rest.ptr, "/?#");
    const char *path = rest.ptr + authority_len;
    if (*path == '?' || strchr(path, '#') != NULL)
        return "a query needs a path before it, and a fragment is never sent";
    const char *problem =
        parse_authority(to, (struct slice){rest.ptr, authority_len}, tls ? "443" : "80");
    if (problem != NULL)
        return problem;
    snprintf(to->authority, sizeof to->authority, "%.*s", (int)authority_len, rest.ptr);
    snprintf(to->origin, sizeof to->origin, "%s%s", tls ? "https://" : "http://", to->authority);
    to->path = xstrdup(strcmp(path, "/") == 0 ? "" : path);
    *ret_tls = tls;
    return NULL;
}

static bool prepare_tls(struct destination *to, const char *ca_file)
{
    bool given = ca_file != NULL;
    if (!given)
        ca_file = getenv("HOOKGATE_CA");
    to->lenient = !given && is_loopback(to->addresses->ai_addr);
    to->tls = SSL_CTX_new(TLS_client_method());
    if (to->tls == NULL)
        return false;
    SSL_CTX_set_app_data(to->tls, to);
    SSL_CTX_set_min_proto_version(to->tls, TLS1_2_VERSION);
    SSL_CTX_set_mode(to->tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(to->tls, 1);
    SSL_CTX_set_session_cache_mode(to->tls, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(to->tls, on_new_session);
    /* When lenient the hand-shake goes on and the result is looked at afterwards. */
    SSL_CTX_set_verify(to->tls, to->lenient ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, NULL);
    if (ca_file != NULL && *ca_file != '\0')
        return SSL_CTX_load_verify_file(to->tls, ca_file) == 1;
    return SSL_CTX_set_default_verify_paths(to->tls) == 1;
}

struct destination *destination_new(const char *url, const char *ca_file, char *error,
                                    size_t error_size)
{
    struct destination *to = xcalloc(1, sizeof *to);
    bool tls = false;
    const char *problem = parse_url(to, url, &tls);
    if (problem != NULL) {
        snprintf(error, error_size, "the URL: %s", problem);
        goto fail;
    }
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    int rc = getaddrinfo(to->host, to->port, &hints, &to->addresses);
    if (rc != 0) {
        to->addresses = NULL;
        snprintf(error, error_size, "%s: %s", to->host, gai_strerror(rc));
        goto fail;
    }
    to->next_address = to->addresses;
    if (tls && !prepare_tls(to, ca_file)) {
        const char *reason = ERR_reason_error_string(ERR_peek_last_error());
        snprintf(error, error_size, "the certificates of the authority can't be loaded: %s",
                 reason ? reason : "unknown reason");
        ERR_clear_error();
        goto fail;
    }
    return to;
fail:
    destination_free(to);
    return NULL;
}

void destination_free(struct destination *to)
{
    if (to == NULL)
        return;
    SSL_SESSION_free(to->session);
    SSL_CTX_free(to->tls);
    if (to->addresses != NULL)
        freeaddrinfo(to->addresses);
    free(to->path);
    free(to);
}

const char *destination_path(const struct destination *to)
{
    return to->path;
}

const char *destination_authority(const struct destination *to)
{
    return to->authority;
}

const char *destination_origin(const struct destination *to)
{
    return to->origin;
}

const char *destination_doubt(const struct destination *to)
{
    return to->doubt == X509_V_OK ? NULL : X509_verify_cert_error_string(to->doubt);
}

const struct addrinfo *destination_address(const struct destination *to)
{
    return to->next_address;
}

void destination_next_address(struct destination *to)
{
    to->next_address = to->next_address->ai_next;
    if (to->next_address == NULL)
        to->next_address = to->addresses;
}

SSL *destination_tls_new(struct destination *to, int fd)
{
    if (to->tls == NULL)
        return NULL;
    SSL *tls = SSL_new(to->tls);
    if (tls == NULL || SSL_set_fd(tls, fd) != 1)
        abort(); /* no memory */
    struct in6_addr literal;
    if (inet_pton(AF_INET, to->host, &literal) == 1 ||
        inet_pton(AF_INET6, to->host, &literal) == 1) {
        X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(tls), to->host);
    } else {
        SSL_set1_host(tls, to->host);
        SSL_set_tlsext_host_name(tls, to->host);
    }
    if (to->session != NULL)
        SSL_set_session(tls, to->session);
    return tls;
}

void destination_note_verdict(struct destination *to, long verdict)
{
    if (verdict != X509_V_OK)
        to->doubt = verdict;
}

void destination_forget_session(struct destination *to)
{
    SSL_SESSION_free(to->session);
    to->session = NULL;
}
