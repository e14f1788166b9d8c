/* Why a call was refused, and how that becomes a Python exception. */
#ifndef PYKEYUPDATE_ERRORS_H
#define PYKEYUPDATE_ERRORS_H

#include "openssl/state.h"

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

/* What came of a call while the connection was held.  Plain C, so that no
   Python code runs between the questions and the call they protect. */
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

/* In place of what SSL_get_error() gives: the socket is gone, as _ssl numbers it. */
#define PY_SSL_ERROR_NO_SOCKET 9

/* Where module_clear() has been. */
#define KU_SHUTTING_DOWN "pykeyupdate: the interpreter is shutting down"

/* Will it be the same later on this connection? */
int ku_is_for_good(const struct ku_outcome *outcome);

/* "reason; remedy", without the call and the connection; a new reference. */
PyObject *ku_reason(ku_state *state, const struct ku_outcome *outcome);

/* Set the exception for an outcome other than KU_OK; always returns NULL.
   Messages read "function(connection): reason; remedy". */
PyObject *ku_raise(ku_state *state, const struct ku_outcome *outcome,
                   const char *function, PyObject *conn);

/* The same for a refusal that needs no detail. */
PyObject *ku_refuse(ku_state *state, enum ku_refusal refusal, const char *function,
                    PyObject *conn);

/* ValueError for a key update type that cannot be scheduled; returns NULL. */
PyObject *ku_refuse_type(ku_state *state, const char *function, PyObject *conn,
                         PyObject *update_type);

/* As the interpreter does it in an `except`: the exception that is set stays, with this
   one, of before, as its context. */
void ku_chain_exception(PyObject *type, PyObject *value, PyObject *traceback);

/* As PyErr_Restore(); an exception that is set meanwhile becomes its context. */
void ku_restore_exception(PyObject *type, PyObject *value, PyObject *traceback);

#endif
