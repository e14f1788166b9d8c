/* The outcome of a call while the connection was locked, in plain C: no Python code may
   run between the checks and the OpenSSL call that they protect. */
#ifndef PYKEYUPDATE_OUTCOME_H
#define PYKEYUPDATE_OUTCOME_H

#include "openssl/tls.h"

#include "openssl/constants.h"

enum ku_refusal {
    KU_OK = 0,
    /* not a connection at all */
    KU_NO_POINTER,
    /* never on this connection */
    KU_CLOSED,
    KU_FAILED,
    KU_CLOSE_SENT,
    KU_CLOSE_RECEIVED,
    KU_NEEDS_TLS13,
    KU_NEEDS_TLS12,
    KU_FORBIDDEN,
    KU_INSECURE,
    KU_KERNEL_TLS,
    KU_NOT_SERVER,
    KU_NO_PHA,
    KU_MISSING,
    KU_FORKED,
    KU_UNMANAGED,
    KU_NOT_ALLOWED,
    KU_PEER_LIMIT,
    /* not now; try again after the next I/O */
    KU_NOT_CONNECTED,
    KU_NO_HANDSHAKE,
    KU_UPDATE_SCHEDULED,
    KU_ANSWER_OWED,
    KU_IN_MESSAGE,
    KU_RENEGOTIATING,
    KU_WRITE_PENDING,
    KU_READ_PENDING,
    KU_READ_PENDING_OLD,
    KU_BEGINS_WITH_READ,
    KU_UNREAD,
    KU_CERTIFICATE_REQUESTED,
    KU_DATA_IN_FRONT,
    KU_TOO_SOON,
    KU_UNANSWERED,
    KU_IN_CALLBACK,
    KU_IN_WRITE,
    KU_BUSY,
    KU_ELSEWHERE,
    /* OpenSSL refused: see ku_outcome.error */
    KU_OPENSSL,
    /* I/O or a handshake step did not complete, or ended the connection */
    KU_IO,
};

struct ku_outcome {
    enum ku_refusal refusal;
    int value;           /* KU_OK: the value to return · KU_IO: SSL_get_error() */
    unsigned long error; /* KU_OPENSSL, KU_IO: last entry of the error queue */
    int system_error;    /* KU_IO: errno, or Windows' last error */
    long verify_result;  /* KU_IO: SSL_get_verify_result() */
    const char *detail;  /* KU_NEEDS_*, KU_NOT_ALLOWED: the version ·
                            KU_MISSING: the function ·
                            KU_PEER_LIMIT: what there was too much of ·
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
