/* What one interpreter's copy of the module owns.  Static storage holds no Python
   object, and no pointer to a program's connection.

   Static storage does hold, for the whole process: the list of ledgers and their totals
   (keys/ledgers.c), their ex_data index and the functions they call (keys/opening.c),
   and the offset of their clock (keys/key_clock.c); the counts of forks (system/forks.c); the BIO method and the
   functions that it calls (streams/tlsbio.c); for each thread, how many monitors it is
   inside (system/monitor.c); and the proof of the states (states.c). */
#ifndef PYKEYUPDATE_MODULE_STATE_H
#define PYKEYUPDATE_MODULE_STATE_H

#include "openssl/libssl.h"

/* clang-format off */
#define KU_STATE_OBJECTS(X)                                                           \
    X(PyTypeObject, sslobject_type) /* _ssl._SSLSocket of this interpreter */         \
    X(PyObject, sslobj_name)        /* the string "_sslobj" */                        \
    X(PyObject, ssl)                /* module ssl, as it was at import */             \
    X(PyObject, errors)             /* module pykeyupdate._errors */                  \
    X(PyObject, find_connection)    /* pykeyupdate._finding.find_connection */        \
    X(PyObject, stored)             /* pykeyupdate._static_lookup.stored_attribute */ \
    X(PyTypeObject, socket_type)    /* ssl.SSLSocket, as ssl came with it */          \
    X(PyTypeObject, object_type)    /* ssl.SSLObject, likewise */                     \
    X(PyObject, partial)            /* functools.partial */                           \
    X(PyTypeObject, plain_socket_type) /* _socket.socket */                           \
    X(PyObject, fileno)             /* its fileno() */                                \
    X(PyObject, gettimeout)         /* its gettimeout() */                            \
    X(PyObject, detach)             /* its detach() */                                \
    X(PyObject, act_on_impossible)  /* pykeyupdate._policy.act_on_impossible */       \
    X(PyObject, tell_events)        /* pykeyupdate._events.tell_events */             \
    X(PyObject, event_handlers)     /* pykeyupdate._events._registered */             \
    X(PyObject, logs_at)            /* isEnabledFor() of our logger, once needed */   \
    X(PyObject, want_read)          /* ssl.SSLWantReadError */                        \
    X(PyObject, want_read_args)     /* its arguments: see raise_want_read() */        \
    X(PyObject, library_name)       /* the string "library" */                        \
    X(PyObject, reason_name)        /* the string "reason" */                         \
    X(PyObject, read_length)        /* 1024 */                                        \
    X(PyObject, read_name)          /* the string "read" */                           \
    X(PyObject, send_name)          /* the string "send" */                           \
    X(PyObject, managed_class)      /* pykeyupdate.SSLSocket */                       \
    X(PyObject, sslobj_slot)        /* its _sslobj, a member descriptor */            \
    X(PyTypeObject, duplex_type)    /* Duplex */                                      \
    X(PyTypeObject, view_type)      /* View */
/* clang-format on */

typedef struct {
#define KU_MEMBER(type, name) type *name;
    KU_STATE_OBJECTS(KU_MEMBER)
#undef KU_MEMBER
    PyObject *update_types[3]; /* KeyUpdateType(-1), (0), (1) */
    BIO_METHOD *bio_method;    /* of managed sockets; never freed */
    int keeps_gil;             /* OpenSSL may be called with the GIL */
    int reads_socket_fields;   /* see streams/socket_fields.h */
    Py_ssize_t head;           /* sizeof(PyObject) in this interpreter */
    struct ku_libssl libssl;
} ku_state;

#endif
