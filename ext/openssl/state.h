/* What one interpreter's copy of the module owns.  No Python object is anywhere else,
   and no pointer to a connection.  (The process has, beside these, keys/ledger.c's list of
   ledgers, their sums and the place beside an SSL, streams/call.c's counts of forks,
   and streams/tlsbio.c's BIO method with the functions that it calls.) */
#ifndef PYKEYUPDATE_STATE_H
#define PYKEYUPDATE_STATE_H

#include "openssl/libssl.h"

typedef struct {
    PyTypeObject *sslobject_type; /* _ssl._SSLSocket of this interpreter */
    PyObject *sslobj_name;        /* the string "_sslobj" */
    PyObject *ssl;                /* module ssl, as it was at import */
    PyObject *errors;             /* module pykeyupdate._errors */
    PyObject *find;               /* pykeyupdate._finding.find_connection */
    PyObject *partial;            /* functools.partial */
    PyObject *fileno;             /* _socket.socket.fileno */
    PyObject *gettimeout;         /* _socket.socket.gettimeout */
    PyObject *impossible;         /* pykeyupdate._policy.act_on_impossible */
    PyObject *happened;           /* pykeyupdate._events.tell_events */
    PyObject *read_length;        /* 1024 */
    PyTypeObject *duplex_type;    /* Duplex */
    BIO_METHOD *bio_method;       /* of managed sockets; never freed */
    PyObject *update_types[3];    /* KeyUpdateType(-1), (0), (1) */
    int keeps_gil;                /* OpenSSL may be called with the GIL */
    Py_ssize_t head;              /* sizeof(PyObject) in this interpreter */
    struct ku_libssl libssl;
} ku_state;

#endif
