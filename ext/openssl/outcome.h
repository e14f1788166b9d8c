/* What came of a call while the connection was held: plain C, so that no Python code
   runs between the questions and the call that they protect. */
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
    /* not now, try after the next I/O */
    KU_NOT_CONNECTED,
    KU_NO_HANDSHAKE,
    KU_UPDATE_SCHEDULED,
    KU_ANSWER_OWED,
    KU_IN_MESSAGE,
    KU_RENEGOTIATING,
    KU_WRITE_PENDING,
    KU_READ_PENDING,
    KU_READ_PENDING_OLD,
    KU_UNREAD,
    KU_CERTIFICATE_REQUESTED,
    KU_DATA_IN_FRONT,
    KU_TOO_SOON,
    KU_UNANSWERED,
    KU_IN_CALLBACK,
    KU_IN_WRITE,
    KU_BUSY,
    KU_ELSEWHERE,
    /* OpenSSL was asked and said no: see ku_outcome.error */
    KU_OPENSSL,
    /* the connection itself failed or ended, during a handshake step */
    KU_IO,
};

struct ku_outcome {
    enum ku_refusal refusal;
    int value;           /* KU_OK: what is returned · KU_IO: SSL_get_error() */
    unsigned long error; /* KU_OPENSSL, KU_IO: last entry of the error queue */
    int system_error;    /* KU_IO: errno, or Windows' last error */
    long verify_result;  /* KU_IO: SSL_get_verify_result() */
    const char *detail;  /* KU_NEEDS_*, KU_NOT_ALLOWED: the version ·
                             KU_MISSING: the function ·
                             KU_PEER_LIMIT: of what · KU_IO: more of the message,
                             or NULL */
};

struct ku_outcome ku_ok(int value);
struct ku_outcome ku_refused(enum ku_refusal refusal);
struct ku_outcome ku_refused_because(enum ku_refusal refusal, const char *detail);

/* An entry that somebody has left in this thread's error queue would make a fatal
   error of "wants to read".  Looking is cheaper than clearing. */
void ku_clear_errors(const struct ku_libssl *libssl);

/* The outcome of an OpenSSL function that schedules and gives 1, or 0 with an entry in
   the error queue, which is emptied. */
struct ku_outcome ku_scheduled(const struct ku_libssl *libssl, int result);

/* What a failed SSL_read() or the like means (KU_IO), with the error queue emptied.
   In the thread that called it, before anything else of OpenSSL's. */
struct ku_outcome ku_failed_io(const struct ku_tls *tls);

/* SSL_do_handshake(): KU_OK, or what its failure means. */
struct ku_outcome ku_do_handshake(const struct ku_tls *tls);

/* ERR_GET_LIB() and ERR_PACK(ERR_LIB_SSL, reason): macros, which moved by a bit in
   OpenSSL 3.0. */
int ku_error_library(const struct ku_libssl *libssl, unsigned long error);
unsigned long ku_ssl_error(const struct ku_libssl *libssl, int reason);

/* What is done with OpenSSL while a connection is held. */
typedef struct ku_outcome (*ku_step)(const struct ku_tls *tls);

#endif
