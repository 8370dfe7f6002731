/* The one place that knows OpenSSL. hiredis drives the handshake with the socket; here is what it
 * is to accept, and what the reasons of a failure mean to whoever runs the service. */
#include "store/redis_tls.h"

#include <stdlib.h>

#include "base/buf.h"

/* Who does not know the word cannot read the line with it. */
#ifdef __has_include
#if __has_include(<hiredis/hiredis_ssl.h>) && __has_include(<openssl/ssl.h>)
#define IS_THERE true
#endif
#endif

#ifdef IS_THERE

#include <hiredis/hiredis_ssl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <uv.h>

struct redis_tls {
    SSL_CTX *context; /* NULL: the files are of no use */
};

#define OTHER_NAME "its certificate is for another name than the one in REDIS_URL"
#define UNKNOWN_ISSUER "its certificate has no issuer that is trusted (REDIS_CA_FILE)"
#define OUR_CERTIFICATE "it does not accept the certificate in REDIS_CERT_FILE"
#define NO_TLS "what answers speaks none"
#define OLD_TLS "it speaks no version from 1.2 on"

static const struct {
    long code;
    const char *meaning;
} refusals[] = {
    {X509_V_ERR_HOSTNAME_MISMATCH, OTHER_NAME},
    {X509_V_ERR_IP_ADDRESS_MISMATCH, OTHER_NAME},
    {X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY, UNKNOWN_ISSUER},
    {X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE, UNKNOWN_ISSUER},
    {X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN, UNKNOWN_ISSUER},
    {X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT, UNKNOWN_ISSUER},
    {X509_V_ERR_CERT_HAS_EXPIRED, "its certificate has expired"},
    {X509_V_ERR_CERT_NOT_YET_VALID, "its certificate is not valid yet"},
};

static const struct {
    int reason;
    const char *meaning;
} alerts[] = {
    {SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED,
     "it wants a certificate of ours; set REDIS_CERT_FILE and REDIS_KEY_FILE"},
    /* What TLS 1.2 says of a certificate that is not there, and of much else. */
    {SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE,
     "it refuses; maybe it wants a certificate of ours (REDIS_CERT_FILE)"},
    {SSL_R_TLSV1_ALERT_UNKNOWN_CA, OUR_CERTIFICATE},
    {SSL_R_SSLV3_ALERT_BAD_CERTIFICATE, OUR_CERTIFICATE},
    {SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED, OUR_CERTIFICATE},
    {SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN, OUR_CERTIFICATE},
    {SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE, OUR_CERTIFICATE},
    {SSL_R_WRONG_VERSION_NUMBER, NO_TLS},
    {SSL_R_PACKET_LENGTH_TOO_LONG, NO_TLS},
    {SSL_R_UNSUPPORTED_PROTOCOL, OLD_TLS},
    {SSL_R_TLSV1_ALERT_PROTOCOL_VERSION, OLD_TLS},
};

/* OpenSSL would ask for it on the terminal. */
static int no_password(char *password, int size, int is_for_writing, void *data)
{
    (void)password;
    (void)size;
    (void)is_for_writing;
    (void)data;
    return -1;
}

/* Take the files into context. Returns what is wrong with them, NULL when nothing. */
static const char *load_files(SSL_CTX *context, const struct settings *settings)
{
    const char *ca = settings->redis_ca_file;
    const char *cert = settings->redis_cert_file;
    const char *key = settings->redis_key_file;
    int loaded = ca ? SSL_CTX_load_verify_locations(context, ca, NULL)
                    : SSL_CTX_set_default_verify_paths(context);
    if (loaded != 1) {
        return ca ? "REDIS_CA_FILE: that file's certificates cannot be read; write them as PEM"
                  : "REDIS_CA_FILE: the system has no CA certificates; name a file with them";
    }
    if (cert && SSL_CTX_use_certificate_chain_file(context, cert) != 1) {
        return "REDIS_CERT_FILE: that file's certificate cannot be read; write it as PEM";
    }
    if (key && SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1) {
        return "REDIS_KEY_FILE: that key cannot be read, is encrypted or is not that of the "
               "certificate in REDIS_CERT_FILE; write the certificate's own, as PEM without a "
               "password";
    }
    return NULL;
}

static SSL_CTX *new_context(const struct settings *settings, const char **problem)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    if (!context) {
        abort();
    }
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    /* hiredis goes on with a write from wherever its bytes have moved to. */
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_default_passwd_cb(context, no_password);
    *problem = load_files(context, settings);
    if (*problem) {
        SSL_CTX_free(context);
        return NULL;
    }
    return context;
}

static const char *check_files(const struct settings *settings)
{
    const char *problem;
    SSL_CTX_free(new_context(settings, &problem));
    return problem;
}

struct redis_tls *redis_tls_new(const struct settings *settings)
{
    const char *problem;
    struct redis_tls *tls = xcalloc(1, sizeof(*tls));
    tls->context = new_context(settings, &problem);
    return tls;
}

void redis_tls_free(struct redis_tls *tls)
{
    if (tls) {
        SSL_CTX_free(tls->context);
        free(tls);
    }
}

/* What the certificate has to be good for, by a name that is meant as one: its Common Name may be
 * anything (RFC 9525 2). The server is told the name (RFC 6066 3), which may not be an address. */
static bool expect(SSL *ssl, const char *host)
{
    struct in6_addr ignored;
    if (uv_inet_pton(AF_INET, host, &ignored) == 0 || uv_inet_pton(AF_INET6, host, &ignored) == 0) {
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1;
    }
    SSL_set_hostflags(ssl,
                      X509_CHECK_FLAG_NEVER_CHECK_SUBJECT | X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set1_host(ssl, host) == 1 && SSL_set_tlsext_host_name(ssl, host) == 1;
}

static void free_ssl(void *ssl)
{
    SSL_free(ssl);
}

void redis_tls_begin(struct redis_tls *tls, redisAsyncContext *context, const char *host)
{
    SSL *ssl = tls->context ? SSL_new(tls->context) : NULL;
    context->c.privdata = ssl;
    if (ssl && expect(ssl, host) && redisInitiateSSL(&context->c, ssl) == REDIS_OK) {
        return; /* hiredis frees it with the context */
    }
    context->c.free_privdata = free_ssl;
    if (!context->c.err) {
        context->c.err = REDIS_ERR_OTHER;
        strcpy(context->c.errstr, "TLS: a file for it cannot be used any more");
    }
    context->err = context->c.err;
    context->errstr = context->c.errstr;
}

void redis_tls_forget_errors(void)
{
    ERR_clear_error();
}

bool redis_tls_is_on(const redisAsyncContext *context)
{
    return context->c.privdata != NULL;
}

bool redis_tls_has_answer(const redisAsyncContext *context)
{
    char byte;
    redis_tls_forget_errors();
    return SSL_peek(context->c.privdata, &byte, 1) > 0;
}

/* What OpenSSL has found wrong with the certificate; NULL: nothing. */
static const char *refusal_of(const SSL *ssl)
{
    long code = SSL_get_verify_result(ssl);
    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
        if (refusals[i].code == code) {
            return refusals[i].meaning;
        }
    }
    return code == X509_V_OK ? NULL : X509_verify_cert_error_string(code);
}

/* What else OpenSSL has to say; NULL: nothing but that the connection has ended. */
static const char *error_of(unsigned long code)
{
    int reason = ERR_GET_REASON(code);
    if (ERR_GET_LIB(code) != ERR_LIB_SSL || reason == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
        return NULL;
    }
    for (size_t i = 0; i < sizeof(alerts) / sizeof(alerts[0]); i++) {
        if (alerts[i].reason == reason) {
            return alerts[i].meaning;
        }
    }
    return ERR_reason_error_string(code);
}

const char *redis_tls_failure(const redisAsyncContext *context, bool has_answered)
{
    static char text[200];
    const SSL *ssl = context->c.privdata;
    const char *why = ssl ? refusal_of(ssl) : NULL;
    if (ssl && !why) {
        why = error_of(ERR_peek_last_error());
    }
    if (ssl && !why && !has_answered && SSL_is_init_finished(ssl)) {
        /* With TLS 1.3 a certificate is looked at after the handshake, and what is said of it can
         * be lost with the connection. */
        why = SSL_get_certificate(ssl) ? "it ended the connection before it answered; does it "
                                         "accept the certificate in REDIS_CERT_FILE?"
                                       : "it ended the connection before it answered; does it want "
                                         "a certificate of ours (REDIS_CERT_FILE)?";
    }
    if (!why) {
        return NULL;
    }
    snprintf(text, sizeof(text), "TLS: %s", why);
    return text;
}

#else

/* hiredis before 1.0, or without its TLS: redis_tls_check keeps a process from coming this far. */

#define IS_THERE false

static const char *check_files(const struct settings *settings)
{
    (void)settings;
    return NULL;
}

struct redis_tls *redis_tls_new(const struct settings *settings)
{
    (void)settings;
    abort();
}

void redis_tls_free(struct redis_tls *tls)
{
    (void)tls;
}

void redis_tls_begin(struct redis_tls *tls, redisAsyncContext *context, const char *host)
{
    (void)tls;
    (void)context;
    (void)host;
    abort();
}

void redis_tls_forget_errors(void)
{
}

bool redis_tls_is_on(const redisAsyncContext *context)
{
    (void)context;
    return false;
}

bool redis_tls_has_answer(const redisAsyncContext *context)
{
    (void)context;
    return false;
}

const char *redis_tls_failure(const redisAsyncContext *context, bool has_answered)
{
    (void)context;
    (void)has_answered;
    return NULL;
}

#endif

/* What is wrong with settings that are sound each by itself; NULL: nothing. */
static const char *check_together(const struct settings *settings)
{
    const char *cert = settings->redis_cert_file;
    const char *key = settings->redis_key_file;
    if (!settings->redis.is_tls) {
        /* Who names these and forgets an s would have sessions travel in the clear. */
        return settings->redis_ca_file || cert || key
                   ? "REDIS_URL: asks for no TLS, and a file for it is set; write rediss://, or "
                     "unset REDIS_CA_FILE, REDIS_CERT_FILE and REDIS_KEY_FILE"
                   : NULL;
    }
    if (cert && !key) {
        return "REDIS_KEY_FILE: not set; name the file with the key of that certificate";
    }
    if (key && !cert) {
        return "REDIS_CERT_FILE: not set; name the file with the certificate of that key";
    }
    return check_files(settings);
}

int redis_tls_check(const struct settings *settings, bool are_sound, FILE *problems)
{
    const char *problem = NULL;
    if (settings->redis.is_tls && !IS_THERE) {
        problem = "REDIS_URL: this build has no TLS support, which takes hiredis 1.0 or newer; use "
                  "redis:// or unix://";
    } else if (are_sound) {
        problem = check_together(settings);
    }
    if (!problem) {
        return 0;
    }
    fprintf(problems, "%s\n", problem);
    return 1;
}
