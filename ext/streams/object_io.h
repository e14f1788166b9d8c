/* A call of a managed SSLObject's, from its beginning to what it comes to. */
#ifndef PYKEYUPDATE_OBJECT_IO_H
#define PYKEYUPDATE_OBJECT_IO_H

#include "keys/telling.h"
#include "openssl/module_state.h"
#include "system/buffer.h"

/* Nothing of ours is in an object's dict, which so need not be there: from Python 3.13
   on it would be one of its own (350 bytes), because there are members in C. */
typedef struct {
    PyObject_HEAD
    PyObject *inner;     /* the _ssl._SSLSocket, as `_sslobj` */
    PyObject *rules;     /* as `_rules` */
    PyObject *transport; /* as `_transport`: weakref to asyncio's, or None */
    struct ku_buffer held;
    unsigned char waits_with_cut;
    unsigned char refused; /* data that would have been too much to hold */
    unsigned char closing; /* nothing is too much to hold, as the transport has it
                              anyway; and nothing begins that the peer would find half
                              done at the end, such as a renegotiation */
} ManagedObject;

struct ku_io {
    ku_state *state;
    PyObject *self, *inner;
    struct ku_tls tls;
    const char *function;
    struct ku_news news;
};

/* What is done in OpenSSL: 1, or 0 and the outcome. */
typedef int (*ku_io_action)(struct ku_io *io, void *argument,
                            struct ku_outcome *outcome);

PyObject *ku_io_raise_cut(struct ku_io *io);

ManagedObject *ku_io_object(const struct ku_io *io);

int ku_io_is_of_asyncio(const struct ku_io *io);

/* What a method of the object says; -1 with an exception. */
int ku_io_ask_object(struct ku_io *io, const char *method);

/* Will a transport look again in its loop's next turn?  -1 with an exception. */
int ku_io_reads_again_soon(struct ku_io *io);

/* 0, or -1 with an exception; the caller gives back `inner` in both cases. */
int ku_io_begin(struct ku_io *io, PyTypeObject *defining, PyObject *self,
                const char *function);

/* 1, or 0 and what came, or -1 with an exception. */
int ku_io_try(struct ku_io *io, ku_io_action action, void *argument,
              int has_little_to_do, struct ku_outcome *outcome);

/* OpenSSL 1.1.1 has no error for the end in the middle of a handshake over memory,
   which _ssl tells so. */
int ku_io_raise(struct ku_io *io, const struct ku_outcome *given);

/* New keys that are due are made now: this sends them in memory, and what carries
   the bytes looks after every read whether there are any.  0, or -1 with an exception
   of a callback's. */
int ku_io_renew(struct ku_io *io);

/* As _ssl ends a read and a write: with what a _msg_callback, or the key log, has
   raised meanwhile.  The data that was read is lost then. */
PyObject *ku_io_unless_callbacks_raised(struct ku_io *io, PyObject *result);

/* Tell what has happened meanwhile. */
PyObject *ku_io_finish(struct ku_io *io, PyObject *result);

int ku_io_is_renegotiating(const struct ku_io *io);

#endif
