/* The server's TLS context: what is refused, and that nobody is ever asked for a passphrase. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "edge_tls.h"

#include "obj.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static char directory[] = "/tmp/hookgate-edge-tls-XXXXXX";
static char certificate[64], key[64], other_key[64], locked_key[64], junk[64];

static void write_key(const char *path, EVP_PKEY *pkey, const EVP_CIPHER *cipher)
{
    unsigned char word[] = "passphrase";
    BIO *out = BIO_new_file(path, "w");
    assert_non_null(out);
    assert_int_equal(PEM_write_bio_PrivateKey_traditional(out, pkey, cipher, cipher ? word : NULL,
                                                          cipher ? (int)sizeof word - 1 : 0, NULL,
                                                          NULL),
                     1);
    BIO_free(out);
}

static void write_certificate(EVP_PKEY *pkey)
{
    X509 *made = X509_new();
    ASN1_INTEGER_set(X509_get_serialNumber(made), 1);
    X509_gmtime_adj(X509_getm_notBefore(made), 0);
    X509_gmtime_adj(X509_getm_notAfter(made), 3600);
    X509_set_pubkey(made, pkey);
    assert_true(X509_sign(made, pkey, EVP_sha256()) > 0);
    FILE *out = fopen(certificate, "w");
    assert_int_equal(PEM_write_X509(out, made), 1);
    fclose(out);
    X509_free(made);
}

static int make_files(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(directory));
    char *const paths[] = {certificate, key, other_key, locked_key, junk};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        snprintf(paths[i], sizeof certificate, "%s/%zu", directory, i);
    EVP_PKEY *mine = EVP_EC_gen("P-256"), *other = EVP_EC_gen("P-256");
    write_certificate(mine);
    write_key(key, mine, NULL);
    write_key(other_key, other, NULL);
    write_key(locked_key, mine, EVP_aes_128_cbc());
    EVP_PKEY_free(mine);
    EVP_PKEY_free(other);
    FILE *out = fopen(junk, "w");
    fputs("-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n", out);
    fclose(out);
    return 0;
}

static int remove_files(void **state)
{
    (void)state;
    const char *const paths[] = {certificate, key, other_key, locked_key, junk};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        unlink(paths[i]);
    return rmdir(directory);
}

static void assert_refused(const char *a, const char *b, const char *file, const char *why)
{
    struct problems problems = {0};
    assert_null(edge_tls_new(a, b, &problems));
    assert_int_equal(problems.count, 1);
    assert_non_null(strstr(problems.lines[0], file));
    assert_non_null(strstr(problems.lines[0], why));
    problems_release(&problems);
}

static void test_what_is_refused(void **state)
{
    (void)state;
    assert_refused(junk, key, junk, "not a PEM certificate chain");
    assert_refused("/nowhere", key, "/nowhere", "not a PEM certificate chain");
    assert_refused(certificate, junk, junk, "not a PEM private key");
    assert_refused(certificate, other_key, other_key, "not the certificate's");
}

static void test_what_is_taken(void **state)
{
    (void)state;
    struct problems problems = {0};
    struct ssl_ctx_st *tls = edge_tls_new(certificate, key, &problems);
    assert_non_null(tls);
    assert_false(problems_any(&problems));
    edge_tls_unref(tls);
}

/* On a terminal OpenSSL would ask, and a reload wait for an answer that never comes. */
static void test_nobody_is_asked(void **state)
{
    (void)state;
    int terminal;
    pid_t child = forkpty(&terminal, NULL, NULL, NULL);
    if (child == 0) {
        struct problems problems = {0};
        _exit(edge_tls_new(certificate, locked_key, &problems) == NULL ? 42 : 43);
    }
    int status = 0;
    pid_t ended = 0;
    for (int i = 0; i < 300 && ended == 0; i++) {
        poll(NULL, 0, 10);
        ended = waitpid(child, &status, WNOHANG);
    }
    if (ended == 0) {
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
    }
    close(terminal);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 42);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_what_is_taken),
        cmocka_unit_test(test_nobody_is_asked),
    };
    return cmocka_run_group_tests_name("edge_tls", tests, make_files, remove_files);
}
