/* A call of a managed SSLObject, from its beginning to its result.  Called with the
   GIL; only a ku_io_action may run without it. */
#ifndef PYKEYUPDATE_OBJECT_IO_H
#define PYKEYUPDATE_OBJECT_IO_H

#include "keys/telling.h"
#include "openssl/module_state.h"
#include "system/buffer.h"

/* We keep nothing in the instance's __dict__, so it need not exist: because the type
   has members in C, Python 3.13 and later allocate the __dict__ separately (350
   bytes). */
typedef struct {
    PyObject_HEAD
    PyObject *inner;     /* the _ssl._SSLSocket; in Python `_sslobj` */
    PyObject *rules;     /* in Python `_rules` */
    PyObject *transport; /* in Python `_transport`: weakref to asyncio's, or None */
    PyObject *peer;      /* in Python `_peer`: its address, if known, or None */
    PyObject *label;     /* in Python `_label`: the program's name for it, or None */
    struct ku_buffer held;
    unsigned char waits_with_cut;
    unsigned char write_refused; /* data that would have been too much to hold */
    unsigned char closing;       /* nothing is too much to hold, as the transport has it
                              anyway; and nothing begins that the peer would find half
                              done at the end, such as a renegotiation */
} ManagedObject;

struct ku_io {
    ku_state *state;
    PyObject *self, *inner;
    struct ku_tls tls;
    const char *function;
    struct ku_report report;
};

/* What to do in OpenSSL.  Returns 1, or 0 with the outcome.  The GIL may or may not be
   held. */
typedef int (*ku_io_action)(struct ku_io *io, void *argument,
                            struct ku_outcome *outcome);

PyObject *ku_io_raise_cut(struct ku_io *io);

ManagedObject *ku_io_object(const struct ku_io *io);

int ku_io_is_of_asyncio(const struct ku_io *io);

/* What a method of the object says; -1 with an exception. */
int ku_io_ask_object(struct ku_io *io, const char *method);

/* Will a transport look again in its loop's next turn?  -1 with an exception. */
int ku_io_reads_again_soon(struct ku_io *io);

/* Begin a call.  Returns 0, or -1 with an exception.  In both cases the caller owns
   `io->inner` and gives it back. */
int ku_io_begin(struct ku_io *io, PyTypeObject *defining, PyObject *self,
                const char *function);

/* Run an action.  Returns 1, 0 with the outcome, or -1 with an exception. */
int ku_io_try(struct ku_io *io, ku_io_action action, void *argument,
              int has_little_to_do, struct ku_outcome *outcome);

/* Raise the exception for an outcome.  Always returns -1.  OpenSSL 1.1.1 has no error
   for an end in the middle of a handshake over memory, so this uses _ssl's text. */
int ku_io_raise(struct ku_io *io, const struct ku_outcome *given);

/* Make new keys now if they are due.  The messages go into memory; whoever moves the
   bytes looks for output after every read.  Returns 0, or -1 with an exception of a
   callback. */
int ku_io_renew(struct ku_io *io);

/* End a read or a write as _ssl does: if a _msg_callback or the key log has raised
   meanwhile, raise that, and data that was read is lost.  Steals `result` and returns
   it, or NULL. */
PyObject *ku_io_unless_callbacks_raised(struct ku_io *io, PyObject *result);

/* Report the events of the call.  Steals `result` and returns it, or NULL with an
   exception. */
PyObject *ku_io_finish(struct ku_io *io, PyObject *result);

int ku_io_is_renegotiating(const struct ku_io *io);

#endif
