/* A call of the pump's (pump.h) as Python makes it: with the socket's timeout and
   descriptor, without the GIL, interrupted by signals, and raising what it came to. */
#ifndef PYKEYUPDATE_DUPLEX_CALL_H
#define PYKEYUPDATE_DUPLEX_CALL_H

#include "streams/pump.h"
#include "system/forks.h"

/* What pykeyupdate._keyupdate.Duplex is (duplex.c). */
typedef struct {
    PyObject_HEAD
    PyObject *inner; /* the _ssl._SSLSocket */
    PyObject *owner; /* weakref to the socket */
    unsigned long forks, forks_of_parent;
    struct ku_pump pump;
} Duplex;

ku_state *ku_state_of(Duplex *self);

/* The socket, as a new reference, or the Duplex itself where that is gone. */
PyObject *ku_owner_of(Duplex *self);

/* -1 with an exception where this thread is in a step of this very connection. */
int ku_call_refuse_reentry(ku_state *state, Duplex *self, const char *function);

/* Enter the monitor for a look, which is allowed at any time: in a callback, and in one
   of another connection too.  Called and left with the GIL.  -1 with an exception
   where the connection cannot be used (in this process); otherwise for
   ku_call_end_look(). */
int ku_call_begin_look(ku_state *state, Duplex *self, const char *function);
void ku_call_end_look(Duplex *self, int begun);

/* What is done in a call, once; after KU_INTERRUPTED once more. */
typedef enum ku_progress (*ku_action)(struct ku_call *call, void *argument);

/* Run an action without the GIL, and signal handlers where it is interrupted.
   -1 with the exception of a handler, or of a callback that OpenSSL called. */
int ku_call_run(Duplex *self, struct ku_call *call, ku_action action, void *argument,
                enum ku_progress *progress);

/* Prepare a call, run it, and raise what it came to: NULL with an exception, or a
   borrowed None.  `timeout` is in seconds, or None; NULL: the socket's own.  Refused in
   a step of the same connection. */
PyObject *ku_call_perform(Duplex *self, const char *what, PyObject *timeout,
                          ku_action action, void *argument);

/* The same, for what needs no socket: there may be none any more (detach()). */
PyObject *ku_call_perform_here(Duplex *self, const char *what, ku_action action,
                               void *argument);

/* Take one step, and send what it makes if it is `sent`: 0 and its value, or -1 with an
   exception. */
int ku_call_take_step(Duplex *self, const char *function, ku_step step,
                      intptr_t argument, int sent, int *value);

#endif
