/* How Python's call becomes a call of the pump (pump.h): with the socket's timeout and
   descriptor, without the GIL, interrupted by signals, and raising what it came to.
   All functions are called with the GIL. */
#ifndef PYKEYUPDATE_DUPLEX_CALL_H
#define PYKEYUPDATE_DUPLEX_CALL_H

#include "streams/pump.h"
#include "system/forks.h"

/* An instance of pykeyupdate._keyupdate.Duplex (duplex.c). */
typedef struct {
    PyObject_HEAD
    PyObject *inner; /* the _ssl._SSLSocket */
    PyObject *owner; /* weak reference to the socket */
    unsigned long forks, forks_made;
    unsigned long adopted; /* by the process that so many forks led to */
    struct ku_pump pump;
} Duplex;

ku_state *ku_state_of(Duplex *self);

/* A new reference to the socket, or to the Duplex itself if the socket is gone. */
PyObject *ku_owner_of(Duplex *self);

/* Returns 0, or -1 with an exception if this thread is in a step of this very
   connection. */
int ku_call_refuse_reentry(ku_state *state, Duplex *self, const char *function);

/* Enter the monitor for a look.  That is allowed at any time: in a callback of this
   connection, and in one of another.  May release the GIL to wait.  Returns -1 with an
   exception if the connection cannot be used (in this process); the caller passes any
   other value to ku_call_end_look(). */
int ku_call_begin_look(ku_state *state, Duplex *self, const char *function);
void ku_call_end_look(Duplex *self, int begun);

/* What a call does, without the GIL and in the monitor.  Called again after
   KU_INTERRUPTED, and after KU_NO_NEW_KEYS if the write may go on. */
typedef enum ku_progress (*ku_action)(struct ku_call *call, void *argument);

/* Run an action without the GIL, and signal handlers whenever it is interrupted.  Sets
   `progress` and returns 0, or -1 with the exception of a signal handler, of
   on_impossible, or of a callback that OpenSSL called. */
int ku_call_run(Duplex *self, struct ku_call *call, ku_action action, void *argument,
                enum ku_progress *progress);

/* Prepare a call, run it, and raise what it came to.  Returns a borrowed None, or NULL
   with an exception.  `timeout` is in seconds, or None for no limit; NULL means the
   socket's own.  Refused in a step of the same connection. */
PyObject *ku_call_perform(Duplex *self, const char *what, PyObject *timeout,
                          ku_action action, void *argument);

/* The same for an action that needs no socket: there may be none after detach(). */
PyObject *ku_call_perform_here(Duplex *self, const char *what, ku_action action,
                               void *argument);

/* Take one step and, if `sent`, send what it makes.  Returns 0 and sets `value`, or -1
   with an exception. */
int ku_call_take_step(Duplex *self, const char *function, ku_step step,
                      intptr_t argument, int sent, int *value);

#endif
