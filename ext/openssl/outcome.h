/* The outcome of a call while the connection was locked, in plain C: no Python code may
   run between the checks and the OpenSSL call that they protect. */
#ifndef PYKEYUPDATE_OUTCOME_H
#define PYKEYUPDATE_OUTCOME_H

#include "openssl/tls.h"

#include "openssl/constants.h"
#include "openssl/refusals.h"

enum ku_refusal {
    KU_OK = 0,
#define KU_ENUMERATOR(refusal, duration, exception, text) refusal,
    KU_REFUSALS(KU_ENUMERATOR)
#undef KU_ENUMERATOR
        KU_OPENSSL, /* OpenSSL refused: see ku_outcome.error */
    KU_IO, /* I/O or a handshake step did not complete, or ended the connection */
};

struct ku_outcome {
    enum ku_refusal refusal;
    int value;           /* KU_OK: the value to return · KU_IO: SSL_get_error() */
    unsigned long error; /* KU_OPENSSL, KU_IO: last entry of the error queue */
    int system_error;    /* KU_IO: errno, or Windows' last error */
    long verify_result;  /* KU_IO: SSL_get_verify_result() */
    const char *detail;  /* KU_NEEDS_*, KU_NOT_ALLOWED: the version ·
                            KU_MISSING: the function ·
                            KU_PEER_LIMIT: the limit's name ·
                            KU_IO: the rest of the message, or NULL */
};

struct ku_outcome ku_ok(int value);
struct ku_outcome ku_refused(enum ku_refusal refusal);
struct ku_outcome ku_refused_because(enum ku_refusal refusal, const char *detail);

/* Empty this thread's error queue.  An entry left behind by other code would turn
   "wants to read" into a fatal error.  Looking first is cheaper than always
   clearing. */
void ku_clear_errors(const struct ku_libssl *libssl);

/* The outcome of an OpenSSL function that schedules something and returned `result`: 1,
   or 0 with an entry in the error queue.  Returns KU_OK, KU_WRITE_PENDING or
   KU_OPENSSL, and empties the queue. */
struct ku_outcome ku_scheduled(const struct ku_libssl *libssl, int result);

/* The KU_IO outcome of an SSL_read() or similar call that failed.  Empties the error
   queue.  Call it in the same thread, before any other function of OpenSSL. */
struct ku_outcome ku_failed_io(const struct ku_tls *tls);

/* Call SSL_do_handshake().  Returns KU_OK, or ku_failed_io()'s outcome. */
struct ku_outcome ku_do_handshake(const struct ku_tls *tls);

/* ERR_GET_LIB() and ERR_PACK(ERR_LIB_SSL, reason).  OpenSSL has them as macros, whose
   layout moved by one bit in 3.0. */
int ku_error_library(const struct ku_libssl *libssl, unsigned long error);
unsigned long ku_ssl_error(const struct ku_libssl *libssl, int reason);

/* A step: what we do with OpenSSL while the connection is locked. */
typedef struct ku_outcome (*ku_step)(const struct ku_tls *tls);

#endif
