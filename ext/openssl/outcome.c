#include "openssl/outcome.h"

struct ku_outcome
ku_ok(int value)
{
    return (struct ku_outcome){.refusal = KU_OK, .value = value};
}

struct ku_outcome
ku_refused(enum ku_refusal refusal)
{
    return (struct ku_outcome){.refusal = refusal};
}

struct ku_outcome
ku_refused_because(enum ku_refusal refusal, const char *detail)
{
    return (struct ku_outcome){.refusal = refusal, .detail = detail};
}

void
ku_clear_errors(const struct ku_libssl *libssl)
{
    if (libssl->ERR_peek_last_error() != 0) {
        libssl->ERR_clear_error();
    }
}

/* `result` is what OpenSSL's scheduling function returned: 1, or 0 with one entry in
   this thread's error queue.  Always empty the queue: an entry left behind turns the
   next SSL_ERROR_WANT_READ into SSL_ERROR_SSL, and a working connection into a dead one
   (_ssl does not clear the queue before it reads). */
struct ku_outcome
ku_scheduled(const struct ku_libssl *libssl, int result)
{
    struct ku_outcome outcome = ku_ok(0);
    if (result != 1) {
        outcome.refusal = KU_OPENSSL;
        outcome.error = libssl->ERR_peek_last_error();
        if (KU_ERROR_REASON(outcome.error) == SSL_R_BAD_WRITE_RETRY) {
            outcome.refusal = KU_WRITE_PENDING;
        }
    }
    libssl->ERR_clear_error();
    return outcome;
}

struct ku_outcome
ku_failed_io(const struct ku_tls *tls)
{
    struct ku_outcome outcome = {.refusal = KU_IO};
    outcome.value = tls->libssl->SSL_get_error(tls->ssl, 0);
    outcome.error = tls->libssl->ERR_peek_last_error();
    if (outcome.error != 0) {
        outcome.verify_result = tls->libssl->SSL_get_verify_result(tls->ssl);
        tls->libssl->ERR_clear_error();
    }
    return outcome;
}

struct ku_outcome
ku_do_handshake(const struct ku_tls *tls)
{
    ku_clear_errors(tls->libssl);
    return tls->libssl->SSL_do_handshake(tls->ssl) == 1 ? ku_ok(0) : ku_failed_io(tls);
}

static int
library_shift(const struct ku_libssl *libssl)
{
    return libssl->version >= OPENSSL_3_0_0 ? 23 : 24;
}

int
ku_error_library(const struct ku_libssl *libssl, unsigned long error)
{
    return (int)(error >> library_shift(libssl) & 0xff);
}

unsigned long
ku_ssl_error(const struct ku_libssl *libssl, int reason)
{
    return (unsigned long)ERR_LIB_SSL << library_shift(libssl) | (unsigned long)reason;
}
