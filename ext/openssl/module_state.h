/* What one interpreter's copy of the module owns.  Static storage holds no Python
   object, and no pointer to a program's connection.

   Static storage does hold, for the whole process: the list of ledgers, their totals,
   their ex_data index, the functions they call and the offset of their clock
   (keys/ledger.c); the counts of forks (system/forks.c); the BIO method and the
   functions that it calls (streams/tlsbio.c); for each thread, how many monitors it is
   inside (system/monitor.c); and the proof of the states' names (states.c). */
#ifndef PYKEYUPDATE_MODULE_STATE_H
#define PYKEYUPDATE_MODULE_STATE_H

#include "openssl/libssl.h"

typedef struct {
    PyTypeObject *sslobject_type; /* this interpreter's _ssl._SSLSocket */
    PyObject *sslobj_name;        /* the string "_sslobj" */
    PyObject *ssl;                /* module ssl, as it was at import */
    PyObject *errors;             /* module pykeyupdate.errors */
    PyObject *find;               /* pykeyupdate.connections.find */
    PyObject *partial;            /* functools.partial */
    PyObject *fileno;             /* _socket.socket.fileno */
    PyObject *gettimeout;         /* _socket.socket.gettimeout */
    PyObject *impossible;         /* pykeyupdate.policy.impossible */
    PyObject *happened;           /* pykeyupdate.events.happened */
    PyObject *read_length;        /* the int 1024 */
    PyTypeObject *duplex_type;    /* the type Duplex */
    BIO_METHOD *bio_method;       /* of managed sockets; never freed */
    PyObject *update_types[3];    /* KeyUpdateType(-1), (0), (1) */
    int keeps_gil;                /* OpenSSL may be called with the GIL held */
    Py_ssize_t head;              /* sizeof(PyObject) in this interpreter */
    struct ku_libssl libssl;
} ku_state;

#endif
