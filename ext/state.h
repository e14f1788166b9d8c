/* What one interpreter's copy of the module owns.  No Python object is anywhere else,
   and no pointer to a connection.  (The process has, beside these, record.c's list of
   records and sums, and call.c's counts of forks.) */
#ifndef PYKEYUPDATE_STATE_H
#define PYKEYUPDATE_STATE_H

#include "libssl.h"

typedef struct {
    PyTypeObject *sslobject_type;  /* _ssl._SSLSocket of this interpreter */
    PyObject *sslobj_name;         /* the string "_sslobj" */
    PyObject *ssl;                 /* module ssl, as it was at import */
    PyObject *errors;              /* module pykeyupdate.errors */
    PyObject *find;                /* pykeyupdate.connections.find */
    PyObject *stored;              /* pykeyupdate.looking.stored */
    PyTypeObject *socket_type;     /* ssl.SSLSocket, as ssl came with it */
    PyTypeObject *object_type;     /* ssl.SSLObject, likewise */
    PyObject *partial;             /* functools.partial */
    PyObject *fileno;              /* _socket.socket.fileno */
    PyObject *gettimeout;          /* _socket.socket.gettimeout */
    PyObject *detach;              /* _socket.socket.detach */
    PyObject *impossible;          /* pykeyupdate.policy.impossible */
    PyObject *happened;            /* pykeyupdate.events.happened */
    PyObject *read_length;         /* 1024 */
    PyTypeObject *duplex_type;     /* Duplex */
    BIO_METHOD *bio_method;        /* of managed sockets; never freed */
    PyObject *update_types[3];     /* KeyUpdateType(-1), (0), (1) */
    int keeps_gil;                 /* OpenSSL may be called with the GIL */
    Py_ssize_t head;               /* sizeof(PyObject) in this interpreter */
    struct ku_libssl libssl;
} ku_state;

#endif
